"""Sphinx configuration: the pages beside this file, and the reference from the docstrings."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

project = "gradwire"
author = "The gradwire authors"
release = installed("gradwire")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
exclude_patterns = ["pictures/make.py"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # pages link to files of the repository, too
default_role = "literal"  # docstrings write code in single backticks
intersphinx_mapping: dict[str, Any] = {}  # nothing is fetched while the pages are built

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True, "show-inheritance": False}
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"gradwire {release}"
html_static_path: list[str] = []


def _mark_examples(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Turn indented examples into code blocks; only sections of napoleon follow their title without a gap."""
    marked: list[str] = []
    in_example = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        after_blank = number > 0 and not lines[number - 1].strip()
        if indented and after_blank and not in_example:
            marked += [".. code-block:: python", ""]
            in_example = True
        elif line.strip() and not indented:
            in_example = False
        marked.append(line)
    lines[:] = marked


def setup(app: Any) -> None:
    """Register the rewriting of examples, before napoleon reads sections."""
    app.connect("autodoc-process-docstring", _mark_examples, priority=400)
