"""The commands, their arguments, and one line per error."""

from __future__ import annotations

import argparse
import codecs
import re
import sys
import textwrap
from typing import Any

from .. import __version__
from ..encoder.windows import LONG_TEXT
from ..models.prepared import PRECISIONS
from .embed import UnfinishedError, run_embed
from .inputs import FORMATS
from .models import run_models, run_package, run_prepare
from .search import run_search
from .session import Terminated, catch_signals

_DOCUMENT_INSTRUCTION = "Represent the document for retrieval: "
_QUESTION_INSTRUCTION = "Represent the question for retrieving supporting documents: "

_EXAMPLES = """\
examples:
  spark-instructor embed passages.jsonl --model instructor_tiny --output embedded.parquet
  spark-instructor embed passages.jsonl --milvus vectors.db --collection passages --id-col id --payload-cols text
  spark-instructor search embedded.parquet "What makes prices rise?"
  spark-instructor prepare hkunlp/instructor-base --precision bfloat16
  spark-instructor package hkunlp/instructor-base --precision bfloat16
  spark-submit $(python -c 'import spark_instructor.__main__ as m; print(m.__file__)') embed /data/in.parquet \\
      --output /data/out
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code.

    The code is 0 after success, 1 after an error, which one line on stderr explains, 130 after Ctrl-C and 143 after
    SIGTERM. A command line that cannot be parsed ends the process with code 2.
    """
    parser = _create_parser()
    parsed = parser.parse_args(arguments)
    if parsed.run is None:
        parser.exit(2, parser.format_help())
    try:
        with catch_signals():
            parsed.run(parsed)
    except KeyboardInterrupt as stop:
        is_terminated = isinstance(stop, Terminated)
        how = "terminated" if is_terminated else "interrupted"
        print(f"\nspark-instructor: {how}. {stop}".rstrip(), file=sys.stderr)
        return 143 if is_terminated else 130
    except Exception as error:
        if parsed.traceback:
            raise
        print(f"spark-instructor: {_summarize(error)}", file=sys.stderr)
        return 1
    return 0


def _create_parser() -> argparse.ArgumentParser:
    formatter: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        "spark-instructor", description="INSTRUCTOR embeddings with Apache Spark.", epilog=_EXAMPLES, **formatter
    )
    parser.add_argument("--version", action="version", version=f"spark-instructor {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add_command(name: str, run: Any, summary: str, examples: str) -> argparse.ArgumentParser:
        epilog = "examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  ")
        command = commands.add_parser(name, help=summary, description=f"{summary}.", epilog=epilog, **formatter)
        command.add_argument("--traceback", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=run)
        return command

    embed = add_command(
        "embed",
        run_embed,
        "Embed the texts of files or of a table with Spark",
        """
        spark-instructor embed passages.jsonl --model instructor_tiny --output embedded.parquet
        spark-instructor embed passages.jsonl --key id --output embedded.parquet  # call it again if it is interrupted
        spark-instructor embed passages.jsonl --key id --table catalog.schema.vectors --provider delta
        spark-instructor embed letters/ --format text --whole-files --encoding latin-1 --output letters.parquet
        spark-instructor embed books/ --format text --whole-files --split 256:32 --output books.parquet
        spark-instructor embed reviews.csv --text-col body --instruction 'Represent the review for clustering: ' \\
            --model hkunlp/instructor-base --precision bfloat16 --master 'local[*]' --output reviews.parquet
        spark-instructor embed catalog.schema.passages --remote sc://host:15002 \\
            --milvus http://milvus:19530 --collection passages --id-col id --payload-cols text,source
        """,
    )
    embed.add_argument("input", help="file, folder, pattern such as 'data/*.jsonl', URI, or name of a table")
    embed.add_argument(
        "--format", choices=sorted({*FORMATS.values(), "table"}), help="format of the input (default: by its name)"
    )
    embed.add_argument("--delimiter", help="delimiter of the columns of CSV (default: a comma; a tab for .tsv)")
    embed.add_argument(
        "--encoding", default="utf-8", type=_parse_encoding, help="encoding of CSV, JSON and text files (%(default)s)"
    )
    embed.add_argument("--whole-files", action="store_true", help="one row per text file (default: one row per line)")
    embed.add_argument(
        "--bad-lines",
        default="fail",
        choices=("fail", "skip"),
        help="what to do with lines that cannot be read (%(default)s)",
    )
    embed.add_argument("--text-col", default="text", help="column of the texts (%(default)s)")
    embed.add_argument("--vector-col", default="vector", help="column to add (%(default)s)")
    embed.add_argument(
        "--instruction", default=_DOCUMENT_INSTRUCTION, help="instruction that precedes each text ('%(default)s')"
    )
    _add_model(embed)
    embed.add_argument("--max-length", type=int, help="maximum number of tokens per text, including the instruction")
    embed.add_argument(
        "--long-text", default="truncate", choices=LONG_TEXT, help="what to do with longer texts (%(default)s)"
    )
    embed.add_argument(
        "--split",
        type=_parse_split,
        metavar="TOKENS[:OVERLAP]",
        help="split each text into chunks of at most TOKENS tokens that repeat up to OVERLAP tokens of the previous "
        "chunk; write one row per chunk",
    )
    embed.add_argument("--partitions", type=_parse_positive, help="number of Spark tasks (default: by number of rows)")
    session = embed.add_mutually_exclusive_group()
    session.add_argument("--master", help="Spark master (default: that of spark-submit, else local[*])")
    session.add_argument("--remote", help="Spark Connect server, such as sc://host:15002")
    output = embed.add_mutually_exclusive_group(required=True)
    output.add_argument("--output", help="Parquet folder to write")
    output.add_argument("--table", help="Delta or Iceberg table to create or to update; it needs --key")
    output.add_argument(
        "--estimate", action="store_true", help="write nothing: embed a sample, and print what the whole would cost"
    )
    output.add_argument("--milvus", metavar="URI", help="Milvus server or milvus-lite file (x.db) to write to")
    embed.add_argument(
        "--key",
        type=_parse_names,
        metavar="COLUMN",
        help="key of the rows (columns, separated by commas): embed only rows that the output lacks",
    )
    embed.add_argument("--provider", help="format of a new --table, such as delta (default: that of its catalog)")
    embed.add_argument("--delete-absent", action="store_true", help="delete the rows that only the --table has")
    embed.add_argument("--overwrite", action="store_true", help="replace the Parquet folder if it exists")
    embed.add_argument("--collection", help="collection in Milvus")
    embed.add_argument("--id-col", help="column of the primary key in Milvus")
    embed.add_argument(
        "--payload-cols", type=_parse_names, help="other columns to write to Milvus, separated by commas"
    )
    embed.add_argument("--token", help="token for Milvus (default: MILVUS_TOKEN)")
    embed.add_argument(
        "--on-invalid",
        choices=("error", "skip"),
        help="what to do with a row that Milvus cannot store (default: error)",
    )

    search = add_command(
        "search",
        run_search,
        "Find the rows of an embedded Parquet that are nearest to a question",
        """
        spark-instructor search embedded.parquet "What makes prices rise?"
        spark-instructor search embedded.parquet "a film about the sea" --k 10 \\
            --instruction 'Represent the film description for retrieval: '
        """,
    )
    search.add_argument("input", help="Parquet file or folder with a column of vectors")
    search.add_argument("question", nargs="+", help="the words of the question, with or without quotation marks")
    search.add_argument("--k", type=_parse_positive, default=5, help="maximum number of rows to show (%(default)s)")
    search.add_argument("--vector-col", default="vector", help="column of the vectors (%(default)s)")
    search.add_argument(
        "--instruction", default=_QUESTION_INSTRUCTION, help="instruction that precedes the question ('%(default)s')"
    )
    _add_model(search, "(default: the model that embedded the file)")

    models = add_command(
        "models",
        run_models,
        "List the known, the installed and the prepared models",
        """
        spark-instructor models
        spark-instructor models --clean
        """,
    )
    action = models.add_mutually_exclusive_group()
    action.add_argument("--json", action="store_true", help="print JSON")
    action.add_argument(
        "--clean",
        action="store_true",
        help="delete the copies of models that executors keep on this machine, unless a process uses them",
    )

    prepare = add_command(
        "prepare",
        run_prepare,
        "Prepare a model in advance, for machines without a network",
        """
        spark-instructor prepare hkunlp/instructor-base --precision bfloat16 --into /shared/instructor-base-bf16
        spark-instructor embed in.parquet --model /shared/instructor-base-bf16 --output out.parquet
        """,
    )
    prepare.add_argument("model", help="known name, hub id or folder")
    _add_model_options(prepare)
    prepare.add_argument("--into", help="folder to create (default: in the cache)")

    package = add_command(
        "package",
        run_package,
        "Build a wheel of a model, so that Spark does not have to send the model to the workers",
        """
        spark-instructor package hkunlp/instructor-base --precision bfloat16
        pip install dist/spark_instructor_instructor_base-*.whl
        """,
    )
    package.add_argument("model", help="known name, hub id or folder")
    _add_model_options(package)
    package.add_argument("--output", default="dist", help="folder for the wheel (%(default)s)")
    return parser


def _add_model(parser: argparse.ArgumentParser, default: str = "(default: instructor_base)") -> None:
    parser.add_argument("--model", help=f"known name, hub id or folder {default}")
    _add_model_options(parser)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the hub")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="(default: float32, or the precision of a prepared folder)"
    )


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least 1")
    return int(text)


def _parse_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r}, expected names of columns, separated by commas")
    return names


def _parse_split(text: str) -> tuple[int, int]:
    """Return the number of tokens per chunk and the overlap; the splitter checks them."""
    tokens, _, overlap = text.partition(":")
    if not tokens.isdecimal() or not (overlap or "0").isdecimal() or text.endswith(":"):
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected the number of tokens per chunk, and an overlap after a colon if you want one: 256 or "
            "256:32"
        )
    return int(tokens), int(overlap or "0")


def _parse_encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name.removesuffix("-sig")  # a byte order mark is left out in any case
    except LookupError:
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected the name of an encoding such as utf-8 or latin-1"
        ) from None


def _summarize(error: BaseException) -> str:
    """Return what went wrong in one line, without the stack traces that Spark and its workers add."""
    if isinstance(error, UnfinishedError) and error.__cause__ is not None:
        return f"{_summarize(error.__cause__).rstrip('.')}. {error}"
    text = str(error)
    if re.search("No space left on device|Disk quota exceeded", text):
        return "a disk is full, that of the output or that of Spark's temporary files (SPARK_LOCAL_DIRS)"
    if "JAVA_GATEWAY_EXITED" in text:
        return "Spark did not start: it needs a JDK 17 or later; install one and set JAVA_HOME to its folder"
    python_errors = re.findall(r"^(?:[\w.]+\.)?(?:\w+(?:Error|Exception)): (.+)", text, re.MULTILINE)
    java_causes = re.findall(r"^Caused by: [\w.$]+: (.+)", text, re.MULTILINE)
    without_stack = re.split(r"\n\t|JVM stacktrace", text, maxsplit=1)[0]
    return " ".join((python_errors or java_causes or [without_stack])[-1].split())
