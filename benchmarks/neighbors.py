"""Measure an exact search among many vectors: `nearest` against Spark's own join, on one machine.

python benchmarks/neighbors.py                                  # 1 million passages x 1,000 queries, minutes
python benchmarks/neighbors.py --passages 20000 --join          # also Spark's nearestByJoin (Spark 4.2), which is slow
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import common
import gemm
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import say
from pyspark.sql import DataFrame, SparkSession

from spark_instructor import cosine_similarity, nearest
from spark_instructor.vectors import build_cells, describe_type, encode_vectors

DIMENSION = 384
FILES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--cores", type=int, default=2, help="of local[N] (%(default)s)")
    parser.add_argument(
        "--output-type", default="float", help="of the passages: float, half, int8 or binary (%(default)s)"
    )
    parser.add_argument("--join", action="store_true", help="also measure nearestByJoin with the cosine")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    arguments.machine = common.machine()

    passage_count, query_count, cores = arguments.passages, arguments.queries, arguments.cores
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    peak = common.run_apart(gemm.peak, "float32", on=common.cores(1)) * 1e9
    spark = common.session(f"local[{cores}]")
    with tempfile.TemporaryDirectory() as folder:
        passages = write_vectors(spark, Path(folder, "passages"), "passage_id", passage_count, arguments.output_type)
        queries = write_vectors(spark, Path(folder, "queries"), "query_id", query_count, "float")
        queries = queries.withColumnRenamed("vector", "asked")
        found = {"nearest": nearest(queries, passages, arguments.k, query_vector="asked")}
        if arguments.join:
            similarity = cosine_similarity(queries.asked, passages.vector)
            joined = queries.nearestByJoin(passages, similarity, arguments.k, "exact", "similarity")
            found["nearestByJoin"] = joined.drop("asked", "vector")
        rows, figures = [], {}
        for name, df in found.items():
            seconds, megabytes = measure_job(df)
            share = 2 * DIMENSION * passage_count * query_count / seconds / (peak * cores)
            say(f"{name}: {seconds:.1f} s")
            rows.append((name, f"{seconds:.1f}", f"{megabytes:,.0f}", f"{share:.0%}"))
            figures[name] = {"seconds": seconds, "peak_mb": megabytes, "share_of_gemm_peak": share}
    spark.stop()
    common.table(
        f"{query_count:,} queries among {passage_count:,} vectors of {DIMENSION} floats, {arguments.output_type}, "
        f"on local[{cores}]",
        ["", "seconds", "largest Python worker, MB", "share of the GEMM peak"],
        rows,
    )
    common.write_json(arguments, {"gemm_flops_per_core": peak, **figures})


def write_vectors(spark: SparkSession, folder: Path, id_column: str, count: int, output_type: str) -> DataFrame:
    """Write random unit vectors to a Parquet folder, a file at a time, and read it."""
    folder.mkdir()
    random = np.random.default_rng(count)
    for file in range(FILES):
        ids = np.arange(file * count // FILES, (file + 1) * count // FILES)
        vectors = random.standard_normal((len(ids), DIMENSION), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        cells = build_cells(encode_vectors(vectors, output_type), np.full(len(ids), True))
        pq.write_table(pa.table({id_column: ids, "vector": cells}), folder / f"{file}.parquet")
    metadata = {"dimension": DIMENSION, **describe_type(output_type)}
    return spark.read.parquet(str(folder)).withMetadata("vector", metadata)


def measure_job(df: DataFrame) -> tuple[float, float]:
    """Run a job and return its seconds, and the peak of the memory of its largest Python worker in MB (RSS)."""
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "pyspark.daemon" in process.cmdline():
                        largest = max(largest, process.memory_info().rss)
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        df.write.format("noop").mode("overwrite").save()
    finally:
        done.set()
        watcher.join()
    return time.perf_counter() - start, largest / 1e6


if __name__ == "__main__":
    main()
