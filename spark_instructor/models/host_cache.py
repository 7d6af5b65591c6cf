"""The models on one host: finding the prepared folder there, and checking that nobody has altered it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..files import can_map
from .installed import find_installed
from .prepared import WEIGHTS, PreparedModel, is_prepared, private_folder, read_prepared
from .publishing import publish_folder

Prepare = Callable[..., PreparedModel]
"""The encoder's `prepare_model`. Modules here receive it as an argument, since the encoder is in a layer above them."""

_LOCAL_DISK = Path("/local_disk0")  # of Databricks
_MAX_AGE = 30 * 24 * 3600.0
_locked_folders: dict[Path, int] = {}  # descriptors of the folders that this process uses


@dataclasses.dataclass(frozen=True)
class ModelLocation:
    """Where the executors find a prepared model: by a path, in an archive or as an installed model."""

    name: str
    folder_name: str
    """Name of the prepared folder, unique to its content."""
    path: str | None
    """Path of the prepared folder that every executor can read."""
    archive: str | None
    """File name of the zip that Spark sends to the executors and unpacks there."""
    installed: str | None = None
    """Name of the model in the Python environment of the executors; see `find_installed`."""
    precision: str | None = None
    """Precision in which a host prepares the installed model if that is a checkpoint."""


class HostModel(NamedTuple):
    """A verified prepared folder on this host."""

    folder: str
    file_state: str
    """Size and modification time of each file, as JSON. It changes if somebody replaces a file."""

    @classmethod
    def on_driver(cls, model: PreparedModel) -> HostModel:
        """Return a model that this process has prepared, without the state of its files."""
        return cls(str(model.path), file_state="")


def locate_model(location: ModelLocation, *, prepare: Prepare) -> HostModel:
    """Find a model on this host and verify it.

    If Spark sent the model as an archive, it is copied into the cache of this host, and so is a model whose file system
    does not let processes map it. An installed checkpoint is prepared there, by ``prepare``, which is the encoder's
    `prepare_model`.

    Raises FileNotFoundError, naming the model and the path, if the model is not on this host, and ValueError if a
    file is not the one that was prepared, or if the installed model is not the one that the driver has.
    """
    source = _find_folder(location)
    model = read_prepared(source) if source is not None and is_prepared(source) else None
    if model is not None:
        if location.installed is not None:
            _check_installed(location, model, model.path)
        if can_map(model.path / WEIGHTS):
            return _verify_once(model)

    folder = _get_cache_dir() / (location.folder_name if model is None else model.folder_name)
    try:
        return _use(folder)
    except (FileNotFoundError, ValueError):
        with _lock(folder):
            try:
                return _use(folder)  # another process may have repaired it
            except (FileNotFoundError, ValueError):
                shutil.rmtree(folder, ignore_errors=True)
            with publish_folder(folder) as new:
                if model is not None:
                    _copy_model(model, new)
                elif source is not None:
                    _prepare_installed(location, source, new, prepare)
                else:
                    _copy_archive(_find_archive(location), new)
            host_model = _use(folder)
    delete_unused_models()
    return host_model


def _find_folder(location: ModelLocation) -> Path | None:
    """Return the folder of a model that Spark did not send; None for an archive."""
    if location.path is not None:
        if not is_prepared(Path(location.path)):
            raise FileNotFoundError(
                f"this host cannot read the model '{location.name}' at {location.path}. The driver assumed that all "
                "machines share this path (because of sharedFolder, /Volumes or a local master). Mount it on this "
                "host, or unset sharedFolder so that Spark sends the model."
            )
        return Path(location.path)
    return _find_installed(location) if location.installed is not None else None


def _use(folder: Path) -> HostModel:
    """Verify a model in the cache of this host, and lock it against `delete_unused_models` until this process ends."""
    import fcntl

    descriptor = _locked_folders.get(folder)
    if descriptor is None or not os.path.samestat(os.fstat(descriptor), folder.stat()):
        if descriptor is not None:
            os.close(descriptor)
        descriptor = _locked_folders[folder] = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # a network file system may not lock folders; then nobody deletes them either
            fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.utime(folder)  # the time of the last use
    return _verify_once(read_prepared(folder))


def delete_unused_models(max_age: float = _MAX_AGE, max_bytes: float | None = None) -> dict[Path, int]:
    """Delete models in the cache of this host that no process uses, and what killed processes left there.

    Args:
        max_age: Delete models that were last used more than so many seconds ago.
        max_bytes: Delete the least recently used models until the cache has at most so many bytes. The default is a
            tenth of the disk.

    Returns the size in bytes of each folder that was deleted.
    """
    cache = _get_cache_dir()
    limit = shutil.disk_usage(cache).total / 10 if max_bytes is None else max_bytes
    found = []
    for folder in cache.iterdir():
        with suppress(FileNotFoundError, NotADirectoryError):  # another process has just deleted it; a record
            size = sum(file.stat().st_size for file in folder.iterdir())
            found.append((folder.stat().st_mtime, size, folder))
    deleted = {}
    total = 0
    for last_use, size, folder in sorted(found, reverse=True):
        is_unwanted = folder.name.startswith(".") or time.time() - last_use > max_age or total + size > limit
        if is_unwanted and _delete_unless_used(folder):
            deleted[folder] = size
        else:
            total += size
    return deleted


def _delete_unless_used(folder: Path) -> bool:
    import fcntl

    # While a model is written to .NAME-xxxxxxxx, its writer has the lock for NAME.
    name = folder.name[1:].rpartition("-")[0] if folder.name.startswith(".") else folder.name
    try:
        with _lock(folder.parent / name, wait=False):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                _record(folder).unlink(missing_ok=True)
            finally:
                os.close(descriptor)
    except OSError:  # it is locked, or another process has just deleted it
        return False
    return True


def _verify_once(model: PreparedModel) -> HostModel:
    """Check that a prepared folder holds what was prepared.

    The files are hashed once per host, and again if the size or time of one has changed since then; the cache of this
    host remembers the last verified state. Inodes do not count, because mounts through FUSE may change them any time.
    """
    stats = {name: (model.path / name).stat() for name in model.file_hashes}
    file_state = json.dumps({name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()})
    record = _record(model.path)
    if not _contains(record, file_state):
        with _lock(record):
            if not _contains(record, file_state):
                model.verify()
                record.write_text(file_state)
    return HostModel(str(model.path), file_state)


def _record(folder: Path) -> Path:
    """Return the path of the file that holds the last verified state of a folder."""
    return _get_cache_dir() / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.verified"


def _contains(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text() == text


def _get_cache_dir() -> Path:
    """Return the user's folder for models on this host, which outlives every application."""
    return private_folder("spark_instructor")


@contextmanager
def _lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock beside ``path`` that excludes the other processes of this host. It ends with the process.

    Raises BlockingIOError if another process holds it and ``wait`` is false.
    """
    import fcntl  # missing on Windows, where a driver may run with Spark Connect

    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _find_installed(location: ModelLocation) -> Path:
    """Return the folder of the installed model in the Python environment of this executor."""
    folder = find_installed(str(location.installed))
    if folder is None:
        raise FileNotFoundError(
            f"the model '{location.installed}' is installed on the driver, but not in the Python environment of this "
            f"executor ({sys.prefix}). Install the same wheel there, or set sharedFolder."
        )
    return folder


def _prepare_installed(location: ModelLocation, checkpoint: Path, new: Path, prepare: Prepare) -> None:
    """Prepare an installed checkpoint in the empty folder ``new``."""
    model = prepare(checkpoint, location.precision, into=new / "prepared")
    _check_installed(location, model, checkpoint)
    for path in model.paths:
        path.rename(new / path.name)
    model.path.rmdir()


def _check_installed(location: ModelLocation, model: PreparedModel, folder: Path) -> None:
    """Raise ValueError if the model that is installed in ``folder`` is not the one that the driver has."""
    if model.folder_name != location.folder_name:
        raise ValueError(
            f"the model '{location.installed}' differs between the driver ({location.folder_name}) and this executor "
            f"({model.folder_name} in {folder}). Install the same versions of the model, of "
            "spark-instructor-embeddings, tokenizers and safetensors on the driver and on the executors, or set "
            "sharedFolder."
        )


def _find_archive(location: ModelLocation) -> Path:
    """Return the folder that Spark unpacked for this executor, or the archive itself if it was not unpacked."""
    places = [Path(folder, str(location.archive)).absolute() for folder in list_archive_folders()]
    for place in places:
        if is_prepared(place) or zipfile.is_zipfile(place):
            return place
    raise FileNotFoundError(
        f"the model '{location.name}' did not reach this host: expected it at one of {', '.join(map(str, places))}. "
        "If the DataFrame comes from an earlier session, call transform again in the current one. Otherwise put the "
        "model in a folder that all machines share: setSharedFolder(...), on Databricks with a folder in /Volumes."
    )


def list_archive_folders() -> list[str | Path]:
    """List the folders in which Spark and the kinds of Databricks compute put the archives of a session."""
    from pyspark import SparkFiles, TaskContext

    folders: list[str | Path] = [SparkFiles.getRootDirectory()]
    artifact_dir = getattr(TaskContext.get(), "artifactDir", None)  # Databricks Runtime 18 and later
    if artifact_dir is not None:
        folders.append(Path(artifact_dir(), "archives"))
    session = os.environ.get("DB_SESSION_UUID")
    if session is not None:
        mounts = [_LOCAL_DISK / ".ephemeral_nfs", *_LOCAL_DISK.glob(".ephemeral_nfs_multi_driver/*")]
        folders += [mount / "artifacts" / session / "archives" for mount in mounts]
    return [*folders, os.getcwd()]  # the last one: dedicated compute through Databricks Connect


def _copy_archive(source: Path, target: Path) -> None:
    if source.is_dir():
        _copy_model(read_prepared(source), target)
    else:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(target)


def _copy_model(model: PreparedModel, target: Path) -> None:
    for file in model.paths:
        _link(file, target / file.name)


def _link(file: Path, target: Path) -> None:
    """Create a hard link, or a copy if the target is on another file system."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
