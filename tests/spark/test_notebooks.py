"""Run each notebook from start to end on a classic session, and some on Spark Connect."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from processes import changed_environment
from session_kinds import needs_connect

pytestmark = pytest.mark.one_kind  # the notebooks start their own sessions

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = ROOT / "docs/notebooks"  # `make docs` makes pages of the copies in this folder
# What the others do on Spark Connect, other tests do.
ON_CONNECT = [ROOT / f"notebooks/{name}.ipynb" for name in ("answers_from_documents", "databricks", "databricks_check")]
# The notebooks' model is installed on the executors, so the client need not send it.
SEND_NOTHING = """
from pyspark.sql.connect.session import SparkSession
SparkSession.addArtifacts = None
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_no_outputs(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.exhaustive
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(notebook, tmp_path):
    executed = run(notebook, tmp_path)
    EXECUTED.mkdir(exist_ok=True)
    nbformat.write(executed, EXECUTED / notebook.name)


@pytest.mark.exhaustive
@needs_connect
@pytest.mark.parametrize("notebook", ON_CONNECT, ids=lambda path: path.stem)
def test_runs_on_connect(notebook, tmp_path):
    run(notebook, tmp_path, SPARK_REMOTE="local[2]")


def run(notebook, tmp_path, **environment):
    """Run a notebook in a copy of its folder and of the examples, and return it with its outputs."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "notebooks").mkdir()
    content = nbformat.read(notebook, as_version=4)
    if "SPARK_REMOTE" in environment and notebook.stem != "databricks_check":  # which sends an archive of its own
        content.cells.insert(0, nbformat.v4.new_code_cell(SEND_NOTHING))
    client = NotebookClient(
        content,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "notebooks")}},
    )
    return client.execute(env=changed_environment(**environment))
