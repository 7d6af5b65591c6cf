"""Several Python processes share a SparkContext, as on a shared cluster."""

import json
from pathlib import Path

import pytest
from processes import run_python
from vectors import assert_embedded

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_kind]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Return the TMPDIR of the driver; the JVM keeps its files there too."""
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def findings(tiny, temporary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    job = Path(__file__).parent / "notebooks_job.py"
    run_python(job, tiny, folder, cwd=folder, timeout=500, TMPDIR=temporary, SPARK_LOCAL_DIRS=temporary)
    return json.loads((folder / "findings.json").read_text())


def check(tiny_model, found):
    assert isinstance(found, dict), found
    assert_embedded(tiny_model, "", found, found.values())


def test_two_notebooks_embed_while_one_of_them_ends(findings, tiny_model):
    for when in ("first", "second", "while the first ends"):
        check(tiny_model, findings[when])


def test_an_executor_joins_after_the_notebook_that_sent_the_model_has_ended(findings, tiny_model):
    assert findings["unrelated"] == 10
    check(tiny_model, findings["after replacement"])


def test_a_restarted_context(findings, tiny_model):
    check(tiny_model, findings["restarted"])


def test_the_archive_ends_with_the_jvm(findings, temporary):
    assert not list(temporary.rglob("*.zip"))
