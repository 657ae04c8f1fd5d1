"""Which room may import which: the table below is the law, and every import statement is read and held against it.

Imports inside functions count as well: a lazy import keeps start-up short, it does not move a border.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import daskdml

PACKAGE = Path(daskdml.__file__).parent
ANYTHING = "*"

# What rooms that see no user input may read from; each line adds the rooms below it.
CORE = (
    "utils kernels losses penalties objectives solvers data runtime report metrics trees training programs strategies "
    "compress fitting"
)
# Estimator rooms see the user's types, so frames may be named there; they never import each other.
ESTIMATORS = (
    "linear_model", "preprocessing", "impute", "model_selection", "wrappers", "ensemble", "tree", "neural_network",
)  # fmt: skip

# room: (rooms of daskdml it may import, third-party packages it may import)
LAYERS = {
    "daskdml": ("utils runtime", ""),  # the package's own __init__
    "_typing": ("", "numpy"),
    "utils": ("", "numpy dask.config"),
    "kernels": ("utils", "numpy scipy numba llvmlite cupy"),
    "losses": ("kernels utils", "numpy numba"),
    "penalties": ("kernels utils", "numpy numba"),
    "objectives": ("losses penalties kernels utils", "numpy scipy"),
    "solvers": ("kernels utils", "numpy scipy"),  # kernels: the fused steps of descent
    "compress": ("kernels utils", "numpy sklearn"),  # BaseEstimator alone
    "comm": ("utils", "numpy"),
    "data": ("utils", "numpy scipy pandas narwhals pyarrow dask distributed"),
    "runtime": (
        "data comm compress kernels utils",
        "numpy scipy dask distributed threadpoolctl psutil cloudpickle llvmlite fsspec",
    ),
    "report": ("utils", "numpy rich matplotlib jinja2 pandas IPython"),
    "trees": ("kernels losses utils", "numpy scipy"),
    "training": ("kernels utils", "numpy scipy"),  # objectives, transforms and strategies come in as objects
    "strategies": ("comm compress utils", "numpy sklearn"),  # BaseEstimator alone
    "programs": ("data runtime trees training utils", "numpy"),
    "fitting": ("data kernels losses metrics programs report runtime trees utils", "numpy sklearn"),
    "metrics": ("data runtime kernels utils", "numpy scipy sklearn"),
    **{room: (CORE, "numpy scipy sklearn pandas narwhals") for room in ESTIMATORS},
    "testing": (ANYTHING, ANYTHING),
    "demo": (ANYTHING, ANYTHING),
    "cli": (ANYTHING, ANYTHING),
}

# Packages that only some machines have: a module that names them at its top cannot be imported on the others.
LAZY = ("cupy", "numba.cuda")
IMPORT_CALLS = ("importlib.import_module", "import_module", "__import__")


class Import(NamedTuple):
    """One imported name: where it stands, what it names, and whether importing the module runs it."""

    file: Path
    line: int
    name: str
    at_import: bool


def imports(path, package=PACKAGE):
    """List the imports of one file as absolute dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _is_type_checking(outer)
        for inner in ast.walk(outer)
    }
    parents = ("daskdml", *path.parent.relative_to(package).parts)
    found = []
    for node in ast.walk(tree):
        for name in _names(node, parents):
            found.append(Import(path, node.lineno, name, id(node) not in lazy))
    return found


def _is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _names(node, parents):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join((*parents[: len(parents) - node.level + 1], *filter(None, [base])))
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORT_CALLS:
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def room_of(path, package=PACKAGE):
    """Name the room a file belongs to: its first folder, or the file itself at the top."""
    first = path.relative_to(package).parts[0]
    return "daskdml" if first == "__init__.py" else first.removesuffix(".py")


def violations(path, package=PACKAGE):
    """Hold one file's imports against LAYERS; return one sentence per breach."""
    room = room_of(path, package)
    rooms, third_party = (set(names.split()) for names in LAYERS[room])
    for found in imports(path, package):
        parts = found.name.split(".")
        where = f"{found.file.relative_to(package)}:{found.line}"
        if parts[0] == "daskdml":
            # `from daskdml import __version__` names the package itself, not a room.
            target = parts[1] if len(parts) > 1 and parts[1] in LAYERS else "daskdml"
            if target not in rooms | {room} and ANYTHING not in rooms:
                yield f"{where} {room} may not import {target}"
        elif parts[0] not in sys.stdlib_module_names and parts[0] != "__future__":
            if not any(_inside(found.name, allowed) for allowed in third_party) and ANYTHING not in third_party:
                yield f"{where} {room} may not import {found.name}"
            if any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield f"{where} {found.name} is private"
            if found.at_import and any(_inside(found.name, name) for name in LAZY):
                yield f"{where} {found.name} must be imported inside a function"


def _inside(name, package):
    return name == package or name.startswith(package + ".")


def sources(package=PACKAGE):
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def test_every_room_stands_in_the_table():
    assert {room_of(path) for path in sources()} <= set(LAYERS)


def test_table_has_no_circles():
    graph = {room: set(rooms.split()) for room, (rooms, _) in LAYERS.items() if rooms != ANYTHING}
    assert list(TopologicalSorter(graph).static_order())


def test_estimator_rooms_do_not_see_each_other():
    for room in ESTIMATORS:
        assert not set(LAYERS[room][0].split()) & set(ESTIMATORS)


@pytest.mark.parametrize("room", sorted(LAYERS))
def test_imports_keep_to_the_layers(room):
    found = [text for path in sources() if room_of(path) == room for text in violations(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "file, text, complaint",
    [
        ("losses/_x.py", "from daskdml.linear_model import Ridge", "losses may not import linear_model"),
        ("losses/_x.py", "from .. import runtime", "losses may not import runtime"),
        ("losses/_x.py", "from ..data.blocks import Block", "losses may not import data"),
        ("solvers/_x.py", "def f():\n    import dask.array", "solvers may not import dask.array"),
        ("solvers/_x.py", "import importlib\nimportlib.import_module('distributed')", "may not import distributed"),
        ("linear_model/_x.py", "from daskdml import preprocessing", "linear_model may not import preprocessing"),
        ("linear_model/_x.py", "from daskdml import __version__", "linear_model may not import daskdml"),
        ("linear_model/_x.py", "import numba", "linear_model may not import numba"),
        ("linear_model/_x.py", "from sklearn.base import _fit_context", "sklearn.base._fit_context is private"),
        ("linear_model/_x.py", "from sklearn.linear_model._base import x", "is private"),
        ("utils/x.py", "import dask.array", "utils may not import dask.array"),
        ("kernels/x.py", "import cupy", "must be imported inside a function"),
        ("kernels/x.py", "from numba import cuda", "must be imported inside a function"),
    ],
)
def test_planted_violations_are_found(tmp_path, file, text, complaint):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    assert any(complaint in found for found in violations(path, tmp_path))


def test_allowed_imports_pass(tmp_path):
    path = tmp_path / "runtime" / "x.py"
    path.parent.mkdir()
    path.write_text(
        "from __future__ import annotations\nimport os\nimport numpy as np\nfrom . import other\n"
        "from daskdml.data import Block\ndef f():\n    from distributed import Client\n"
    )
    assert list(violations(path, tmp_path)) == []
