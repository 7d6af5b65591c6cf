"""The input of ``spark-instructor embed``: its format, and a check of local files before Spark starts."""

from __future__ import annotations

import bz2
import codecs
import csv
import dataclasses
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ..files import escape_pattern, local_path

FORMATS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".orc": "orc",
    ".parquet": "parquet",
    ".tsv": "csv",
    ".txt": "text",
}
"""Format of a file by the suffix of its name."""

OPENERS: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open}
_COMPRESSED = (".bz2", ".deflate", ".gz", ".lz4", ".snappy", ".zst")
_TABLE_NAME = re.compile(r"[\w`]+(\.[\w`]+){0,2}")
_HEAD_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Source:
    """The place of the texts, and how to read them."""

    path: str
    """File, folder, pattern, URI or name of a table."""
    format: str
    """csv, json (a document per file), jsonl (an object per line), orc, parquet, table or text."""
    text_col: str
    delimiter: str
    encoding: str
    """Name of the encoding, as Python and Java know it."""
    whole_files: bool
    """Whether a text file is one row; otherwise each of its lines is one."""
    files: list[Path] | None
    """The data files of a local file or folder; None if Spark has to look for them."""

    @classmethod
    def find(
        cls,
        path: str,
        format: str | None,
        *,
        text_col: str,
        delimiter: str | None,
        encoding: str,
        whole_files: bool,
        is_local: bool,
    ) -> Source:
        """Return the source at a path, in the given format or in the one that its name implies.

        ``is_local`` says that Spark will run here, so its local files are those that this process sees.

        Raises FileNotFoundError if there is no such local file or folder, and ValueError if nothing implies a format,
        or if an option does not belong to the format.
        """
        files = _list_files(path) if is_local and format != "table" else None
        format = format or _find_format(path, files)
        if files == [] and format != "table":
            raise FileNotFoundError(f"there is no file or folder {path}")
        if whole_files and format != "text":
            raise ValueError(f"--whole-files is for text, but the format of {path} is {format}")
        if format == "jsonl" and encoding.startswith(("utf-16", "utf-32")):
            raise ValueError(f"Spark cannot read lines of JSON in {encoding}; convert {path} to utf-8")
        if delimiter is not None and format != "csv":
            raise ValueError(f"--delimiter is for csv, but the format of {path} is {format}")
        if delimiter is None:
            delimiter = "\t" if _get_suffix(files[0].name if files else path) == ".tsv" else ","
        return cls(path, format, text_col, delimiter.replace("\\t", "\t"), encoding, whole_files, files)

    def check_files(self) -> None:
        """Check local files as far as that is quick.

        Raises ValueError if they are empty, if they are not of this format, if files of CSV have different columns, or
        if they have no column of the texts.
        """
        if not self.files:
            return
        if not any(file.stat().st_size for file in self.files):
            raise ValueError(f"the input is empty: {self.path}")
        self.check_compression(map(str, self.files))
        columns = self._read_columns(self.files)
        partitions = [part.split("=")[0] for part in self.files[0].parts if "=" in part]
        # Spark ignores the case of names by default.
        if columns and self.text_col.casefold() not in (name.casefold() for name in [*columns, *partitions]):
            raise ValueError(
                f"there is no column {self.text_col!r}; the columns are {_list_names(columns)}. "
                "Name one: --text-col NAME"
            )

    def check_compression(self, files: Iterable[str]) -> None:
        """Raise ValueError if a file is compressed text that is not UTF-8: Spark then does not decompress it."""
        if self.format != "text" or self.encoding == "utf-8":
            return
        for file in files:
            if file.lower().endswith(_COMPRESSED):
                raise ValueError(
                    f"{file} is compressed, and Spark reads compressed text in utf-8 only, not in {self.encoding}: "
                    "decompress the file, or convert its text to utf-8"
                )

    def _read_columns(self, files: list[Path]) -> list[str]:
        """Return the names of the columns; none if it would take long to know them all."""
        try:
            if self.format == "parquet":
                from pyarrow.parquet import read_schema

                return list(read_schema(files[0]).names)
            if self.format == "orc":
                from pyarrow.orc import ORCFile

                return list(ORCFile(files[0]).schema.names)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{files[0]} is not {self.format}: pass its --format, {_list_formats()}") from error
        if self.format == "csv":
            return self._read_header(files)
        if self.format == "jsonl":
            return self._read_keys(files)
        for _ in self._read_head(files[0]):
            pass
        return []

    def _read_header(self, files: list[Path]) -> list[str]:
        """Return the header that all files of CSV have; raise ValueError if one has another."""
        columns: list[str] = []
        for file in files:
            header = next(csv.reader(self._read_head(file), delimiter=self.delimiter), [])
            if not columns:
                first, columns = file, header
            elif header and [name.casefold() for name in header] != [name.casefold() for name in columns]:
                raise ValueError(
                    f"{first} has the columns {_list_names(columns)} and {file} has {_list_names(header)}, but Spark "
                    "reads columns by their position. Give all files the same header, or embed them one by one"
                )
        return columns

    def _read_keys(self, files: list[Path]) -> list[str]:
        """Return the keys of all lines; none if the files are too long to read them here."""
        if sum(file.stat().st_size for file in files) > _HEAD_BYTES:
            return []
        keys: dict[str, None] = {}
        for file in files:
            for line in self._read_head(file):
                with suppress(ValueError):  # Spark reports the lines that it cannot read
                    content = json.loads(line)
                    for row in content if isinstance(content, list) else [content]:  # Spark reads lists of rows, too
                        keys |= dict.fromkeys(row if isinstance(row, dict) else ())
        return list(keys)

    def _read_head(self, file: Path) -> Iterator[str]:
        """Yield what `read_head` yields; raise ValueError if the file is not in this encoding."""
        try:
            yield from read_head(file, self.encoding)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not in {self.encoding} ({error.reason}): pass its --encoding, such as latin-1 or cp1252"
            ) from error


def _list_files(path: str) -> list[Path] | None:
    """Return the data files of a local file or folder, as Spark finds them; None for a pattern and other file systems.

    Raises ValueError for a folder without data files, and for one with files that Spark would leave out.
    """
    if re.match(r"[A-Za-z][\w+.-]+:", path) and not path.startswith("file:"):
        return None
    root = local_path(path)
    if not root.exists():
        return [] if escape_pattern(path) == path else None
    if not root.is_dir():
        if _is_hidden(Path(root.name)):
            raise ValueError(f"Spark ignores files whose names begin with a dot or an underscore; rename {path}")
        return [root]
    files = sorted(file for file in root.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(root)))
    if not files:
        raise ValueError(f"the input is empty: {path} has no files")
    folders = [file.relative_to(root).parent.parts for file in files]
    are_partitions = all(names and all("=" in name for name in names) for names in folders)
    if any(folders) and not are_partitions:
        nested, names = next((file, names) for file, names in zip(files, folders, strict=True) if names)
        pattern = "/".join([escape_pattern(path.rstrip("/")), *("*" for _ in names), f"*{nested.suffix}"])
        raise ValueError(
            f"{path} has files in subfolders, such as {nested}, but Spark reads the files of one folder, or of "
            "subfolders that all have a name like key=value. Pass a pattern for the files of one level, such as "
            f"'{pattern}'"
        )
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.parts)


def _find_format(path: str, files: list[Path] | None) -> str:
    suffixes = sorted({_get_suffix(file.name) for file in files} if files else {_get_suffix(path)})
    formats = {FORMATS.get(suffix) for suffix in suffixes}
    if len(formats) > 1:
        raise ValueError(
            f"{path} has files of several formats ({', '.join(suffixes)}): pass --format, {_list_formats()}"
        )
    (format,) = formats
    if format == "json":
        return "json" if files and not _starts_with_an_object_per_line(files[0]) else "jsonl"
    if format is None and not files and _TABLE_NAME.fullmatch(path):
        return "table"
    if format is None:
        if files == []:
            raise FileNotFoundError(f"there is no file or folder {path}")
        raise ValueError(f"the name of {path} does not imply its format: pass --format, {_list_formats()}")
    return format


def _list_names(columns: list[str]) -> str:
    return ", ".join(map(repr, columns))


def _list_formats() -> str:
    names = sorted({*FORMATS.values(), "table"})
    return f"one of {', '.join(names)} (known suffixes are {', '.join(FORMATS)})"


def _get_suffix(name: str) -> str:
    return Path(re.sub(r"\.(gz|bz2|zst)$", "", name)).suffix.lower()


def _starts_with_an_object_per_line(file: Path) -> bool:
    with suppress(ValueError):
        first = next((line for line in read_head(file, "utf-8") if line.strip()), "")
        return isinstance(json.loads(first), dict)
    return False


def read_head(file: Path, encoding: str) -> Iterator[str]:
    """Yield the first lines of a file, up to a megabyte; none if it is compressed in a way that Python cannot read."""
    if file.suffix == ".zst":
        return
    with OPENERS.get(file.suffix, open)(file, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
        decoder = codecs.getincrementaldecoder(encoding)()
        text = decoder.decode(head, final=len(head) < _HEAD_BYTES)
        yield from io.StringIO(text.removeprefix("\ufeff"), newline="")
