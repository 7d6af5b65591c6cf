"""One Spark session for all tests here, of the kind that `--session` names."""

import os
import sys

import pytest


@pytest.fixture(scope="session")
def session_kind(request):
    """A classic master ("local[2]", "local-cluster[2,1,1024]"), or "connect" for Spark Connect on local[2]."""
    return request.config.getoption("--session")


@pytest.fixture(scope="session")
def spark(session_kind, own_cache, tmp_path_factory):
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_WORKER_DIR"] = str(tmp_path_factory.mktemp("work"))  # else inside the pyspark package
    os.environ["SPARK_TESTING"] = "1"  # an ephemeral port for the Connect server
    builder = SparkSession.builder
    builder = builder.remote("local[2]") if session_kind == "connect" else builder.master(session_kind)
    session = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    yield session
    session.stop()


def pytest_collection_modifyitems(items):
    for item in items:
        if "/spark/" in str(item.path):
            item.add_marker(pytest.mark.spark)
