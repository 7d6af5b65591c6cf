"""Paths that users pass, and small files from elsewhere, which are read completely and checked or refused."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, TypeVar
from urllib.parse import unquote

__all__ = [
    "JsonObject",
    "can_map",
    "escape_pattern",
    "is_file",
    "is_valid_name",
    "local_path",
    "read_bytes",
    "read_json",
    "report_unreadable",
    "short_repr",
]

_MAX_BYTES = 1 << 26  # four times the size of the largest known T5 tokenizer, mT5's
_MAX_NUMBER = 2**31 - 1  # no width, count or length of a real model comes close
_PATTERN = re.compile(r"[][{}*?\\]")
_URI = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]+):(//(?P<host>[^/]*))?(?P<location>/.*|$)", re.DOTALL)
_CURE = "Mount it, or copy the folder to a path that this machine can read (a local disk, NFS, /Volumes/...)."
_KINDS = {str: "text", bool: "true or false", float: "a decimal number"}

Kind = TypeVar("Kind", str, bool, float)


class JsonObject:
    """An object in a JSON file, whose values are checked when they are read. A null counts as a missing value.

    Errors name the file and the key.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self._content = path, content

    def get(self, key: str, kind: type[Kind], default: Kind | None = None) -> Kind | None:
        """Return the value of ``key``; raise ValueError if it is not of this kind."""
        value = self._content.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise ValueError(f"{self.path}: {key} is {short_repr(value)}, expected {_KINDS[kind]}")
        return value

    def get_whole_number(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """Return the value of ``key``.

        Raises ValueError if it is not a whole number, if it is out of range, or if it is missing and has no default.
        """
        value = self._content.get(key)
        value = default if value is None else value
        if type(value) is not int or not minimum <= value <= _MAX_NUMBER:
            expected = "a positive whole number" if minimum == 1 else f"a whole number of at least {minimum}"
            limit = f" and at most {_MAX_NUMBER}" if type(value) is int and value > _MAX_NUMBER else ""
            raise ValueError(f"{self.path}: {key} is {short_repr(value)}, expected {expected}{limit}")
        return value

    def get_object(self, key: str) -> JsonObject:
        """Return the object that is the value of ``key``; raise ValueError if the value is something else."""
        value = self._content.get(key)
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise ValueError(f"{self.path}: {key} is {short_repr(value)}, expected an object")
        return JsonObject(self.path, value)

    def get_flags(self, prefix: str) -> dict[str, bool]:
        """Return all keys that start with ``prefix`` and their values, which must be true or false."""
        return {key: bool(self.get(key, bool, False)) for key in self._content if key.startswith(prefix)}


def local_path(path: str | os.PathLike[str]) -> Path:
    """Convert a path, a ``file:`` URI or a ``dbfs:`` URI to a local path; replace a leading ``~`` by the home folder.

    Raises ValueError for other URIs, and for a ``dbfs:`` URI on a machine where DBFS is not mounted.
    """
    path = os.fspath(path)
    uri = _URI.match(path)
    if uri is None:
        return Path(os.path.expanduser(path.removeprefix("file:")))  # Path.expanduser raises for an unknown user
    scheme, host, location = uri["scheme"].lower(), uri["host"], uri["location"]
    if scheme == "file" and host in (None, "", "localhost"):
        return Path(unquote(location))
    if scheme == "dbfs" and not host:
        if location.startswith("/Volumes/"):
            return Path(location)
        if os.path.isdir("/dbfs"):
            return Path("/dbfs" + location)
        raise ValueError(f"{path}: this machine has no /dbfs, where DBFS would be mounted. {_CURE}")
    if scheme == "file":
        raise ValueError(f"{path} names the host {host!r}. The URI of a local folder has three slashes: file:///folder")
    raise ValueError(f"{path}: a model is read as local files, and {scheme}: is not a local file system. {_CURE}")


def escape_pattern(path: str) -> str:
    """Escape the name of a file or folder for Spark's readers, which take a pattern; Spark's writers take a name."""
    return _PATTERN.sub(r"\\\g<0>", path)


def is_valid_name(text: str) -> bool:
    """Tell whether ``text`` may be the name of a file or folder: printable, and short enough for an error message."""
    return text.isprintable() and len(text) < 256


def is_file(path: Path) -> bool:
    """Tell whether a file exists; raise ValueError if its name belongs to something other than a file.

    Links are followed, because the cache of huggingface_hub consists of links. A broken link is an error and does not
    count as a missing file: the file that it stood for might have changed the vectors.
    """
    if not os.path.lexists(path):
        return False
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} is not a file but a folder, a device or a broken link. Download the checkpoint again."
        )
    return True


def can_map(path: Path) -> bool:
    """Tell whether a file can be mapped into memory. A mount through FUSE, such as a Databricks Volume, may refuse."""
    with path.open("rb") as file:
        try:
            mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ).close()
        except ValueError:  # the file is empty
            return True
        except OSError:
            return False
    return True


@contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a ValueError that names the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Check its permissions and the disk.") from error


def read_bytes(path: Path) -> bytes:
    """Read a small file; raise FileNotFoundError if it does not exist and ValueError if it cannot be read."""
    if not is_file(path):
        raise FileNotFoundError(f"the checkpoint lacks {path}")
    with report_unreadable(path), path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(
            f"{path} is larger than {_MAX_BYTES >> 20} MiB, so it is not what its name says. Download it again."
        )
    return content


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file; raise ValueError if it is not valid JSON or if its content is not of this kind."""
    encoded = read_bytes(path)
    try:
        content = json.loads(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a {kind.__name__}")
    return content
