"""``spark-instructor embed``: embed files or a table with Spark."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .inputs import Source
from .session import UNFINISHED, cancel_jobs, delete_unfinished, runs_here, start_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ..stages.embeddings import InstructorEmbeddings
    from ..stages.splitter import DocumentTokenSplitter


class UnfinishedError(Exception):
    """A job of Spark failed; the message says what it left behind and how to go on, the cause says why."""


def run_embed(arguments: argparse.Namespace) -> None:
    """Embed the input, write the output and print a summary."""
    _check_arguments(arguments)
    is_local = runs_here(arguments)
    source = Source.find(
        arguments.input,
        arguments.format,
        text_col=arguments.text_col,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        whole_files=arguments.whole_files,
        is_local=is_local,
    )
    # Spark takes long to start, so everything that can be checked without it comes first.
    source.check_files()
    if is_local and arguments.output and not (arguments.overwrite or arguments.key):
        _check_output(arguments.output)
    stage = _create_stage(arguments)
    dimension = stage.getDimension()
    splitter = _create_splitter(arguments, stage) if arguments.split else None
    spark = start_session(arguments)
    try:
        summary = _embed(spark, source, stage, splitter, arguments)
    except KeyboardInterrupt as stop:
        cancel_jobs(spark)
        raise type(stop)(_describe_rest(arguments)) from None
    done = "Estimate for" if arguments.estimate else "Embedded"
    print(f"{done} {arguments.input} with {stage.getModel()} in {stage.getPrecision()}: {dimension} floats per text")
    print(summary)


def _embed(
    spark: SparkSession,
    source: Source,
    stage: InstructorEmbeddings,
    splitter: DocumentTokenSplitter | None,
    arguments: argparse.Namespace,
) -> str:
    """Read, split, embed and write the rows, and return the counts and what was written."""
    from .rows import CHUNK, check_rows, read_rows, split_rows

    rows = read_rows(spark, source)
    if arguments.output and arguments.overwrite:
        _check_overwrite(arguments.output, [arguments.input, *map(unquote, rows.inputFiles())])
    (text,), _ = stage.check_columns(rows)
    texts, count = check_rows(source, rows, text, skip_bad_lines=arguments.bad_lines == "skip")
    keys = arguments.key or []
    try:
        if splitter is not None:
            texts = split_rows(texts, text, splitter)
            keys = [*keys, CHUNK] if keys else []
            count = texts.count()  # takes little time in comparison, and the progress needs it
            if not count:
                raise ValueError(f"there is nothing to embed: all texts of {arguments.input} are null, empty or blank")
        if arguments.estimate:
            return str(stage.estimate(texts, rows=count))
        if keys:
            return _update(spark, stage, texts, keys, arguments)
        return _write(spark, stage, texts, count, arguments)
    except (ValueError, TypeError, OSError):  # from the driver's own checks
        raise
    except Exception as error:
        raise UnfinishedError(_describe_rest(arguments)) from error


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.milvus is not None and not (arguments.collection and arguments.id_col):
        raise ValueError("--milvus needs --collection and --id-col")
    for name in ("collection", "id_col", "payload_cols", "token", "on_invalid"):
        if arguments.milvus is None and getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} needs --milvus")
    if arguments.milvus and arguments.overwrite:
        raise ValueError(
            "--milvus replaces the rows with the same ids and keeps all others, so --overwrite cannot be combined "
            "with it"
        )
    if arguments.split and arguments.milvus:
        raise ValueError(
            "--split gives the rows of one document the same --id-col, but Milvus needs an id per row. Write them with "
            "--output, add an id made of the key and the chunk, and call write_to_milvus"
        )
    if arguments.table and not arguments.key:
        raise ValueError("--table needs --key, the columns that identify a row")
    if (arguments.provider or arguments.delete_absent) and not arguments.table:
        raise ValueError("--provider and --delete-absent need a --table")
    if arguments.estimate and (arguments.key or arguments.overwrite):
        raise ValueError("--estimate writes nothing, so --key and --overwrite cannot be combined with it")
    for name, value in (("--overwrite", arguments.overwrite), ("--milvus", arguments.milvus)):
        if arguments.key and value:
            raise ValueError(f"--key keeps the rows that the output already has, so {name} cannot be combined with it")
    if arguments.key and arguments.partitions:
        raise ValueError(
            "--key sets the number of tasks by the number of rows to embed, so --partitions cannot be combined with it"
        )


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


def _create_splitter(arguments: argparse.Namespace, stage: InstructorEmbeddings) -> DocumentTokenSplitter:
    from ..stages.splitter import DocumentTokenSplitter

    num_tokens, token_overlap = arguments.split
    splitter = DocumentTokenSplitter.from_embeddings(stage).setNumTokens(num_tokens).setTokenOverlap(token_overlap)
    splitter.getNumTokens()  # raises now if the limits contradict each other
    return splitter.setInputCols(arguments.text_col)


def _write(
    spark: SparkSession, stage: InstructorEmbeddings, texts: DataFrame, rows: int, arguments: argparse.Namespace
) -> str:
    """Embed all rows, write them, and return the counts and what was written."""
    from pyspark.sql import Observation

    from ..incremental import count_tasks
    from ..progress_bar import progress

    observation = Observation()
    embedded = stage.observe(texts.repartition(arguments.partitions or count_tasks(rows)), observation)
    start = time.perf_counter()
    with progress(rows):
        outcome = _write_milvus(embedded, arguments) if arguments.milvus else _write_parquet(spark, embedded, arguments)
    seconds = time.perf_counter() - start
    counts = observation.get
    lines = [
        _format_count(name, counts[name]) for name in ("rows", "nulls", "tokens", "unknown", "truncated", "distinct")
    ]
    rates = f"{counts['texts'] / seconds:,.1f} texts/s, {counts['tokens'] / seconds:,.0f} tokens/s"
    return "\n".join([*lines, f"  {'seconds':<10}{seconds:>12,.1f}   {rates}", outcome])


def _update(
    spark: SparkSession, stage: InstructorEmbeddings, texts: DataFrame, keys: list[str], arguments: argparse.Namespace
) -> str:
    """Embed the rows that the output lacks, write them, and return the counts and what was written."""
    from ..fingerprints import rows_to_embed
    from ..incremental import embed_changes, read_target
    from ..progress_bar import progress
    from ..tables import embed_table, read_table

    start = time.perf_counter()
    table, output = arguments.table, arguments.table or arguments.output
    before = read_table(spark, table) if table else read_target(spark, output)
    with progress(rows_to_embed(texts, before, keys, stage).count()):
        if table:
            changes = embed_table(
                texts, table, keys, stage, provider=arguments.provider, delete_absent=arguments.delete_absent
            )
        else:
            changes = embed_changes(texts, output, keys, stage)
    seconds = time.perf_counter() - start
    lines = [_format_count(name, getattr(changes, name)) for name in ("new", "changed", "unchanged", "absent")]
    rate = (changes.new + changes.changed) / seconds
    return "\n".join([*lines, f"  {'seconds':<10}{seconds:>12,.1f}   {rate:,.1f} texts/s", f"Wrote {output}"])


def _format_count(name: str, count: int) -> str:
    return f"  {name:<10}{count:>12,}"


def _check_output(output: str) -> None:
    """Raise FileExistsError if a local output exists already, unless an interrupted run left it without data."""
    path = Path(output.removeprefix("file:"))
    if path.exists() and not (path.is_dir() and {child.name for child in path.iterdir()} <= {UNFINISHED}):
        raise FileExistsError(_describe_existing(output))


def _describe_existing(output: str) -> str:
    return f"{output} exists already: name another --output, or pass --overwrite to replace it"


def _describe_rest(arguments: argparse.Namespace) -> str:
    """Return what a job that did not finish leaves behind, and how to go on."""
    if arguments.estimate:
        return "Nothing was written"
    if arguments.milvus:
        return (
            f"Some rows may be in the collection {arguments.collection}. Run the same command again: it replaces rows "
            "with the same ids"
        )
    if arguments.table:
        return (
            f"What is finished is kept beside the table {arguments.table}. Run the same command again: it embeds only "
            "what is missing"
        )
    if arguments.key:
        return f"What is finished is in {arguments.output}. Run the same command again: it embeds only what is missing"
    return (
        f"{arguments.output} was not written. Run the same command again, or add --key COLUMN, the key of the rows: "
        "then a run that is interrupted keeps what is finished, and the next one continues"
    )


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


def _write_parquet(spark: SparkSession, embedded: DataFrame, arguments: argparse.Namespace) -> str:
    from pyspark.errors import AnalysisException

    delete_unfinished(spark, arguments.output)
    try:
        embedded.write.mode("overwrite" if arguments.overwrite else "error").parquet(arguments.output)
    except AnalysisException as error:
        if "PATH_ALREADY_EXISTS" in str(error):
            raise FileExistsError(_describe_existing(arguments.output)) from error
        raise
    return f"Wrote {arguments.output}"


def _write_milvus(embedded: DataFrame, arguments: argparse.Namespace) -> str:
    from ..milvus.client import is_milvus_lite
    from ..milvus.writer import prepare_collection, write_to_milvus

    target = (arguments.milvus, arguments.collection, arguments.id_col, arguments.vector_col)
    token = os.environ.get("MILVUS_TOKEN", "") if arguments.token is None else arguments.token
    options: dict[str, Any] = {"payload_cols": arguments.payload_cols or (), "token": token}
    if is_milvus_lite(arguments.milvus):
        prepare_collection(embedded, *target, **options)  # finds mistakes before anything is embedded
        # The driver writes a file, one partition at a time, and the embedding should not wait for that.
        embedded = embedded.persist()
        embedded.count()
    counts = write_to_milvus(embedded, *target, **options, on_invalid=arguments.on_invalid or "error")
    skipped = f"skipped {counts.nulls:,} nulls and {counts.invalid:,} invalid rows"
    return f"Wrote {counts.written:,} rows to collection {arguments.collection} of {arguments.milvus}, {skipped}"
