"""Writing folders and files so that nobody reads an incomplete one.

They are written beside their final place and then renamed. Mounts of object stores through FUSE, such as Databricks
Volumes, refuse some of the calls that this takes: they do not append to files, write sparse files, rename folders or
change permissions. What belongs on such a mount is written among the temporary files of this machine, and then copied
file by file.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .prepared import MANIFEST, is_prepared

_MAX_SECONDS_TO_WRITE = 24 * 3600  # no folder takes that long
_INCOMPLETE = "incomplete"
"""Name of the file that marks a folder whose other files are still being copied."""


@contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``final``, readable for every user, if the block succeeds.

    Nobody ever sees a ``final`` whose manifest is there and whose other files are not. After an error the temporary
    folder is deleted, and if another process was faster, its folder stays. The temporary folder of a killed process is
    deleted a day later; a folder that a killed process had not copied completely is copied again.

    Raises OSError, with advice, if the disk is full.
    """
    try:
        with _open_temporary(final) as temporary:
            yield temporary
            _let_everyone_read(temporary)
            try:
                temporary.rename(final)
            except OSError:
                if is_prepared(final):
                    return
                if not is_free(final):
                    raise
                _copy_files(temporary, final)
    except Exception as error:
        # tokenizers and safetensors give the error number only in the message.
        match = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else match and int(match[1])
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"there is no room for the prepared model {final} ({os.strerror(number)}). Free some space or use another "
            "disk: HF_HOME sets the folder of the cache, TMPDIR the folder in which executors keep models."
        ) from error


@contextmanager
def publish_file(final: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes ``final`` if the block succeeds."""
    with _open_temporary(final) as folder:
        temporary = folder / final.name
        yield temporary
        try:
            temporary.replace(final)
        except OSError:  # it is on another file system
            shutil.copyfile(temporary, final)


def is_free(folder: Path) -> bool:
    """Return whether `publish_folder` may write a folder: nothing is there, or only an incomplete copy of a model."""
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / _INCOMPLETE).exists() or not any(folder.iterdir()))


def create_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and let every user read them, whatever the umask is."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(exist_ok=True)
        _let_everyone_read(path)


@contextmanager
def _open_temporary(final: Path) -> Iterator[Path]:
    """Yield a new folder to write in: beside ``final``, or among the temporary files if the mount there refuses calls.

    The folder is deleted in the end.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _create_temporary(final.parent, final.name)
    try:
        if not _takes_all_calls(temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary = _create_temporary(Path(tempfile.gettempdir()), final.name)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _create_temporary(parent: Path, name: str) -> Path:
    for abandoned in parent.glob(f".{glob.escape(name)}-*"):
        with suppress(FileNotFoundError):  # another process has just renamed it
            if time.time() - abandoned.stat().st_mtime > _MAX_SECONDS_TO_WRITE:
                shutil.rmtree(abandoned, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))


def _takes_all_calls(folder: Path) -> bool:
    """Return whether a file in a folder may have holes and be appended to, and whether folders may be renamed."""
    probe, renamed = folder / "probe", folder / "renamed"
    try:
        probe.mkdir()
        with (probe / "file").open("wb") as file:
            file.truncate(2)
            file.seek(1)
            file.write(b"b")
        with (probe / "file").open("ab") as file:
            file.write(b"c")
        probe.rename(renamed)
        shutil.rmtree(renamed)
    except OSError:
        return False
    return True


def _let_everyone_read(path: Path) -> None:
    """Let every user read a file, or a folder and the files in it, as executors may run as another user.

    Mounts that do not keep permissions refuse this, and give the permissions that they were mounted with.
    """
    with suppress(OSError):
        path.chmod(0o755 if path.is_dir() else 0o644)
        for file in path.iterdir() if path.is_dir() else ():
            _let_everyone_read(file)


def _copy_files(source: Path, final: Path) -> None:
    """Copy the files of a folder, and the manifest last: it says that the others are there."""
    final.mkdir(exist_ok=True)
    (final / _INCOMPLETE).touch()
    for file in sorted(source.iterdir(), key=lambda file: file.name == MANIFEST):
        shutil.copyfile(file, final / file.name)
    _let_everyone_read(final)
    (final / _INCOMPLETE).unlink(missing_ok=True)
