"""A Spark session with the jars of Delta and Iceberg; `make test-tables` runs the tests in this folder."""

import pytest
from table_session import PACKAGES, start_session

# Other Sparks have no jars here, and the main one has none of Delta yet.
collect_ignore_glob = [] if PACKAGES else ["test_*.py"]


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory):
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture(scope="session")
def spark(own_spark_settings, own_cache, warehouse):
    session = start_session(warehouse)
    yield session
    session.stop()
