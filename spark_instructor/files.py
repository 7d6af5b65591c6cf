"""Paths that people give, and small files that came from elsewhere: read whole and of the expected kind, or refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, TypeVar

__all__ = [
    "JsonObject",
    "expand_user",
    "is_file",
    "is_valid_name",
    "local_path",
    "read_bytes",
    "read_json",
    "report_unreadable",
    "short_repr",
]

_MAX_BYTES = 1 << 26  # the largest T5 tokenizer known, mT5's, has a quarter of that
_MAX_NUMBER = 2**31 - 1  # no width, count or length of a model comes near
_KINDS = {str: "text", bool: "true or false", float: "a decimal number"}

Kind = TypeVar("Kind", str, bool, float)


class JsonObject:
    """An object in a json file; a value of another kind than expected is refused by name. null is as good as none."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self._content = path, content

    def get(self, key: str, kind: type[Kind], default: Kind | None = None) -> Kind | None:
        """The value of ``key``; ValueError where it is not of this kind."""
        value = self._content.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise ValueError(f"{self.path}: {key} is {short_repr(value)}, expected {_KINDS[kind]}")
        return value

    def get_whole_number(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """The value of ``key``; ValueError where it is not a whole number in range, or missing without a default."""
        value = self._content.get(key)
        value = default if value is None else value
        if type(value) is not int or not minimum <= value <= _MAX_NUMBER:
            wanted = "a positive whole number" if minimum == 1 else f"a whole number of at least {minimum}"
            limit = f" and at most {_MAX_NUMBER}" if type(value) is int and value > _MAX_NUMBER else ""
            raise ValueError(f"{self.path}: {key} is {short_repr(value)}, expected {wanted}{limit}")
        return value

    def get_flags(self, prefix: str) -> dict[str, bool]:
        """All keys with this prefix and their values, which must be true or false."""
        return {key: bool(self.get(key, bool, False)) for key in self._content if key.startswith(prefix)}


def expand_user(path: str | os.PathLike[str]) -> Path:
    """The path, a leading ``~`` or ``~user`` replaced by the home; an unknown user's stays, as a folder's name."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown user


def local_path(path: str) -> Path:
    """A path given as such, as a ``file:`` URI, or as a Volume's ``dbfs:`` URI."""
    return expand_user(re.sub(r"^(file:(//)?|dbfs:(?=/Volumes/))", "", path))


def is_valid_name(text: str) -> bool:
    """Whether a file or folder, or a path of some, may be called so: printable, and not too long to show."""
    return text.isprintable() and len(text) < 256


def is_file(path: Path) -> bool:
    """Whether there is such a file; ValueError where its name belongs to something else.

    A link is followed: huggingface_hub's cache is made of links. What is neither a file nor missing, such as a
    link to nothing, is not taken for missing: what it stood for might have changed the vectors.
    """
    if not os.path.lexists(path):
        return False
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} is not a file but a folder, a device or a broken link. Download the checkpoint again."
        )
    return True


@contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """Where the system cannot read the file, a ValueError says so."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Check its permissions and its disk.") from error


def read_bytes(path: Path) -> bytes:
    """What a small file holds; FileNotFoundError where there is none, ValueError where it cannot be read."""
    if not is_file(path):
        raise FileNotFoundError(f"the checkpoint lacks {path}")
    with report_unreadable(path), path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(
            f"{path} has more than {_MAX_BYTES >> 20} MiB: it is not what its name says. Download it again."
        )
    return content


def read_json(path: Path, kind: type = dict) -> Any:
    """What a json file holds; ValueError where it is not json or not of this kind."""
    encoded = read_bytes(path)
    try:
        content = json.loads(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not json: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a {kind.__name__}")
    return content
