"""Saving and loading stages through Spark's own data sources, on every session kind and file system.

pyspark's writer needs the JVM to overwrite and a SparkContext on 3.5; data sources need neither, and put the
model's files where Spark's metadata lands: a local path, any URI, a Databricks Volume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.errors import AnalysisException
from pyspark.ml.param import Params
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import DataFrame

from ..files import local_path

FORMAT_VERSION = 1
_SECTION = "sparkInstructor"  # our part of the metadata, beside Spark's own

# Spark Connect at its default heap takes rows and requests of this size, and not much larger ones.
_PIECE_BYTES = 1 << 20
_PIECES_A_BATCH = 16

_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
_INTERRUPTED = "Was the save interrupted? Save the stage again."


class ToSave(NamedTuple):
    """What a save writes, and what it must not write over."""

    stage: Params
    """The stage as it shall be loaded elsewhere."""
    folder: str | None = None
    """Name of the folder of its files, where it has some."""
    files: Sequence[Path] = ()
    needed: Sequence[Path] = ()
    """Folders that the stage itself reads."""


class PersistentStage(Params, MLReadable[Any], MLWritable):
    """A stage that is saved with its Params, and with a folder of files where it has one."""

    def write(self) -> StageWriter:
        """A writer: ``stage.write().overwrite().save(path)``."""
        return StageWriter(self)

    @classmethod
    def read(cls) -> StageReader:
        """A reader: ``cls.read().load(path)``, or ``cls.load(path)``."""
        return StageReader(cls)

    def _to_save(self) -> ToSave:
        """What a save writes."""
        return ToSave(self)

    def _take_files(self, folder: str, pieces: Iterator[tuple[str, bytes]]) -> None:
        """Take back the saved folder: its name, and its files' contents piece by piece, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no files")


class StageWriter(MLWriter):
    """Writes ``path/metadata`` in Spark ML's format, and the stage's files as rows of ``path/files``."""

    def __init__(self, stage: PersistentStage) -> None:
        super().__init__()
        self._stage = stage

    def save(self, path: str) -> None:
        """Save to a path or URI of Spark's file systems; an error where it exists, unless overwritten."""
        self.saveImpl(path)

    def saveImpl(self, path: str) -> None:
        """Write the metadata, whose folder must be new, and then the files."""
        spark = self.sparkSession
        stage, folder, files, needed = self._stage._to_save()  # before anything is cleared: it may fail
        if self.shouldOverwrite:
            _check_overwrite(path, needed)
            # An empty overwrite clears the folder without the JVM, so on Spark Connect too.
            spark.createDataFrame([], "value string").write.mode("overwrite").text(path)
        own: dict[str, Any] = {"formatVersion": FORMAT_VERSION}
        if folder is not None:
            pieces = sum(-(-file.stat().st_size // _PIECE_BYTES) for file in files)
            own["files"] = {"folder": folder, "batches": -(-pieces // _PIECES_A_BATCH)}
        # On 3.5 the type says SparkContext, but only its version is read, which a session has too.
        metadata = DefaultParamsWriter._get_metadata_to_save(stage, spark, {_SECTION: own})  # type: ignore[arg-type, unused-ignore]
        spark.createDataFrame([(metadata,)], "value string").coalesce(1).write.text(f"{path}/metadata")
        for number, batch in enumerate(_batches(_pieces(files))):
            rows = spark.createDataFrame(batch, "piece int, file string, content binary").coalesce(1)
            rows.write.option("compression", "none").parquet(_batch_path(path, number))


class StageReader(MLReader[Any]):
    """Reads what `StageWriter` wrote."""

    def __init__(self, cls: type[PersistentStage]) -> None:
        super().__init__()
        self._cls = cls

    def load(self, path: str) -> Any:
        """Load a stage.

        Raises ValueError where ``path`` holds another class, a newer format, or an incomplete stage, and
        where its files are not what was saved.
        """
        line = self.sparkSession.read.text(f"{path}/metadata").first()
        if line is None:
            raise ValueError(f"{path} is incomplete: its metadata is empty. {_INTERRUPTED}")
        metadata = json.loads(line[0])
        expected = f"{self._cls.__module__}.{self._cls.__name__}"
        if metadata["class"] != expected:
            raise ValueError(f"{path} holds a {metadata['class']}, expected a {expected}")
        own = metadata[_SECTION]
        if own["formatVersion"] > FORMAT_VERSION:
            raise ValueError(
                f"{path} was saved in format version {own['formatVersion']}; this spark_instructor reads versions up "
                f"to {FORMAT_VERSION}. Update spark-instructor-embeddings."
            )
        stage = self._cls()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        if "files" in own:
            files = own["files"]
            self._batch(path, files["batches"] - 1)  # written last: a save that was interrupted lacks it
            stage._take_files(_checked_name(files["folder"], path), self._read_pieces(path, files["batches"]))
        return stage

    def _read_pieces(self, path: str, batches: int) -> Iterator[tuple[str, bytes]]:
        for number in range(batches):
            for row in sorted(self._batch(path, number).collect(), key=lambda row: row.piece):
                yield _checked_name(row.file, path), bytes(row.content)

    def _batch(self, path: str, number: int) -> DataFrame:
        batch = _batch_path(path, number)
        try:
            rows = self.sparkSession.read.parquet(batch)
            _ = rows.schema  # Spark Connect looks for the folder only now
        except AnalysisException as error:
            raise ValueError(f"{path} is incomplete: {batch} is missing. {_INTERRUPTED}") from error
        return rows


def _batch_path(path: str, number: int) -> str:
    return f"{path}/files/{number:05d}"


def _checked_name(name: str, path: str) -> str:
    """A name that stays in its folder; ValueError for any other, which nothing here has written."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path} names a file {name!r}, which no stage saves. Do not load it.")
    return name


def _check_overwrite(path: str, needed: Sequence[Path]) -> None:
    """ValueError where clearing ``path`` would take a folder with it that the stage reads."""
    target = local_path(path).resolve()
    for folder in needed:
        if folder.resolve().is_relative_to(target):
            raise ValueError(f"{path} holds the model of this stage ({folder}): save the stage to another path")


def _pieces(files: Sequence[Path]) -> Iterator[tuple[int, str, bytes]]:
    number = 0
    for path in files:
        with path.open("rb") as file:
            while content := file.read(_PIECE_BYTES):
                yield number, path.name, content
                number += 1


def _batches(pieces: Iterator[tuple[int, str, bytes]]) -> Iterator[list[tuple[int, str, bytes]]]:
    while batch := list(islice(pieces, _PIECES_A_BATCH)):
        yield batch
