"""Sphinx: `make docs`. The pages are Markdown and read well without it."""

import daskdml

project = "daskdml"
author = copyright = "The daskdml developers"
version = release = daskdml.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build"]
autosummary_generate = True
# Methods that scikit-learn generates refer to its own glossary.
suppress_warnings = ["ref.term", "ref.ref"]
html_theme = "alabaster"
numpydoc_show_class_members = False
autodoc_default_options = {"members": True, "inherited-members": False}
