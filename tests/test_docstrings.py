"""Public docstrings keep numpydoc's form and tell the truth about the signature; every example in the package runs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from typing import NamedTuple

import numpy as np
import pytest

import daskdml

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# In numpydoc's order.
SECTIONS = "Parameters, Attributes, Returns, Yields, Raises, Warns, See Also, Notes, References, Examples".split(", ")
ROOMS = [name for name in daskdml.__all__ if inspect.ismodule(getattr(daskdml, name))]


class Public(NamedTuple):
    """One public name: the object that carries the docstring, and what it is."""

    value: object
    kind: str  # class, function, method or property


def public_objects():
    """Yield (name, Public) for each public class, function, method and property that this package defines."""
    for module_name in ["daskdml", *(f"daskdml.{room}" for room in ROOMS)]:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                yield f"{module_name}.{name}", Public(value, "class")
                yield from members(f"{module_name}.{name}", value)
            elif inspect.isfunction(value):
                yield f"{module_name}.{name}", Public(value, "function")


def members(prefix, cls):
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        kind = "property" if isinstance(value, property) else "method"
        value = getattr(value, "__func__", getattr(value, "fget", value))
        # A contract's tests have names and bodies that say what they promise.
        if name.startswith(("_", "test_")):
            continue
        if inspect.isfunction(value) and value.__module__.startswith("daskdml"):
            yield f"{prefix}.{name}", Public(value, kind)


def sections(text):
    """Split a docstring into {section name: body}; the text before the first section is under ''."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def documented(body):
    """List the names a Parameters section documents: ``a, b : type`` stands for two."""
    heads = re.findall(r"^(\S[^:\n]*?) :", body, flags=re.MULTILINE)
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def parameters(value):
    """List the parameters of a function or class; names that ``**options`` stands for may be documented one by one."""
    if inspect.isclass(value) and value.__init__ is object.__init__:
        return {}
    signature = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    return {name: parameter.kind for name, parameter in signature.parameters.items() if name not in ("self", "cls")}


def told(value, names):
    """Say whether the documented names are those of the signature."""
    expected = parameters(value)
    fixed = [name for name, kind in expected.items() if kind is not inspect.Parameter.VAR_KEYWORD]
    return names == list(expected) or (len(fixed) < len(expected) and names[: len(fixed)] == fixed)


def gives_back(function):
    """Say whether a function returns something other than None; functions inside it do not count."""
    rest = list(ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0].body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            rest.extend(ast.iter_child_nodes(node))
    return False


def complaints(value, kind):
    """List what is wrong with the docstring of one public object."""
    text = inspect.getdoc(value)
    if not text:
        return ["has no docstring"]
    found = []
    summary = text.split("\n\n")[0]
    if "\n" in summary or not re.match(r"[A-Z].*\.$", summary):
        found.append(f"its summary is not one line that ends in a full stop: {summary!r}")
    parts = sections(text)
    order = [name for name in parts if name]
    if order != [name for name in SECTIONS if name in order]:
        found.append(f"its sections are unknown or out of numpydoc's order: {', '.join(order)}")
    # "Takes the parameters of `f`." is enough where a function hands all of them on.
    names = documented(parts.get("Parameters", ""))
    if "Takes the parameters of" not in parts[""] and not told(value, names):
        found.append(f"its Parameters are {names}, the signature has {list(parameters(value))}")
    # "Return the options." says it all where nothing is passed.
    short = kind == "property" or (not parameters(value) and summary.startswith("Return"))
    if kind != "class" and gives_back(value) and not short and not {"Returns", "Yields"} & set(parts):
        found.append("it returns something and has no Returns section")
    if kind in ("class", "function") and ">>>" not in text:
        found.append("it has no example")
    if kind == "class" and hasattr(value, "fit") and not {"Attributes", "Notes"} <= set(parts):
        found.append("an estimator needs the sections Attributes and Notes (what a fit costs)")
    return found


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_has_numpydoc_form(name):
    found = complaints(*OBJECTS[name])
    assert not found, f"{name}: " + "; ".join(found)


MODULES = sorted(module.name for module in pkgutil.walk_packages(daskdml.__path__, "daskdml."))


@pytest.mark.parametrize("name", ["daskdml", *MODULES])
def test_examples_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what lives in it"
    assert doctest.testmod(module, optionflags=OPTIONS, extraglobs={"np": np}).failed == 0


def good(a, b=1):
    """Add two numbers.

    Parameters
    ----------
    a, b : float

    Returns
    -------
    float

    Examples
    --------
    >>> good(1)
    2
    """
    return a + b


def undocumented(a):
    """Add nothing."""
    return a


def wrong_name(a):
    """Does something without a full stop

    Parameters
    ----------
    b : float
    """


def test_check_finds_what_is_wrong():
    assert complaints(good, "function") == []
    assert len(complaints(undocumented, "function")) == 3
    assert len(complaints(wrong_name, "method")) == 2
    assert complaints(lambda: None, "method") == ["has no docstring"]
