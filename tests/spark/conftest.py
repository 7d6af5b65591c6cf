"""The Spark session that all tests in this folder share; the option `--session` names its kind."""

import pytest
from session_kinds import SessionKind


@pytest.fixture(scope="session")
def session_kind(request):
    return SessionKind.parse(request.config.getoption("session"))


@pytest.fixture(scope="session")
def master(session_kind, own_spark_settings, tmp_path_factory):
    """Yield the address of the master, for Spark's builder; start a standalone cluster if the kind needs one."""
    if session_kind.master is not None:
        yield session_kind.master
    else:
        from cluster import standalone_cluster

        with standalone_cluster(tmp_path_factory.mktemp("cluster")) as address:
            yield address


@pytest.fixture(scope="session")
def spark(session_kind, master, own_cache):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    builder = builder.remote(master) if session_kind.connect else builder.master(master)
    if session_kind.executor_cores is not None:
        builder = builder.config("spark.executor.cores", session_kind.executor_cores)
    session = builder.getOrCreate()
    yield session
    session.stop()
