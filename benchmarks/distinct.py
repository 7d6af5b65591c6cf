"""Measure what `InstructorEmbeddings.setDistinct` saves, and what its shuffle and its join cost.

python benchmarks/distinct.py                    # 6,000 texts, of which 0, 37 and 90 % repeat an earlier one

*without the model* is the time of the same job with a constant in place of each vector: what the shuffle and the join
cost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
from common import say
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings
from spark_instructor.stages.distinct import embed_distinct

REPEATS = (0.0, 0.37, 0.9)
ROWS_PER_BATCH = 500  # as on the command line; within a batch, a text that repeats is embedded once anyway


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=6000, help="rows per measurement (%(default)s)")
    parser.add_argument("--model", default="instructor_tiny", help="known name, hub id or folder (%(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="of local[N] (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    arguments.machine = common.machine()

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS_PER_BATCH),
        "spark.sql.shuffle.partitions": str(2 * arguments.cores),
        "spark.sql.autoBroadcastJoinThreshold": "-1",  # as in a large job, whose vectors no machine could hold
    }
    spark = common.session(f"local[{arguments.cores}]", settings)
    stage = InstructorEmbeddings(model=arguments.model, inputCols="text", outputCol="vector")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for repeats in REPEATS:
            texts = write_texts(spark, Path(folder, f"{repeats}"), arguments.texts, repeats)
            stage.setDistinct(False).transform(texts.limit(100)).collect()  # starts the workers
            row: dict[str, Any] = {"repeats": repeats, "seconds": measure(stage.transform(texts))[0]}
            row["distinct_seconds"], row["shuffled_mb"] = measure(stage.setDistinct(True).transform(texts))
            row["constant_seconds"] = measure(join_constants(texts, stage.getDimension()))[0]
            say(str(row))
            rows.append(row)
    spark.stop()
    common.table(
        f"{arguments.texts:,} texts on local[{arguments.cores}], {arguments.model}",
        ["repeats", "seconds", "seconds with distinct", "without the model", "shuffled, MB"],
        [
            (
                f"{row['repeats']:.0%}",
                f"{row['seconds']:.1f}",
                f"{row['distinct_seconds']:.1f}",
                f"{row['constant_seconds']:.1f}",
                f"{row['shuffled_mb']:.1f}",
            )
            for row in rows
        ],
    )
    common.write_json(arguments, {"model": arguments.model, "figures": rows})


def write_texts(spark: SparkSession, folder: Path, count: int, repeats: float) -> DataFrame:
    """Write texts to Parquet in random order, so that those that repeat are far apart, and read them."""
    random = np.random.default_rng(0)
    distinct = inputs.of_words(20, round(count * (1 - repeats))).texts
    texts = [*distinct, *(distinct[i] for i in random.integers(0, len(distinct), count - len(distinct)))]
    order = random.permutation(count)
    rows = [(int(i), texts[i]) for i in order]
    spark.createDataFrame(rows, "id int, text string").repartition(4, "id").write.parquet(str(folder))
    return spark.read.parquet(str(folder))


def join_constants(texts: DataFrame, dimension: int) -> DataFrame:
    """Return what distinct computes, with a constant in place of each vector."""
    constant = F.array_repeat(F.lit(0.5).cast("float"), dimension)
    field = texts.schema["text"]
    return embed_distinct(texts, [field], ["vector"], lambda rows: rows.withColumn("vector", constant), "benchmark")


def measure(df: DataFrame) -> tuple[float, float]:
    """Run a job and return its seconds, and the megabytes that it shuffled."""
    store = df.sparkSession.sparkContext._jsc.sc().statusStore()
    before = _sum_shuffled(store)
    start = time.perf_counter()
    df.write.format("noop").mode("overwrite").save()
    seconds = time.perf_counter() - start
    time.sleep(1)  # until Spark's listeners have caught up
    return seconds, (_sum_shuffled(store) - before) / 1e6


def _sum_shuffled(store: Any) -> int:
    executors = store.executorList(False)
    return sum(executors.apply(i).totalShuffleWrite() for i in range(executors.size()))


if __name__ == "__main__":
    main()
