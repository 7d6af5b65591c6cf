"""How a prepared model reaches the executors: by a path, in an archive that Spark sends, or as an installed model."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
import threading
import weakref
import zipfile
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from .host_cache import ModelLocation
from .installed import find_installed, to_installed_name
from .prepared import PreparedModel, is_prepared, read_prepared

_log = logging.getLogger(__name__)

# Archives that were sent to each application (classic) or session (Connect). Spark refuses to take one twice.
_sent_archives: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
_sending = threading.Lock()


def ship_model(spark: SparkSession, model: PreparedModel, shared: bool = False) -> ModelLocation:
    """Make a prepared folder readable for the executors of a session and return its location there.

    The executors read the folder in place if ``shared`` says that all machines share its path, if it is in a
    Databricks Volume, and on a local master. If the driver has the model installed, the executors take it from their
    own Python environment. Otherwise Spark sends it once as an uncompressed zip, named by its content: with
    ``addArtifacts`` on Spark Connect, and with ``addArchive`` on a classic session. The zip is a private copy, so
    executors that start later still get this model even if the cache has changed.

    Raises ValueError if the prepared folder was altered before it is sent.
    """
    if shared or model.path.is_relative_to("/Volumes") or _is_local(spark):
        return ModelLocation(name=model.name, folder_name=model.folder_name, path=str(model.path), archive=None)
    installed = _find_installed_name(model)
    if installed is not None:
        return ModelLocation(
            name=model.name,
            folder_name=model.folder_name,
            path=None,
            archive=None,
            installed=installed,
            precision=model.precision,
        )
    archive = f"{model.folder_name}.zip"
    with _sending:
        sent = _sent_archives.setdefault(spark if is_connect(spark) else spark.sparkContext, set())
        if archive not in sent:
            _log.info("Sending %s to the executors (%.0f MB)", archive, model.size / 1e6)
            _send(spark, model, archive)
            sent.add(archive)
    return ModelLocation(name=model.name, folder_name=model.folder_name, path=None, archive=archive)


def _find_installed_name(model: PreparedModel) -> str | None:
    """Return the name of the installed model with the same content as ``model``, or None if there is none.

    It does not matter how the driver got the model, so this includes models of saved stages.
    """
    from ..encoder import prepare_model

    name = to_installed_name(model.name)
    folder = find_installed(name)
    if folder is None:
        return None
    installed = read_prepared(folder) if is_prepared(folder) else prepare_model(folder, model.precision)
    return name if installed.content_hash == model.content_hash else None


def _send(spark: SparkSession, model: PreparedModel, archive: str) -> None:
    model.verify()  # on an executor the message could not name the folder of the driver
    if is_connect(spark):
        with tempfile.TemporaryDirectory() as folder:
            spark.addArtifacts(str(_zip(model, Path(folder, archive))), archive=True)
    else:
        folder = tempfile.mkdtemp(prefix="spark_instructor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        spark.sparkContext.addArchive(str(_zip(model, Path(folder, archive))))


def is_connect(spark: SparkSession) -> bool:
    """Return whether this is a Spark Connect session, which has no SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _is_local(spark: SparkSession) -> bool:
    """Return whether the executors are threads of the driver. A Connect server may be on any machine."""
    if is_connect(spark):
        return False
    master = str(spark.sparkContext.master)
    return master.startswith("local") and not master.startswith("local-cluster")


def _zip(model: PreparedModel, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in model.paths:
            file.write(path, path.name)
    return archive
