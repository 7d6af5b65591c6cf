"""The notebooks, each run from start to end on a classic session and on Spark Connect."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from processes import changed_environment
from session_kinds import needs_connect

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_no_outputs(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.spark
@pytest.mark.parametrize("session", ["classic", pytest.param("connect", marks=needs_connect)])
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(notebook, session, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "notebooks").mkdir()
    remote = {"SPARK_REMOTE": "local[2]"} if session == "connect" else {}
    environment = changed_environment(MPLBACKEND="agg", **remote)
    client = NotebookClient(
        nbformat.read(notebook, as_version=4),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "notebooks")}},
    )
    client.execute(env=environment)
    nbformat.write(client.nb, tmp_path / notebook.name)  # to look at, where a test keeps its folder
