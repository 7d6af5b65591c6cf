"""Connecting to Milvus, and repeating what failed for a reason that may pass."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_SERVER = re.compile(r"(https?|tcp|unix)://")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/")  # longer than the letter of a drive of Windows

# Codes of errors that come again however often a request is repeated: for invalid parameters (6 in milvus-lite), and
# for what does not exist or is not allowed. Milvus marks more codes as permanent, but some of those occur at its start.
_PERMANENT_CODES = frozenset({6, 10, 100, 105, 800, 802, 1100, 1101, 1102, 1400, 1401, 1700, 1701, 1804, 3000})


def is_server(uri: str) -> bool:
    """Return whether a uri is the address of a server."""
    return _SERVER.match(uri) is not None


def is_milvus_lite(uri: str) -> bool:
    """Return whether a uri is the path of a milvus-lite file, which only one process may open."""
    return uri.endswith(".db") and not _SCHEME.match(uri)


def import_pymilvus() -> Any:
    """Return the module pymilvus; raise ImportError, with advice, if it is not installed."""
    try:
        import pymilvus
    except ImportError as error:
        raise ImportError(
            f"{error}. Writing to Milvus needs pymilvus on the driver, and for a server on the executors too: "
            "pip install 'spark-instructor-embeddings[milvus]'",
            name=error.name,
        ) from error
    return pymilvus


def open_client(uri: str, token: str, db_name: str) -> Any:
    """Return a connected ``MilvusClient``."""
    return import_pymilvus().MilvusClient(uri, token=token, db_name=db_name)


@contextmanager
def connect(uri: str, token: str, db_name: str, retries: int) -> Iterator[Any]:
    """Yield a connected ``MilvusClient``, and close it at the end of the block.

    Raises FileNotFoundError if there is no folder for a milvus-lite file, and ConnectionError if Milvus cannot be
    reached.
    """
    if is_milvus_lite(uri):
        uri = _expand_path(uri)
    try:
        client = retry(lambda: open_client(uri, token, db_name), retries)
    except import_pymilvus().exceptions.MilvusException as error:
        problem = f"write_to_milvus: this process cannot reach Milvus at {uri} ({error})"
        if is_server(uri):
            problem += (
                ". If the executors have no network but the driver has, as on Databricks serverless, pass "
                'through="driver"'
            )
        raise ConnectionError(problem) from error
    with closing(client):
        yield client


def retry(call: Callable[[], T], retries: int) -> T:
    """Call until it succeeds, fails for good or has been repeated ``retries`` times.

    It waits 1, 2, 4 and at most 30 seconds before it repeats the call.
    """
    for attempt in range(retries):
        try:
            return call()
        except import_pymilvus().exceptions.MilvusException as error:
            if is_permanent(error):
                raise
            time.sleep(min(2**attempt, 30))
    return call()


def is_permanent(error: Exception) -> bool:
    """Return whether a request would fail again if it were repeated."""
    exceptions = import_pymilvus().exceptions
    mistakes = (exceptions.ConnectionConfigException, exceptions.DataNotMatchException, exceptions.ParamError)
    if isinstance(error, mistakes):
        return True  # pymilvus found the mistake before it sent the request
    return getattr(error, "code", None) in _PERMANENT_CODES or getattr(error, "is_input_error", False)


def _expand_path(path: str) -> str:
    """Return the path of a milvus-lite file without ``~``; raise FileNotFoundError if its folder does not exist."""
    expanded = Path(os.path.expanduser(path))
    if not expanded.parent.is_dir():
        raise FileNotFoundError(
            f"write_to_milvus: there is no folder {expanded.parent} for the file {path}: create it, or correct the path"
        )
    return str(expanded)
