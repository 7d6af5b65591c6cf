"""The models on one host: where an executor finds the prepared folder, and whether it is still what was prepared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .prepared import PreparedModel, is_prepared, publish_folder, read_prepared


@dataclasses.dataclass(frozen=True)
class Shipped:
    """Where the executors find a prepared model."""

    name: str
    key: str
    """Name of the folder, unique to the content."""
    path: str | None
    """The folder itself, on a path that every executor sees."""
    archive: str | None
    """Else the zip, by the name under which Spark unpacked it."""


def locate(shipped: Shipped) -> Path:
    """The prepared folder on this host; FileNotFoundError, naming the model and the paths, where it has none."""
    if shipped.path is not None:
        if not is_prepared(Path(shipped.path)):
            raise FileNotFoundError(
                f"this host does not see the model '{shipped.name}' at {shipped.path}. That path was taken to be "
                "shared by all machines (sharedFolder, /Volumes or a local master): mount it here, or unset "
                "sharedFolder so that the model is shipped."
            )
        return Path(shipped.path)

    kept = _host_cache() / shipped.key
    if not _is_whole(kept):
        with _locked(kept):
            if not _is_whole(kept):
                shutil.rmtree(kept, ignore_errors=True)  # what a cleaner of temporary files, or a fault, left of it
                with publish_folder(kept) as new:
                    for file in _unpacked(shipped).paths:
                        _link(file, new / file.name)
    return kept


def _is_whole(folder: Path) -> bool:
    """Whether a prepared folder is there, and as it was prepared."""
    try:
        verified(str(folder))
    except (FileNotFoundError, ValueError):
        return False
    return True


def verified(folder: str) -> str:
    """Check that a prepared folder holds what was prepared, and return the state of its files.

    They are hashed once a host, and again where one's inode, size or time has changed since; the state is kept
    in the host's cache. Raises FileNotFoundError or ValueError where a file is missing or altered.
    """
    model = read_prepared(folder)
    found = {name: (model.path / name).stat() for name in model.files}
    state = json.dumps({name: (file.st_ino, file.st_size, file.st_mtime_ns) for name, file in found.items()})
    seen = _host_cache() / f"{hashlib.sha256(os.fsencode(model.path.absolute())).hexdigest()[:16]}.verified"
    if not _says(seen, state):
        with _locked(seen):
            if not _says(seen, state):
                model.verify()
                seen.write_text(state)
    return state


def _says(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text() == text


def _host_cache() -> Path:
    """The user's folder for models on this host, outside any application's own folders."""
    folder = Path(tempfile.gettempdir(), f"spark_instructor-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; remove it, or set TMPDIR for the executors")
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of the host at a time; the lock goes with the process that held it."""
    import fcntl  # not on Windows, from where a driver may well use Spark Connect

    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpacked(shipped: Shipped) -> PreparedModel:
    """The shipped archive as Spark unpacked it for this executor."""
    from pyspark import SparkFiles

    folder = Path(SparkFiles.getRootDirectory(), str(shipped.archive)).absolute()
    if not is_prepared(folder):
        raise FileNotFoundError(
            f"the model '{shipped.name}' did not reach this host: expected it at {folder}. It was shipped as an "
            "archive by the session that made this DataFrame; transform again in the running session."
        )
    return read_prepared(folder)


def _link(file: Path, target: Path) -> None:
    """Hard-link a file, or copy it to another file system."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
