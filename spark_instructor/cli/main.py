"""The command line: embed a file or a table with Spark, search what was embedded, and see to models."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..encoder.windows import LONG_TEXT
from ..models.prepared import PRECISIONS, TOKENIZER, cache_dir, list_prepared, read_prepared
from ..models.registry import checkpoint_folder, is_cached, known_models

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ..stages.embeddings import InstructorEmbeddings

DOCUMENT_INSTRUCTION = "Represent the document for retrieval: "
QUESTION_INSTRUCTION = "Represent the question for retrieving supporting documents: "

_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}
_TABLE_NAME = re.compile(r"[\w`]+(\.[\w`]+){0,2}")
_TEXTS_TO_SAMPLE = 500

_EXAMPLES = """\
examples:
  spark-instructor embed passages.jsonl --output embedded.parquet
  spark-instructor embed passages.jsonl --milvus vectors.db --collection passages --id-col id --payload-cols text
  spark-instructor search embedded.parquet "What makes prices rise?"
  spark-instructor prepare hkunlp/instructor-base --precision bfloat16
  spark-submit $(python -c 'import spark_instructor.__main__ as m; print(m.__file__)') embed /data/in /data/out
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 where it did its work, 1 where it failed, which one line on stderr explains, 2 where misused."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if parsed.traceback:
            raise
        print(f"spark-instructor: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    described: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        "spark-instructor", description="INSTRUCTOR embeddings with Apache Spark.", epilog=_EXAMPLES, **described
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str, examples: str) -> argparse.ArgumentParser:
        epilog = "examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  ")
        added = commands.add_parser(name, help=summary, description=f"{summary}.", epilog=epilog, **described)
        added.add_argument("--traceback", action="store_true", help="show where an error comes from")
        added.set_defaults(run=run)
        return added

    embed = command(
        "embed",
        _embed,
        "Embed the texts of Parquet, JSON lines, CSV or a table, with Spark",
        """
        spark-instructor embed passages.jsonl --output embedded.parquet
        spark-instructor embed reviews.csv --text-col body --instruction 'Represent the review for clustering: ' \\
            --model hkunlp/instructor-base --precision bfloat16 --master 'local[*]' --output reviews.parquet
        spark-instructor embed catalog.schema.passages --remote sc://host:15002 \\
            --milvus http://milvus:19530 --collection passages --id-col id --payload-cols text,source
        """,
    )
    embed.add_argument("input", help="file or folder, or the name of a table")
    embed.add_argument(
        "--format", choices=sorted({*_FORMATS.values(), "table"}), help="of the input, where its name does not tell"
    )
    embed.add_argument("--text-col", default="text", help="column of the texts (%(default)s)")
    embed.add_argument("--vector-col", default="vector", help="column that is added (%(default)s)")
    embed.add_argument("--instruction", default=DOCUMENT_INSTRUCTION, help="goes before each text ('%(default)s')")
    _add_model(embed)
    embed.add_argument("--max-length", type=int, help="most tokens read of instruction + text")
    embed.add_argument("--long-text", default="truncate", choices=LONG_TEXT, help="(%(default)s)")
    embed.add_argument("--partitions", type=_positive, help="Spark tasks (default: by the number of rows)")
    session = embed.add_mutually_exclusive_group()
    session.add_argument("--master", help="Spark master (default: spark-submit's, else local[*])")
    session.add_argument("--remote", help="Spark Connect, such as sc://host:15002")
    to = embed.add_mutually_exclusive_group(required=True)
    to.add_argument("--output", help="Parquet folder to write")
    to.add_argument("--milvus", metavar="URI", help="Milvus server, or file.db of milvus-lite, to write to")
    embed.add_argument("--overwrite", action="store_true", help="replace the Parquet folder if it is there")
    embed.add_argument("--collection", help="of Milvus")
    embed.add_argument("--id-col", help="column of the primary key in Milvus")
    embed.add_argument("--payload-cols", default="", help="columns, joined by commas, that go to Milvus too")
    embed.add_argument("--token", default=os.environ.get("MILVUS_TOKEN", ""), help="for Milvus (MILVUS_TOKEN)")
    embed.add_argument(
        "--on-invalid", default="error", choices=("error", "skip"), help="vectors that Milvus cannot use"
    )

    search = command(
        "search",
        _search,
        "Find the rows of an embedded Parquet that are nearest to a question",
        """
        spark-instructor search embedded.parquet "What makes prices rise?"
        spark-instructor search embedded.parquet "a film about the sea" --top 10 \\
            --instruction 'Represent the film description for retrieval: '
        """,
    )
    search.add_argument("input", help="Parquet file or folder with a vector column")
    search.add_argument("question")
    search.add_argument("--top", type=_positive, default=5, help="rows to show (%(default)s)")
    search.add_argument("--vector-col", default="vector", help="(%(default)s)")
    search.add_argument("--instruction", default=QUESTION_INSTRUCTION, help="goes before the question ('%(default)s')")
    _add_model(search, "of the question (default: the file's own)")

    models = command("models", _models, "List the known models and the prepared ones", "spark-instructor models")
    models.add_argument("--json", action="store_true", help="for programs")

    prepare = command(
        "prepare",
        _prepare,
        "Make the prepared folder of a model, for machines without a network",
        """
        spark-instructor prepare hkunlp/instructor-base --precision bfloat16 --into /shared/instructor-base-bf16
        spark-instructor embed in.parquet --model /shared/instructor-base-bf16 --output out.parquet
        """,
    )
    prepare.add_argument("model", help="known name, hub id or folder")
    _add_model_options(prepare)
    prepare.add_argument("--into", help="folder to make (default: in the cache)")
    return parser


def _add_model(parser: argparse.ArgumentParser, note: str = "(default: instructor_base)") -> None:
    parser.add_argument("--model", help=f"known name, hub id or folder {note}")
    _add_model_options(parser)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", help="branch, tag or commit of a hub checkpoint")
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: float32, or a prepared folder's own)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least 1")
    return int(text)


def _embed(arguments: argparse.Namespace) -> None:
    from pyspark.sql import Observation

    from ..incremental import tasks_for
    from ..provenance import with_provenance
    from .progress import progress_bar

    if arguments.milvus is not None and not (arguments.collection and arguments.id_col):
        raise ValueError("--milvus needs --collection and --id-col")
    stage = _stage(arguments)
    dimension = stage.getDimension()  # where there is no such model, it says so before Spark starts
    spark = _session(arguments)
    texts = _read(spark, arguments.input, arguments.format)
    if arguments.output and arguments.overwrite:
        _check_kept(arguments.output, [arguments.input, *map(unquote, texts.inputFiles())])
    rows = texts.count()
    tasks = arguments.partitions or tasks_for(rows)
    observation = Observation()
    embedded = with_provenance(stage.observe(texts.repartition(tasks), observation), stage)
    tokens = _estimated_tokens(texts, stage, rows)
    start = time.perf_counter()
    with progress_bar(spark, rows, tokens, tasks):
        written = _to_milvus(embedded, arguments) if arguments.milvus else _to_parquet(embedded, arguments)
    seconds = time.perf_counter() - start

    found = observation.get
    print(f"Embedded {arguments.input} with {stage.getModel()} in {stage.getPrecision()}: {dimension} floats a text")
    for name in ("rows", "nulls", "tokens", "truncated", "distinct"):
        print(f"  {name:<10}{found[name]:>12,}")
    rates = f"{found['texts'] / seconds:,.1f} texts/s, {found['tokens'] / seconds:,.0f} tokens/s"
    print(f"  {'seconds':<10}{seconds:>12,.1f}   {rates}")
    print(written)


def _stage(arguments: argparse.Namespace) -> InstructorEmbeddings:
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


def _session(arguments: argparse.Namespace) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("spark-instructor embed")
    if arguments.remote:
        return builder.remote(arguments.remote).getOrCreate()
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # under spark-submit, which knows the master and where Python is
        if arguments.master:
            raise ValueError("under spark-submit, give --master to spark-submit, before the script")
    else:
        builder = builder.config("spark.log.level", "ERROR")
        if arguments.master:
            builder = builder.master(arguments.master)
        if (arguments.master or "local").startswith("local"):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


def _read(spark: SparkSession, source: str, kind: str | None) -> DataFrame:
    """The input's rows, by the format that was said or that the name tells."""
    kind = kind or _FORMATS.get(Path(re.sub(r"\.(gz|bz2|zst)$", "", source)).suffix.lower())
    if kind == "table" or (kind is None and _TABLE_NAME.fullmatch(source) and spark.catalog.tableExists(source)):
        return spark.table(source)
    if kind == "csv":
        return spark.read.csv(source, header=True, multiLine=True, quote='"', escape='"')
    return spark.read.format(kind or "parquet").load(source)


def _check_kept(output: str, inputs: list[str]) -> None:
    """ValueError where Spark, which empties the output before it reads, would remove an input."""
    host, folder = _place(output)
    for one in inputs:
        of_host, path = _place(one)
        if path.is_relative_to(folder) and (not host or not of_host or host == of_host):
            raise ValueError(
                f"--overwrite would remove the input {one} with what is in {output}: name another --output"
            )


def _place(path: str) -> tuple[str, Path]:
    """The host or bucket of a path or URI, where it names one, and the absolute path there."""
    uri = re.match(r"[A-Za-z][\w+.-]*:(?://([^/]*))?(/.*)?$", path)
    return (uri[1] or "", Path(os.path.realpath(uri[2] or "/"))) if uri else ("", Path(os.path.realpath(path)))


def _estimated_tokens(texts: DataFrame, stage: InstructorEmbeddings, rows: int) -> float:
    """About how many tokens all rows have, from a few of them; for the progress bar alone."""
    from ..encoder import T5Tokenizer
    from ..stages.annotation import column

    (name,) = stage.getInputCols()
    some = [row[0] or "" for row in texts.select(column(name)).limit(_TEXTS_TO_SAMPLE).collect()]
    tokenizer = T5Tokenizer(stage._prepared().path / TOKENIZER)
    ids = tokenizer.encode([stage.getInstruction() + text for text in some])
    return rows * float(np.mean([min(len(one), stage.getMaxSentenceLength()) for one in ids] or [0]))


def _to_parquet(embedded: DataFrame, arguments: argparse.Namespace) -> str:
    embedded.write.mode("overwrite" if arguments.overwrite else "error").parquet(arguments.output)
    return f"Wrote {arguments.output}"


def _to_milvus(embedded: DataFrame, arguments: argparse.Namespace) -> str:
    from ..milvus.writer import is_file, write_to_milvus

    if is_file(arguments.milvus):
        # A file is written through the driver, a partition at a time; embedding should not wait for that.
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
    left_out = f", left out {counts.nulls:,} nulls and {counts.invalid:,} invalid vectors"
    return f"Wrote {counts.written:,} rows to collection {arguments.collection} of {arguments.milvus}{left_out}"


def _search(arguments: argparse.Namespace) -> None:
    import pyarrow.dataset as ds

    from ..encoder import InstructorModel
    from ..incremental import FINGERPRINT, fingerprint_start
    from ..provenance import provenance

    try:
        dataset = ds.dataset(arguments.input, format="parquet")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file or folder {arguments.input}") from None
    if arguments.vector_col not in dataset.schema.names:
        raise ValueError(
            f"{arguments.input} has no column {arguments.vector_col!r}; it has {', '.join(dataset.schema.names)}"
        )
    made_by = provenance(dataset.schema, arguments.vector_col)
    name = arguments.model or made_by.get("model")
    if name is None:
        raise ValueError(f"{arguments.input} does not say which model embedded it; pass --model")
    revision = arguments.revision or made_by.get("revision")
    precision = arguments.precision or made_by.get("precision", "float32")
    model = InstructorModel.from_pretrained(name, revision, precision)
    if made_by.get("hash", model.prepared.hash) != model.prepared.hash:
        raise ValueError(
            f"{arguments.input} was embedded with {made_by['model']} in {made_by['precision']}, and {name} in "
            f"{precision} is another model now: vectors of two models have nothing to do with each other"
        )
    if FINGERPRINT in dataset.schema.names and _models_of(dataset, FINGERPRINT) - {fingerprint_start(model.prepared)}:
        raise ValueError(
            f"{arguments.input} has rows of more than one model, as an embed_changes that was stopped leaves it, and "
            "their vectors have nothing to do with each other: run embed_changes to its end"
        )
    (question,) = model.encode(arguments.instruction, [arguments.question])
    for rank, (similarity, row) in enumerate(_nearest(dataset, arguments.vector_col, question, arguments.top), 1):
        print(f"{rank:>3}. {similarity:.3f}  " + _shown(row))


def _models_of(dataset: Any, fingerprint: str) -> set[str]:
    """How fingerprints of `embed_changes` begin, one for each model; a column of this name may be another's too."""
    if dataset.schema.field(fingerprint).type != pa.string():
        return set()
    models: set[str] = set()
    for batch in dataset.to_batches(columns=[fingerprint]):
        found = pc.extract_regex(batch.column(0), r"^(?P<model>[0-9a-f]{16}-)[0-9a-f]{64}$")
        models.update(found.drop_null().field("model").unique().to_pylist())
    return models


def _nearest(
    dataset: Any, vector_col: str, question: npt.NDArray[np.float32], top: int
) -> list[tuple[float, dict[str, Any]]]:
    """The rows most similar to a unit vector, best first, without their vectors; a batch in memory at a time."""
    best: list[tuple[float, dict[str, Any]]] = []
    for batch in dataset.to_batches():
        batch = batch.filter(batch.column(vector_col).is_valid())
        if not batch.num_rows:
            continue
        vectors = batch.column(vector_col).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        if vectors.shape[1] != len(question):
            raise ValueError(
                f"the vectors of {vector_col!r} have {vectors.shape[1]} floats, the model's {len(question)}: pass the "
                "--model that embedded them"
            )
        similar = vectors @ question / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        nearest = np.argsort(-similar)[:top]
        rows = batch.drop_columns([vector_col]).take(pa.array(nearest)).to_pylist()
        best = sorted([*best, *zip(similar[nearest].tolist(), rows, strict=True)], key=lambda one: -one[0])[:top]
    return best


def _shown(row: dict[str, Any]) -> str:
    values = (f"{name}: {textwrap.shorten(str(value), 100, placeholder=' ...')}" for name, value in row.items())
    return "\n            ".join(values)


def _models(arguments: argparse.Namespace) -> None:
    prepared = [
        {"path": str(one.path), "precision": one.precision, "megabytes": round(sum(one.sizes.values()) / 1e6)}
        for one in list_prepared()
    ]
    if arguments.json:
        known = [{**dataclasses.asdict(one), "cached": is_cached(one)} for one in known_models()]
        print(json.dumps({"known": known, "prepared": prepared}, indent=2))
        return
    print(f"{'name':<18}{'checkpoint':<26}{'floats':>7}{'MB':>7}  cached")
    for one in known_models():
        cached = "yes" if is_cached(one) else "no"
        print(f"{one.name:<18}{one.source:<26}{one.dimension:>7}{one.size_mb:>7,}  {cached:<8}{one.description}")
    print(f"\nprepared, in {cache_dir()}:" if prepared else f"\nnone is prepared yet in {cache_dir()}")
    for of_model in prepared:
        print(f"  {of_model['precision']:<10}{of_model['megabytes']:>7,} MB  {of_model['path']}")


def _prepare(arguments: argparse.Namespace) -> None:
    from ..encoder import prepare

    folder = checkpoint_folder(arguments.model, arguments.revision)
    model = read_prepared(prepare(folder, arguments.precision or "float32", into=arguments.into))
    megabytes = sum(model.sizes.values()) / 1e6
    print(f"{model.path}\n{model.name} in {model.precision}, {model.dimension} floats a text, {megabytes:,.0f} MB")


def _one_line(error: Exception) -> str:
    """What went wrong, without the stack that Spark and its workers put around it."""
    text = str(error)
    if "JAVA_GATEWAY_EXITED" in text:
        return "Spark did not start: it needs a JDK 17 or later; install one and set JAVA_HOME to its folder"
    raised = re.findall(r"^(?:[\w.]+\.)?(?:\w+(?:Error|Exception)): (.+)", text, re.MULTILINE)
    caused = re.findall(r"^Caused by: [\w.$]+: (.+)", text, re.MULTILINE)
    without_stack = re.split(r"\n\t|JVM stacktrace", text, maxsplit=1)[0]
    return " ".join((raised or caused or [without_stack])[-1].split())
