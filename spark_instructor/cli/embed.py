"""``spark-instructor embed``: embed a file or a table with Spark."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from ..models.prepared import TOKENIZER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ..stages.embeddings import InstructorEmbeddings

FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}
"""Format of an input by the suffix of its name."""

_TABLE_NAME = re.compile(r"[\w`]+(\.[\w`]+){0,2}")
_SAMPLE_SIZE = 500


def run_embed(arguments: argparse.Namespace) -> None:
    """Embed the input, write the output and print a summary."""
    from pyspark.sql import Observation

    from ..incremental import count_tasks
    from .progress import show_progress

    if arguments.milvus is not None and not (arguments.collection and arguments.id_col):
        raise ValueError("--milvus needs --collection and --id-col")
    stage = _create_stage(arguments)
    dimension = stage.getDimension()  # if there is no such model, this says so before Spark starts
    spark = _start_session(arguments)
    texts = _read_input(spark, arguments.input, arguments.format)
    if arguments.output and arguments.overwrite:
        _check_overwrite(arguments.output, [arguments.input, *map(unquote, texts.inputFiles())])
    rows = texts.count()
    tasks = arguments.partitions or count_tasks(rows)
    observation = Observation()
    embedded = stage.observe(texts.repartition(tasks), observation)
    tokens = _estimate_tokens(texts, stage, rows)
    start = time.perf_counter()
    with show_progress(spark, rows, tokens, tasks):
        outcome = _write_milvus(embedded, arguments) if arguments.milvus else _write_parquet(embedded, arguments)
    seconds = time.perf_counter() - start

    counts = observation.get
    print(f"Embedded {arguments.input} with {stage.getModel()} in {stage.getPrecision()}: {dimension} floats per text")
    for name in ("rows", "nulls", "tokens", "truncated", "distinct"):
        print(f"  {name:<10}{counts[name]:>12,}")
    rates = f"{counts['texts'] / seconds:,.1f} texts/s, {counts['tokens'] / seconds:,.0f} tokens/s"
    print(f"  {'seconds':<10}{seconds:>12,.1f}   {rates}")
    print(outcome)


def _create_stage(arguments: argparse.Namespace) -> InstructorEmbeddings:
    from ..stages.embeddings import InstructorEmbeddings

    return InstructorEmbeddings(
        model=arguments.model,
        revision=arguments.revision,
        precision=arguments.precision,
        instruction=arguments.instruction,
        inputCols=arguments.text_col,
        outputCol=arguments.vector_col,
        maxSentenceLength=arguments.max_length,
        longText=arguments.long_text,
    )


def _start_session(arguments: argparse.Namespace) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("spark-instructor embed")
    if arguments.remote:
        return builder.remote(arguments.remote).getOrCreate()
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit started this process and has chosen master and Python
        if arguments.master:
            raise ValueError("if you use spark-submit, pass --master to spark-submit, before the script")
    else:
        builder = builder.config("spark.log.level", "ERROR")
        if arguments.master:
            builder = builder.master(arguments.master)
        if (arguments.master or "local").startswith("local"):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


def _read_input(spark: SparkSession, source: str, format_: str | None) -> DataFrame:
    """Read the input in the given format, or in the format that its name implies."""
    format_ = format_ or FORMATS.get(Path(re.sub(r"\.(gz|bz2|zst)$", "", source)).suffix.lower())
    if format_ == "table" or (format_ is None and _TABLE_NAME.fullmatch(source) and spark.catalog.tableExists(source)):
        return spark.table(source)
    if format_ == "csv":
        return spark.read.csv(source, header=True, multiLine=True, quote='"', escape='"')
    return spark.read.format(format_ or "parquet").load(source)


def _check_overwrite(output: str, inputs: list[str]) -> None:
    """Raise ValueError if Spark, which clears the output before it reads, would delete an input."""
    output_host, output_path = _split_host(output)
    for input_ in inputs:
        host, path = _split_host(input_)
        if path.is_relative_to(output_path) and (not output_host or not host or output_host == host):
            raise ValueError(f"--overwrite would delete the input {input_} with {output}: choose another --output")


def _split_host(path: str) -> tuple[str, Path]:
    """Return the host or bucket of a path or URI ("" if it names none), and the absolute path there."""
    uri = re.match(r"[A-Za-z][\w+.-]*:(?://([^/]*))?(/.*)?$", path)
    return (uri[1] or "", Path(os.path.realpath(uri[2] or "/"))) if uri else ("", Path(os.path.realpath(path)))


def _estimate_tokens(texts: DataFrame, stage: InstructorEmbeddings, rows: int) -> float:
    """Estimate the number of tokens of all rows from a few of them. Only the progress bar uses it."""
    from ..columns import column
    from ..encoder import T5Tokenizer

    (name,) = stage.getInputCols()
    sample = [row[0] or "" for row in texts.select(column(name)).limit(_SAMPLE_SIZE).collect()]
    tokenizer = T5Tokenizer(stage.prepare_model().path / TOKENIZER)
    encoded = tokenizer.encode([stage.getInstruction() + text for text in sample])
    return rows * float(np.mean([min(len(ids), stage.getMaxSentenceLength()) for ids in encoded] or [0]))


def _write_parquet(embedded: DataFrame, arguments: argparse.Namespace) -> str:
    embedded.write.mode("overwrite" if arguments.overwrite else "error").parquet(arguments.output)
    return f"Wrote {arguments.output}"


def _write_milvus(embedded: DataFrame, arguments: argparse.Namespace) -> str:
    from ..milvus.client import is_milvus_lite
    from ..milvus.writer import write_to_milvus

    if is_milvus_lite(arguments.milvus):
        # The driver writes a file, one partition at a time, and the embedding should not wait for that.
        embedded = embedded.persist()
        embedded.count()
    counts = write_to_milvus(
        embedded,
        arguments.milvus,
        arguments.collection,
        arguments.id_col,
        arguments.vector_col,
        payload_cols=[name for name in arguments.payload_cols.split(",") if name],
        token=arguments.token,
        on_invalid=arguments.on_invalid,
    )
    skipped = f"skipped {counts.nulls:,} nulls and {counts.invalid:,} invalid rows"
    return f"Wrote {counts.written:,} rows to collection {arguments.collection} of {arguments.milvus}, {skipped}"
