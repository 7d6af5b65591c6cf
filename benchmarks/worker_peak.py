"""Measure the peak memory of a Python worker of Spark over Arrow batches of many rows, many texts and long texts.

python benchmarks/worker_peak.py --json worker_peak.json
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import common
import inputs
import psutil
from common import say
from peers import SparkInstructor
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings
from spark_instructor.models.prepared import PRECISIONS, WEIGHTS


class Case(NamedTuple):
    """Rows of one partition."""

    shape: str
    """The model's shape, of `inputs.SHAPES`."""
    rows: int
    texts: int
    """The number of texts per row; more than one are annotations."""
    words: int
    distinct: int | None = None
    """The number of different texts; all by default."""


CASES = {
    "10,000 rows": Case("base", 10_000, 1, 4),
    "4,000 rows of 50 sentences": Case("layer", 4_000, 50, 4),
    "10,000 rows of 100 kB": Case("layer", 10_000, 1, 20_000, distinct=500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[*CASES], choices=CASES, metavar="CASE")
    parser.add_argument("--precision", default="bfloat16", choices=PRECISIONS, help="(%(default)s)")
    arguments = common.parse(parser)

    peaks = {name: _measure(CASES[name], arguments.precision) for name in arguments.cases}
    common.table(
        f"Peak memory of a Python worker over one Arrow batch, MB, {arguments.precision}",
        ["", "model", "resident set", "mapped from files", "own"],
        [
            (name, CASES[name].shape, *(f"{of_case[part]:,.0f}" for part in ("peak", "mapped", "own")))
            for name, of_case in peaks.items()
        ],
    )
    common.write_json(arguments, {"peak_mb": peaks})


def _measure(case: Case, precision: str) -> dict[str, float]:
    model = inputs.model(None, case.shape)
    cores = common.cores(2)
    folder = common.run_apart(SparkInstructor.build, model, precision, on=cores)
    return common.run_apart(_run_job, folder, case, on=cores)  # type: ignore[no-any-return]


def _run_job(model: Path, case: Case) -> dict[str, float]:
    """Run a job with one worker in a session of its own, and return the memory of the worker in MB."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {"spark.driver.memory": "6g", "spark.sql.execution.arrow.maxRecordsPerBatch": "10000"}
    session = common.session("local[1]", settings)
    stage = InstructorEmbeddings(model=str(model), instruction=inputs.DOCUMENT_INSTRUCTION, outputCol="vectors")
    frame = _rows(session, case)
    stage.setInputCols("texts" if case.texts > 1 else "text")
    stage.transform(frame).write.format("noop").mode("overwrite").save()
    status = _find_worker_status()
    say(f"{case}: {status}")
    session.stop()
    return status


def _rows(session: SparkSession, case: Case) -> DataFrame:
    rows = session.range(case.rows, numPartitions=1)
    if case.texts == 1:
        return rows.select(_text(F.col("id") % (case.distinct or case.rows), case.words).alias("text"))
    numbers = F.sequence(F.col("id") * case.texts, F.col("id") * case.texts + case.texts - 1)
    sentences = F.transform(numbers, lambda number: _text(number, case.words))
    documents = DocumentAssembler(inputCol="sentences", outputCol="texts")
    return documents.transform(rows.select(sentences.alias("sentences"))).select("texts")


def _text(number: Column, words: int) -> Column:
    """Return a text that begins with the number."""
    return F.concat(number.cast("string"), F.repeat(F.lit(" what"), words))


def _find_worker_status() -> dict[str, float]:
    """Return the memory of the only Python worker, in MB."""
    for process in psutil.Process().children(recursive=True):
        if WEIGHTS in Path(f"/proc/{process.pid}/maps").read_text():
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            peak, mapped, own = (int(fields[name].split()[0]) / 1e3 for name in ("VmHWM", "RssFile", "RssAnon"))
            return {"peak": peak, "mapped": mapped, "own": own}
    raise RuntimeError("found no Python worker that has mapped the model")


if __name__ == "__main__":
    main()
