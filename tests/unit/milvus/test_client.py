"""Paths of milvus-lite files are checked before pymilvus opens them; test_requests.py shows how calls are repeated."""

import pytest
from pymilvus.exceptions import ConnectionConfigException

from spark_instructor.milvus import client as milvus_client
from spark_instructor.milvus.client import connect, is_milvus_lite, is_server


@pytest.mark.parametrize("uri", ["x.db", "./a/x.db", "/a/x.db", "~/x.db", r"C:\a\x.db", "C:/a/x.db"])
def test_paths(uri):
    assert is_milvus_lite(uri) and not is_server(uri)


@pytest.mark.parametrize("uri", ["file:///tmp/x.db", "file:/tmp/x.db", "s3://bucket/x.db", "dbfs:/x.db", "x"])
def test_what_is_neither_a_path_nor_a_server(uri):
    assert not is_milvus_lite(uri) and not is_server(uri)


@pytest.fixture
def opened_paths(monkeypatch):
    """Return the paths that pymilvus was asked to open; each attempt fails."""

    def fail(uri, *_):
        paths.append(uri)
        raise ConnectionConfigException(message="Open local milvus failed")

    paths = []
    monkeypatch.setattr(milvus_client, "open_client", fail)
    monkeypatch.setattr(milvus_client.time, "sleep", lambda _: None)
    return paths


def connect_to(uri):
    with connect(uri, "", "", retries=5):
        pass


def test_a_home_folder_and_no_retries_for_a_mistake(opened_paths, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConnectionError, match="Open local milvus failed") as error:
        connect_to("~/x.db")
    assert opened_paths == [str(tmp_path / "x.db")]  # once
    assert "executors" not in str(error.value)


def test_a_folder_that_does_not_exist(opened_paths, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no folder .*nowhere for the file .*nowhere/x\.db: create it"
    ):
        connect_to(str(tmp_path / "nowhere/x.db"))
    assert not opened_paths
