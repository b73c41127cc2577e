"""How Sphinx builds the documentation: make docs."""

import re
from typing import Any

from sphinx.application import Sphinx

import nucleate

project = "Nucleate"
release = version = nucleate.__version__
copyright = "the Nucleate authors"
html_title = f"Nucleate {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _escape_bars)


def _escape_bars(app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]) -> None:
    """Formulas have |x|, which reStructuredText would take for a substitution."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = "".join(
                part if part.startswith("`") else part.replace("|", r"\|") for part in re.split(r"(`[^`]*`)", line)
            )
