"""Every Python block of README.md and docs/ is run, file by file, in a folder that holds made-up trips.

Notebooks are run too, but for those in `RECORDED`, which take minutes and need peers: what they hold is looked at.
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDED = ["faults_boosting.ipynb"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page):
    """Yield (line, code) for each Python block of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 2, found[1]


def runnable(pages):
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages if any(blocks(page))]


def read_notebook(name):
    return json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))


def write_trips():
    """Write what the quick start reads into the current folder: the notebook's first cell does it."""
    first = next(cell for cell in read_notebook("quickstart.ipynb")["cells"] if cell["cell_type"] == "code")
    exec("".join(first["source"]), {})


@pytest.fixture
def trips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_trips()


def close_all(namespace):
    """Close the clients a page opened, and the clusters they started."""
    for value in list(namespace.values()):
        if type(value).__module__.startswith("distributed") and hasattr(value, "close"):
            value.close()


@pytest.mark.cluster
@pytest.mark.parametrize("page", runnable(PAGES))
def test_page_runs(page, trips, monkeypatch):
    # A real module, because compiled functions are found again by the module they stand in.
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        for line, code in blocks(page):
            # Blank lines in front give tracebacks the line numbers of the page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(module))
    finally:
        close_all(vars(module))


@pytest.mark.cluster
def test_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in outputs), "no fit report was shown"


def test_every_notebook_is_run_or_recorded():
    assert {path.name for path in (ROOT / "docs").glob("*.ipynb")} == {"quickstart.ipynb", *RECORDED}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_notebook_ran_from_top_to_bottom_without_an_error(name):
    cells = [cell for cell in read_notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert cells[-1]["outputs"], "the last cell shows nothing"
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    for cell in cells:
        compile("".join(cell["source"]), name, "exec")


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_notebook_is_small_and_tells_nothing_of_the_machine(name):
    assert (ROOT / "docs" / name).stat().st_size < 100_000
    shown = json.dumps([cell.get("outputs") for cell in read_notebook(name)["cells"]])
    assert not re.search(r"/(home|root|tmp|work|opt|usr|var|Users)/|\w+://", shown)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_notebook_links_lead_somewhere(name):
    for cell in read_notebook(name)["cells"]:
        for target in LINK.findall("".join(cell["source"])) if cell["cell_type"] == "markdown" else ():
            assert (ROOT / "docs" / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_notebook_is_of_the_format(name):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(ROOT / "docs" / name, as_version=4))


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_walks_name_real_files():
    """A path in `code` on a walk's page that looks like a file of the package is one."""
    for page in sorted((ROOT / "docs" / "walks").glob("*.md")):
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")):
            assert (ROOT / "daskdml" / name).exists(), f"{page.name} names {name}"


def test_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
