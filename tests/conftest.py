"""What all tests share: the golden vectors and their checkpoint, and a cache of their own."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"

# As spark_instructor.encoder does, for tests that import torch before it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Prepared models go to a cache of this run, and no test reaches for a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def tiny():
    """The golden checkpoint in the hub's layout: random weights, `.bin` files, a tokenizer.json."""
    return DATA / "tiny"


@pytest.fixture(scope="session")
def cases():
    """The golden cases: dicts of id, instruction, text, n_tokens, masked and vector."""
    return json.loads((DATA / "cases.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="session")
def golden_vectors(cases):
    """The vectors of the golden cases, float32 (cases, 64)."""
    return np.array([case["vector"] for case in cases], np.float32)


def pytest_addoption(parser):
    parser.addoption(
        "--session",
        default="local[2]",
        help='Spark session of tests/spark: a master such as "local[2]" or "local-cluster[2,1,1024]", or "connect"',
    )
