"""How Sphinx builds the documentation: `make docs`, into docs/_build/html. Nothing is downloaded."""

import spark_instructor

project = "spark_instructor"
author = "the spark_instructor authors"
release = version = spark_instructor.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]  # GitHub draws the same blocks
myst_heading_anchors = 3

# Docstrings put names in single backticks: a link if the reference has such a name, else only code.
default_role = "py:obj"
smartquotes = False  # quotes in docstrings are those of Python
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_theme_options = {"show_nav_level": 2, "navigation_with_keys": False}
html_copy_source = False
