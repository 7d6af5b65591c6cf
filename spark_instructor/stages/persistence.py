"""Saving and loading stages through Spark's data sources, on every kind of session and file system.

pyspark's own writer needs the JVM to overwrite, and on 3.5 a SparkContext. Data sources need neither, and they put
the files of the model beside Spark's metadata: in a local folder, under any URI, or in a Databricks Volume.
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
from pyspark.sql import DataFrame, SparkSession

from ..files import escape_pattern, local_path

FORMAT_VERSION = 1
_SECTION = "sparkInstructor"  # our part of the metadata, beside Spark's own

# Spark Connect takes rows and requests of this size with its default heap, and not much larger ones.
_PIECE_BYTES = 1 << 20
_PIECES_PER_BATCH = 16

_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
INTERRUPTED = "Was the save interrupted? Save it again."


class StageContent(NamedTuple):
    """What a save writes, and which folders it must not overwrite."""

    stage: Params
    """The stage with the Params that it will have after it is loaded."""
    folder_name: str | None = None
    """Name of the folder of the stage's files; None if it has no files."""
    files: Sequence[Path] = ()
    """The files to save."""
    sources: Sequence[Path] = ()
    """Folders that the stage itself reads."""


class PersistentStage(Params, MLReadable[Any], MLWritable):
    """A stage that is saved with its Params and, if it has one, with a folder of files."""

    def write(self) -> StageWriter:
        """Return a writer: ``stage.write().overwrite().save(path)``."""
        return StageWriter(self)

    @classmethod
    def read(cls) -> StageReader:
        """Return a reader: ``cls.read().load(path)``, which is the same as ``cls.load(path)``."""
        return StageReader(cls)

    def collect_content(self) -> StageContent:
        """Return what a save has to write."""
        return StageContent(self)

    def restore_files(self, folder_name: str, pieces: Iterator[tuple[str, bytes]]) -> None:
        """Store the saved files on this machine: pairs of a file name and the next piece of its content, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no files")


class StageWriter(MLWriter):
    """Writes ``path/metadata`` in the format of Spark ML, and the stage's files as rows of ``path/files``."""

    def __init__(self, stage: PersistentStage) -> None:
        super().__init__()
        self._stage = stage

    def save(self, path: str) -> None:
        """Save to a path or a URI that Spark can write.

        Raises an AnalysisException if the path exists, unless ``overwrite()`` was called.
        """
        self.saveImpl(path)

    def saveImpl(self, path: str) -> None:
        """Write the metadata and then the files."""
        content = self._stage.collect_content()  # before anything is deleted, since it may fail
        create_folder(self.sparkSession, path, content.sources, overwrite=self.shouldOverwrite)
        write_content(self.sparkSession, path, content)


class StageReader(MLReader[Any]):
    """Reads what `StageWriter` wrote."""

    def __init__(self, cls: type[PersistentStage]) -> None:
        super().__init__()
        self._cls = cls

    def load(self, path: str) -> Any:
        """Load a stage.

        Raises ValueError if ``path`` holds another class, a newer format or an incomplete stage, or if its files
        are not the ones that were saved.
        """
        return self.restore(path, read_metadata(self.sparkSession, path))

    def restore(self, path: str, metadata: dict[str, Any]) -> Any:
        """Do what `load` does, with the metadata that was read from ``path``."""
        expected = f"{self._cls.__module__}.{self._cls.__name__}"
        if metadata["class"] != expected:
            raise ValueError(f"{path} holds a {metadata['class']}, expected a {expected}")
        section = metadata[_SECTION]
        if section["formatVersion"] > FORMAT_VERSION:
            raise ValueError(
                f"{path} was saved in format version {section['formatVersion']}; this spark_instructor reads versions "
                f"up to {FORMAT_VERSION}. Update spark-instructor-embeddings."
            )
        stage = restore_params(self._cls, metadata)
        if "files" in section:
            files = section["files"]
            self._open_batch(path, files["batches"] - 1)  # an interrupted save lacks it, since it is written last
            stage.restore_files(_check_name(files["folder"], path), self._load_pieces(path, files["batches"]))
        return stage

    def _load_pieces(self, path: str, batches: int) -> Iterator[tuple[str, bytes]]:
        for number in range(batches):
            for row in sorted(self._open_batch(path, number).collect(), key=lambda row: row.piece):
                yield _check_name(row.file, path), bytes(row.content)

    def _open_batch(self, path: str, number: int) -> DataFrame:
        batch = _batch_path(path, number)
        try:
            rows = self.sparkSession.read.parquet(escape_pattern(batch))
            _ = rows.schema  # only this makes Spark Connect look for the folder
        except AnalysisException as error:
            raise ValueError(f"{path} is incomplete: {batch} is missing. {INTERRUPTED}") from error
        return rows


def write_content(spark: SparkSession, path: str, content: StageContent) -> None:
    """Write the metadata of a stage and its files."""
    section: dict[str, Any] = {"formatVersion": FORMAT_VERSION}
    if content.folder_name is not None:
        pieces = sum(-(-file.stat().st_size // _PIECE_BYTES) for file in content.files)
        section["files"] = {"folder": content.folder_name, "batches": -(-pieces // _PIECES_PER_BATCH)}
    write_metadata(spark, path, content.stage, extra={_SECTION: section})
    for number, batch in enumerate(_group_pieces(_read_pieces(content.files))):
        rows = spark.createDataFrame(batch, "piece int, file string, content binary").coalesce(1)
        rows.write.option("compression", "none").parquet(_batch_path(path, number))


def write_metadata(
    spark: SparkSession,
    path: str,
    instance: Params,
    params: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write what Spark ML writes to ``path/metadata``; ``params`` replaces the Params that are set."""
    # On 3.5 the type says SparkContext, but only its version is read, and a session has one too.
    metadata = DefaultParamsWriter._get_metadata_to_save(instance, spark, extra, params)  # type: ignore[arg-type, unused-ignore]
    spark.createDataFrame([(metadata,)], "value string").coalesce(1).write.text(f"{path}/metadata")


def read_metadata(spark: SparkSession, path: str) -> dict[str, Any]:
    """Read the metadata of a stage or a pipeline.

    Raises an AnalysisException if there is none, and ValueError if it is empty.
    """
    line = spark.read.text(escape_pattern(f"{path}/metadata")).first()
    if line is None:
        raise ValueError(f"{path} is incomplete: its metadata is empty. {INTERRUPTED}")
    metadata: dict[str, Any] = json.loads(line[0])
    return metadata


def restore_params(cls: type[Params], metadata: dict[str, Any]) -> Any:
    """Create an instance that has the uid and the Params of the metadata."""
    instance: Any = cls()
    instance._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(instance, metadata)
    return instance


def create_folder(spark: SparkSession, path: str, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Create a folder; with ``overwrite``, first delete what ``path`` holds.

    Raises an AnalysisException if the path exists and ``overwrite`` is False. Raises ValueError, and deletes nothing,
    if that would delete one of the ``sources``.
    """
    target = _find_local_target(path) if overwrite else None
    for folder in sources:
        if target is not None and folder.resolve().is_relative_to(target):
            raise ValueError(f"{path} holds the model of this stage ({folder}): save the stage to another path")
    # Writing an empty DataFrame creates or clears the folder without the JVM, so it works on Spark Connect.
    spark.createDataFrame([], "value string").write.mode("overwrite" if overwrite else "error").text(path)


def _find_local_target(path: str) -> Path | None:
    """Return the local folder that Spark would write to, or None if it is on another file system."""
    try:
        # Spark takes the percent signs of a file: URI literally, and so does local_path in a plain path.
        return local_path(re.sub(r"^file:(//[^/]*)?(?=/)", "", path)).resolve()
    except ValueError:
        return None


def _batch_path(path: str, number: int) -> str:
    return f"{path}/files/{number:05d}"


def _check_name(name: str, path: str) -> str:
    """Return a file name; raise ValueError if it could lead out of its folder, as no name that we write does."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{path} names a file {name!r}, which no stage saves. Do not load it.")
    return name


def _read_pieces(files: Sequence[Path]) -> Iterator[tuple[int, str, bytes]]:
    number = 0
    for path in files:
        with path.open("rb") as file:
            while content := file.read(_PIECE_BYTES):
                yield number, path.name, content
                number += 1


def _group_pieces(pieces: Iterator[tuple[int, str, bytes]]) -> Iterator[list[tuple[int, str, bytes]]]:
    while batch := list(islice(pieces, _PIECES_PER_BATCH)):
        yield batch
