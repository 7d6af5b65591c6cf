"""What all tests share: the golden vectors and their checkpoint, a cache of their own, Spark's settings."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import session_kinds

DATA = Path(__file__).parent / "data"

# As spark_instructor.encoder does, for tests that import torch before it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser):
    parser.addoption("--session", default="local[2]", help=session_kinds.HELP)
    parser.addoption("--exhaustive", action="store_true", help="also run the exhaustive tests")
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes each")


def pytest_collection_modifyitems(config, items):
    """Mark the tests that start Spark, and deselect those that neither an option nor the kind of session asks for."""
    unwanted = [marker for marker in ("exhaustive", "soak") if not config.getoption(marker)]
    if not session_kinds.SessionKind.parse(config.getoption("session")).in_driver:
        unwanted.append("one_kind")
    kept, deselected = [], []
    for item in items:
        if "/tests/spark/" in str(item.path):
            item.add_marker(pytest.mark.spark)
        (deselected if any(map(item.get_closest_marker, unwanted)) else kept).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Prepared models go to a cache of this run, and no test reaches for a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_spark_settings(tmp_path_factory):
    """What every Spark finds that a test starts, in this process or in another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_CONF_DIR", str(Path(__file__).parent / "spark/conf"))
        patch.setenv("SPARK_TESTING", "1")  # an ephemeral port for the Connect server
        patch.setenv("SPARK_WORKER_DIR", str(tmp_path_factory.mktemp("work")))  # else inside the pyspark package
        yield


@pytest.fixture(scope="session")
def tiny():
    """The golden checkpoint in the hub's layout: random weights, `.bin` files, a tokenizer.json."""
    return DATA / "tiny"


@pytest.fixture(scope="session")
def tiny_model(tiny, own_cache):
    """The golden checkpoint, loaded: its vectors are what the tests expect."""
    from spark_instructor.encoder import InstructorModel

    return InstructorModel.from_pretrained(tiny)


@pytest.fixture(scope="session")
def cases():
    """The golden cases: dicts of id, instruction, text, n_tokens, masked and vector."""
    return json.loads((DATA / "cases.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="session")
def golden_vectors(cases):
    """The vectors of the golden cases, float32 (cases, 64)."""
    return np.array([case["vector"] for case in cases], np.float32)
