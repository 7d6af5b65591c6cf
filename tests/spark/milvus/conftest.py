"""Milvus servers: those of milvus-lite, or with the option `--milvus-python` real ones."""

import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pages import ROOT
from processes import free_port, running
from pymilvus import MilvusClient


@pytest.fixture(scope="session")
def is_real(request):
    """Return whether the servers of the tests are real ones, of Milvus 2.3, and not those of milvus-lite."""
    return request.config.getoption("milvus_python") is not None


@pytest.fixture(scope="session")
def run_server(request, is_real):
    """Return a context manager that runs a server, with its data in a folder, and yields a function that kills it."""

    @contextmanager
    def run(folder, port):
        folder.mkdir(exist_ok=True)
        if is_real:
            script = ROOT / "tests/milvus_server.py"
            command = [request.config.getoption("milvus_python"), script, folder, port]
            says = "Proxy successfully started"
        else:
            command = [Path(sys.executable).with_name("milvus-lite"), "server", "--host", "127.0.0.1", "--port", port]
            command += ["--data-dir", folder / "data"]
            says = "listening on"
        with running(command, says=says, log=folder / "log", PYTHONUNBUFFERED=1) as shell:
            (server,) = [child for child in psutil.Process(shell.pid).children() if child.name() != "bash"]
            yield server.kill

    return run


@pytest.fixture(scope="session")
def server(run_server, tmp_path_factory):
    """Run a server for all tests and yield its address."""
    port = free_port()
    with run_server(tmp_path_factory.mktemp("milvus"), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def collection(request):
    """Return a collection name that is unique to the test, because all tests use the same server."""
    return "c" + "".join(char if char.isalnum() else "_" for char in request.node.name)


@pytest.fixture(scope="session")
def rows_of():
    """Return a function that reads all rows of a collection in a client of its own."""

    def read(uri, collection):
        client = MilvusClient(uri)
        try:
            client.load_collection(collection)
            return client.query(collection, filter="", output_fields=["*"], limit=10_000, consistency_level="Strong")
        finally:
            client.close()

    return read
