"""How a prepared model reaches the executors: by a path, in an archive that Spark sends, or as an installed model."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
import weakref
import zipfile
from pathlib import Path

from pyspark import SparkContext
from pyspark.sql import SparkSession

from .host_cache import ModelLocation, Prepare
from .installed import find_installed, to_installed_name
from .prepared import PreparedModel, is_prepared, read_prepared
from .publishing import publish_file

_log = logging.getLogger(__name__)

_sending = threading.Lock()
# What this process has sent to each Connect session, only to save sending it again: the server accepts it twice.
_sent_archives: weakref.WeakKeyDictionary[SparkSession, set[str]] = weakref.WeakKeyDictionary()


def ship_model(spark: SparkSession, model: PreparedModel, *, prepare: Prepare, shared: bool = False) -> ModelLocation:
    """Make a prepared folder readable for the executors of a session and return its location there.

    The executors read the folder in place if ``shared`` says that all machines share its path, if it is in a
    Databricks Volume, and on a local master. If the driver has the model installed, the executors take it from their
    own Python environment. Otherwise Spark sends it once as an uncompressed zip, named by its content: with
    ``addArtifacts`` on Spark Connect, and with ``addArchive`` on a classic session. The zip is a private copy, so
    executors that start later still get this model even if the cache has changed.

    ``prepare`` is the encoder's `prepare_model`, which compares the packaged checkpoint with the model.

    Raises ValueError if the prepared folder was altered before it is sent.
    """
    if shared or _is_in_volume(model.path) or is_local(spark):
        return ModelLocation(name=model.name, folder_name=model.folder_name, path=str(model.path), archive=None)
    installed = _find_installed_name(model, prepare)
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
        if is_connect(spark):
            _send_to_session(spark, model, archive)
        else:
            _send_to_application(spark.sparkContext, model, archive)
    return ModelLocation(name=model.name, folder_name=model.folder_name, path=None, archive=archive)


def _find_installed_name(model: PreparedModel, prepare: Prepare) -> str | None:
    """Return the name of the installed model with the same content as ``model``, or None if there is none.

    It does not matter how the driver got the model, so this includes models of saved stages.
    """
    name = to_installed_name(model.name)
    folder = find_installed(name)
    if folder is None:
        return None
    installed = read_prepared(folder) if is_prepared(folder) else prepare(folder, model.precision)
    return name if installed.content_hash == model.content_hash else None


def _send_to_session(spark: SparkSession, model: PreparedModel, archive: str) -> None:
    sent = _sent_archives.setdefault(spark, set())
    if archive in sent:
        return
    if os.environ.get("DATABRICKS_RUNTIME_VERSION", "").startswith("client."):
        warnings.warn(
            f"sending the model '{model.name}' to the UDFs of Databricks serverless compute, which may not see files "
            "that a session sends. If the job does not find the model, put it in a Volume: "
            "setSharedFolder('/Volumes/CATALOG/SCHEMA/VOLUME/FOLDER'). Or install it as a wheel, which "
            "'spark-instructor package' builds.",
            stacklevel=2,
        )
    with tempfile.TemporaryDirectory() as folder:
        _zip(model, Path(folder, archive))
        try:
            spark.addArtifacts(str(Path(folder, archive)), archive=True)
        except Exception as error:
            # Another process has sent it in this session. The name contains the hash, so it is the same model.
            if "ARTIFACT_ALREADY_EXISTS" not in str(error):
                raise
    sent.add(archive)


def _send_to_application(context: SparkContext, model: PreparedModel, archive: str) -> None:
    """Send a model to the executors of an application, which several Python processes may use.

    Spark accepts a file name from one path only, and executors that start later fetch the file from there. The zip is
    therefore in the JVM's own temporary folder, which all these processes see and the JVM deletes when it exits.
    """
    path = Path(context._temp_dir).parent / archive
    if not path.exists():
        _zip(model, path)
    if not any(uri.endswith(f"/{archive}") for uri in context.listArchives):
        context.addArchive(str(path))


def is_connect(spark: SparkSession) -> bool:
    """Return whether this is a Spark Connect session, which has no SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def is_local(spark: SparkSession) -> bool:
    """Return whether the executors are threads of the driver. A Connect server may be on any machine."""
    if is_connect(spark):
        return False
    master = str(spark.sparkContext.master)
    return master.startswith("local") and not master.startswith("local-cluster")


def _is_in_volume(path: Path) -> bool:
    """Return whether a path is in a Databricks Volume. On a Mac, /Volumes has the disks of that machine."""
    return sys.platform != "darwin" and path.is_relative_to("/Volumes")


def _zip(model: PreparedModel, archive: Path) -> None:
    """Write the archive of a model. Nobody sees it before it is complete, and equal models give equal bytes."""
    _log.info("Packing %s for the executors (%.0f MB)", archive.name, model.size / 1e6)
    model.verify()  # on an executor the message could not name the folder of the driver
    with publish_file(archive) as new, zipfile.ZipFile(new, "w") as file:
        for path in model.paths:
            entry = zipfile.ZipInfo(path.name)  # uncompressed, and always of the same date
            entry.file_size = path.stat().st_size
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, file.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 22)
