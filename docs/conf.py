"""How Sphinx builds the documentation: `make docs`, into docs/_build/html. Nothing is downloaded.

The notebooks of the repository have no outputs. tests/spark/test_notebooks.py executes them and leaves the executed
copies in docs/notebooks, and these become pages.
"""

import spark_instructor

project = "spark_instructor"
author = "the spark_instructor authors"
release = version = spark_instructor.__version__

extensions = [
    "myst_nb",
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

nb_execution_mode = "off"
nb_output_stderr = "remove"  # Spark's progress and warnings

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


def link_executed_copies(app, page, source):
    """Link to the page of a notebook, whose place in the repository the Markdown names."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def setup(app):
    """Tell Sphinx to link to executed copies."""
    app.connect("source-read", link_executed_copies)
