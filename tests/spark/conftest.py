"""One Spark session for all tests here, of the kind that `--session` names."""

import pytest


@pytest.fixture(scope="session")
def session_kind(request):
    return request.config.getoption("--session")


@pytest.fixture(scope="session")
def master(session_kind, own_spark_settings, tmp_path_factory):
    """The master's address, for Spark's builder."""
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


@pytest.fixture(scope="session")
def tiny_model(tiny, own_cache):
    """The golden checkpoint in the encoder, to tell what its vectors are."""
    from spark_instructor.encoder import InstructorModel

    return InstructorModel.from_pretrained(tiny)


def pytest_collection_modifyitems(config, items):
    """Mark what lies here, and leave out what takes minutes, and what one kind of session has proved for all."""
    unwanted = [] if config.getoption("--soak") else ["soak"]
    if not config.getoption("--session").in_driver:
        unwanted.append("one_kind")
    kept, left_out = [], []
    for item in items:
        if "/spark/" in str(item.path):
            item.add_marker(pytest.mark.spark)
        (left_out if any(map(item.get_closest_marker, unwanted)) else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
