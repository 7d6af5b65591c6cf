"""How a prepared model reaches the executors: on a path they share, or as an archive that Spark sends them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import weakref
import zipfile
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from .host_cache import Shipped
from .prepared import PreparedModel

# The archives that each application (classic) or session (Connect) was sent: a second time is an error.
_sent: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
_sending = threading.Lock()


def ship(spark: SparkSession, model: PreparedModel, shared: bool = False) -> Shipped:
    """Make the prepared folder reachable for the session's executors.

    It is read in place where every executor sees it for sure: where the user says so (``shared``), on a
    Databricks Volume, and on a local master. Otherwise it is sent once as a stored zip, named by its hash:
    by ``addArtifacts`` on Spark Connect, by ``addArchive`` on a classic session. The zip is the driver's
    own, so the cache may change while executors still come and ask for it.
    """
    if shared or model.path.is_relative_to("/Volumes") or _is_local(spark):
        return Shipped(name=model.name, key=model.key, path=str(model.path), archive=None)
    archive = f"{model.key}.zip"
    with _sending:
        sent = _sent.setdefault(spark if is_connect(spark) else spark.sparkContext, set())
        if archive not in sent:
            _send(spark, model, archive)
            sent.add(archive)
    return Shipped(name=model.name, key=model.key, path=None, archive=archive)


def _send(spark: SparkSession, model: PreparedModel, archive: str) -> None:
    model.verify()  # here it can still be said of the driver's folder
    if is_connect(spark):
        with tempfile.TemporaryDirectory() as folder:
            spark.addArtifacts(str(_zipped(model, Path(folder, archive))), archive=True)
    else:
        folder = tempfile.mkdtemp(prefix="spark_instructor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        spark.sparkContext.addArchive(str(_zipped(model, Path(folder, archive))))


def is_connect(spark: SparkSession) -> bool:
    """Whether this is a Spark Connect session, which has no SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _is_local(spark: SparkSession) -> bool:
    """Whether the executors are in the driver's own JVM. A Connect server may be anywhere."""
    if is_connect(spark):
        return False
    master = str(spark.sparkContext.master)
    return master.startswith("local") and not master.startswith("local-cluster")


def _zipped(model: PreparedModel, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in model.paths:
            file.write(path, path.name)
    return archive
