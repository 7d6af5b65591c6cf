"""Fixtures and options for all tests: the golden vectors and their checkpoint, the cache, and Spark's settings."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import session_kinds

DATA = Path(__file__).parent / "data"

# spark_instructor.encoder sets this too, but some tests import torch first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

with suppress(ImportError):  # the environment of the tests with Spark NLP lacks it
    from hypothesis import settings

    settings.register_profile("busy machine", deadline=None)
    settings.load_profile("busy machine")


def pytest_addoption(parser):
    parser.addoption("--session", default="local[2]", help=session_kinds.HELP)
    parser.addoption(
        "--milvus-python",
        metavar="PYTHON",
        help="Python with PyPI's package milvus, whose server tests/spark/milvus then uses in place of milvus-lite's",
    )
    parser.addoption("--exhaustive", action="store_true", help="also run the exhaustive tests")
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes each")


def pytest_collection_modifyitems(config, items):
    """Mark the tests that use Spark, and deselect those that the options and the kind of session do not ask for."""
    unwanted = [marker for marker in ("exhaustive", "soak") if not config.getoption(marker)]
    if not session_kinds.SessionKind.parse(config.getoption("session")).in_driver:
        unwanted.append("one_kind")
    selected, deselected = [], []
    for item in items:
        if "/tests/spark/" in str(item.path):
            item.add_marker(pytest.mark.spark)
        (deselected if any(map(item.get_closest_marker, unwanted)) else selected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = selected


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Give this run its own cache for prepared models, and keep every test off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_spark_settings(tmp_path_factory):
    """Set the environment of every Spark session that a test starts, in this process or in another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_CONF_DIR", str(Path(__file__).parent / "spark/conf"))
        patch.setenv("SPARK_TESTING", "1")  # gives the Connect server an ephemeral port
        # By default, Spark's workers write into the pyspark package.
        patch.setenv("SPARK_WORKER_DIR", str(tmp_path_factory.mktemp("work")))
        yield


@pytest.fixture(scope="session")
def tiny():
    """Return the folder of the golden checkpoint: random weights in `.bin` files and a tokenizer.json."""
    return DATA / "tiny"


@pytest.fixture(scope="session")
def tiny_model(tiny, own_cache):
    """Load the golden checkpoint; tests compare other vectors with those that it computes."""
    from spark_instructor.encoder import InstructorModel

    return InstructorModel.from_pretrained(tiny)


@pytest.fixture(scope="session")
def cases():
    """Read the golden cases, which are dicts with id, instruction, text, n_tokens, masked and vector."""
    return json.loads((DATA / "cases.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="session")
def golden_vectors(cases):
    """Return the vectors of the golden cases as a float32 array of shape (number of cases, 64)."""
    return np.array([case["vector"] for case in cases], np.float32)
