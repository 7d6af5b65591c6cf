"""The daemon that loads a model before it forks Spark's Python workers, in sessions of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from processes import run_python

from spark_instructor.daemon import PRELOAD
from spark_instructor.encoder import InstructorModel, prepare_model

pytestmark = pytest.mark.one_kind

JOB = Path(__file__).parent / "daemon_job.py"
TEXTS = ["a text", "another text"]


@pytest.fixture
def other(tmp_path, tiny):
    """Return a second model with the same tokenizer, which the daemon does not load."""
    folder = tmp_path / "other"
    write_checkpoint(folder)
    return folder


def run_job(master, tiny, other, tmp_path, *settings):
    output = tmp_path / "output.json"
    run_python(JOB, master, tiny, other, output, *settings, cwd=tmp_path)
    return json.loads(output.read_text())


def assert_vectors(vectors, folder):
    assert vectors[2] is None
    np.testing.assert_allclose(vectors[:2], InstructorModel.from_pretrained(folder).encode("", TEXTS), atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", [(), ("spark.executor.pyspark.memory=4g",)], ids=["", "with a limit of memory"])
def test_a_preloaded_model(tiny, other, tmp_path, settings):
    """The workers start with the model; other UDFs and other models work as without it."""
    folder = str(prepare_model(tiny).path)
    results = run_job("local[2]", tiny, other, tmp_path, f"spark.executorEnv.{PRELOAD}={folder}", *settings)
    assert {json.dumps(worker) for worker in results["workers"]} == {json.dumps({"models": [folder], "cuda": False})}
    assert results["udf"] == [1, 2, 3, 4] and results["rdd"] == [0, 2, 4, 6]
    assert_vectors(results["vectors"], tiny)
    assert_vectors(results["other_vectors"], other)


@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", [(), (f"spark.executorEnv.{PRELOAD}=/nowhere",)], ids=["none", "missing"])
def test_no_preloaded_model(tiny, other, tmp_path, settings):
    """Without a model to load, or if it is missing, the daemon only imports what the workers need."""
    results = run_job("local-cluster[1,2,1024]", tiny, other, tmp_path, *settings)
    assert all(worker["models"] == [] for worker in results["workers"])
    assert_vectors(results["vectors"], tiny)
    assert_vectors(results["other_vectors"], other)


def test_no_thread_starts_before_the_fork(tiny, tmp_path):
    """The only thread beside the main one is that of Arrow's allocator, which knows about forks."""
    code = """
import os
from pathlib import Path

from spark_instructor import daemon

daemon.preload()
print(*{Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")[1:]})
"""
    environment = {PRELOAD: prepare_model(tiny).path, "OMP_NUM_THREADS": 1}  # Spark sets the latter
    threads = run_python("-c", code, cwd=tmp_path, **environment).split()
    assert set(threads) <= {"jemalloc_bg_thd"}
