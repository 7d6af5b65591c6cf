"""The rows of the input of ``spark-instructor embed``, and what is wrong with them."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from ..columns import check_new_columns, check_type, column, is_same_type
from ..files import escape_pattern, local_path
from ..stages.splitter import DocumentTokenSplitter
from .inputs import OPENERS, Source

CHUNK = "chunk"
"""Name of the column with the number of a chunk in its document."""

_UNREADABLE = "__unreadable"  # the column with the records that Spark could not read
_EXAMPLES = 3
_NUMBER = r"^\s*[+-]?[\d.,]+([eE][+-]?\d+)?\s*$"


def read_rows(spark: SparkSession, source: Source) -> DataFrame:
    """Return the rows of an input; `check_rows` then finds out whether all of them could be read.

    Raises FileNotFoundError if there is no such table, and ValueError if there are no files.
    """
    if source.format == "table":
        with suppress(AnalysisException):  # the name has too many parts for its catalog
            if spark.catalog.tableExists(source.path):
                return spark.table(source.path)
        raise FileNotFoundError(f"there is no file, folder or table {source.path}")
    if source.encoding != "utf-8":
        spark.conf.set("spark.sql.legacy.javaCharsets", "true")  # Spark 4 knows few encodings without it
    try:
        rows = _read_files(spark, source, escape_pattern(source.path) if source.files else source.path)
    except AnalysisException as error:
        if "UNABLE_TO_INFER_SCHEMA" in str(error):
            raise ValueError(f"the input is empty: {source.path} has no files") from error
        raise
    if not rows.columns:
        raise ValueError(f"the input is empty: {source.path}")
    return rows


def _read_files(spark: SparkSession, source: Source, path: str) -> DataFrame:
    unreadable = StructField(_UNREADABLE, StringType())
    options: dict[str, Any]
    if source.format == "csv":
        options = {"header": True, "sep": source.delimiter, "encoding": source.encoding}
        reader = spark.read.options(multiLine=True, quote='"', escape='"', **options)
        schema = StructType([*reader.csv(path).schema.fields, unreadable])
        return reader.schema(schema).csv(path, columnNameOfCorruptRecord=_UNREADABLE)
    if source.format in ("json", "jsonl"):
        options = {} if source.encoding == "utf-8" else {"encoding": source.encoding, "lineSep": "\n"}
        options |= {"multiLine": source.format == "json", "columnNameOfCorruptRecord": _UNREADABLE}
        rows = spark.read.options(**options).json(path)
        if rows.columns == [_UNREADABLE]:  # Spark refuses queries of this column alone
            schema = StructType([StructField(source.text_col, StringType()), unreadable])
            rows = spark.read.options(**options).schema(schema).json(path)
        return rows
    if source.format == "text":
        return _read_texts(spark, source, path)
    return spark.read.format(source.format).load(path)


def _read_texts(spark: SparkSession, source: Source, path: str) -> DataFrame:
    file = F.col("_metadata.file_path").alias("path")
    if source.encoding == "utf-8":
        rows = spark.read.text(path, wholetext=source.whole_files)
        text = F.col("value").alias(source.text_col)
        return rows.select(file, text) if source.whole_files else rows.select(text)
    # Spark's reader of texts knows no other encoding. As there, an empty file has no row, and a lone \r ends a line.
    files = spark.read.format("binaryFile").load(path)
    source.check_compression(map(unquote, files.inputFiles()))
    rows = files.select(file, F.decode("content", source.encoding).alias("text")).where("text != ''")
    if source.whole_files:
        return rows.withColumnRenamed("text", source.text_col)
    lines = F.split(F.regexp_replace("text", r"(\r\n|\r|\n)\z", ""), r"\r\n|\r|\n")
    return rows.select(F.explode(lines).alias(source.text_col))


def check_rows(source: Source, rows: DataFrame, text: StructField, *, skip_bad_lines: bool) -> tuple[DataFrame, int]:
    """Return the rows that could be read, and their number; warn of texts that are probably not what was meant.

    Raises ValueError if there are no rows, and, unless ``skip_bad_lines``, if a record could not be read.
    """
    texts = column(text.name)
    plain = texts if is_same_type(text.dataType, StringType()) else F.lit("")
    has_unreadable = _UNREADABLE in rows.columns
    (found,) = rows.agg(
        F.count("*").alias("rows"),
        F.count(texts).alias("texts"),
        F.count_if(plain.rlike(_NUMBER)).alias("numbers"),
        F.count_if(plain.contains("\ufffd")).alias("broken"),
        F.count(_UNREADABLE if has_unreadable else F.lit(None)).alias("unreadable"),
    ).collect()
    if found.unreadable:
        examples = rows.where(F.col(_UNREADABLE).isNotNull()).select("_metadata.file_path", _UNREADABLE, texts)
        message = _describe_bad_lines(source, found.unreadable, examples.limit(_EXAMPLES).collect())
        if not skip_bad_lines or found.unreadable == found.rows:
            raise ValueError(f"{message}. Correct the input, or pass --bad-lines skip to embed the others")
        _warn(f"skipped {message}")
    if not found.rows:
        raise ValueError(f"the input is empty: {source.path} has no rows")
    if found.texts and found.numbers == found.texts:
        _warn(f"all texts of the column {text.name!r} are numbers")
    if found.broken:
        _warn(f"{found.broken:,} texts contain U+FFFD, as they do if the input has another --encoding")
    if has_unreadable:
        rows = rows.where(F.col(_UNREADABLE).isNull()).drop(_UNREADABLE)
    return rows, found.rows - found.unreadable


def split_rows(rows: DataFrame, text: StructField, splitter: DocumentTokenSplitter) -> DataFrame:
    """Return a row per chunk: the columns of its document, with the chunk in place of the text, and its place.

    The place is in the columns `CHUNK`, ``chunks`` (how many chunks the document has), ``begin`` and ``end``.

    Raises ValueError if the text is not a string, or if the rows have one of these columns.
    """
    check_type(text, [StringType()], "--split")
    check_new_columns(rows, [CHUNK, "chunks", "begin", "end"], "--split")
    chunks = f"{splitter.uid}__chunks"
    chunk = column(chunks)[0]
    split = splitter.copy().setOutputCol(chunks).setExplodeSplits(True).transform(rows)
    return split.select(
        *(chunk["result"].alias(name) if name == text.name else column(name) for name in rows.columns),
        *(chunk["metadata"][name].cast("int").alias(name) for name in (CHUNK, "chunks")),
        *(chunk[name].alias(name) for name in ("begin", "end")),
    )


def _describe_bad_lines(source: Source, count: int, examples: list[Any]) -> str:
    places = []
    for uri, record, _ in examples:
        file, line, number = unquote(uri), record.split("\n")[0].rstrip("\r"), None
        if file.startswith("file:") and source.format != "json":
            number = _find_line(local_path(uri), source.encoding, line)
        places.append((Path(file).name, number or 0, line[:60] + "..." if len(line) > 60 else line))
    described = [f"{f'line {number} of ' if number else ''}{name} ({line!r})" for name, number, line in sorted(places)]
    unit = "files" if source.format == "json" else "lines"
    hint = ". If a file is one JSON document, pass --format json" if source.format == "jsonl" else ""
    return f"{count:,} {unit} of {source.path} that could not be read: {', '.join(described)}{hint}"


def _find_line(file: Path, encoding: str, line: str) -> int | None:
    """Return the number of the first line with this content, from 1."""
    with OPENERS.get(file.suffix, open)(file, "rt", encoding=encoding, errors="replace") as lines:
        return next((number for number, other in enumerate(lines, 1) if other.rstrip("\r\n") == line), None)


def _warn(message: str) -> None:
    print(f"spark-instructor: warning: {message}", file=sys.stderr)
