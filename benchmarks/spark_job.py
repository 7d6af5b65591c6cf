"""Compare the Spark job with the bare encoder and with the pandas UDFs that people write.

python benchmarks/spark_job.py --json spark_job.json

local[N] has N cores for the JVM and its Python workers, which have one thread each, as Spark sets them. The time of a
job starts when its Python workers are warm: they have started, and have loaded the model if the code keeps it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
import numpy.typing as npt
import pandas as pd
import peers
import pyarrow as pa
import pyarrow.parquet as pq
from common import say
from pyspark.sql import DataFrame
from pyspark.sql.functions import pandas_udf

from spark_instructor import InstructorEmbeddings
from spark_instructor.models.prepared import PRECISIONS

TASKS = (1, 2)
LEAST_COSINE = 0.999
CHECKED = 16  # texts that warm up the workers and whose vectors are compared with float64

Embedding = Callable[[DataFrame, str, str], DataFrame]
"""Adds the column ``vector`` to a DataFrame, given the folder of a checkpoint and the instruction."""


_model = None


def naive_udf(df: DataFrame, folder: str, instruction: str) -> DataFrame:
    """Embed as people do first: with a pandas UDF and the model in a global variable."""

    @pandas_udf("array<float>")
    def embed(texts: pd.Series) -> pd.Series:
        global _model  # Spark resets it for each task, as in a notebook
        if _model is None:
            from sentence_transformers import SentenceTransformer

            _model = SentenceTransformer(folder)
            _model.set_pooling_include_prompt(False)
        return pd.Series(list(_model.encode(texts.tolist(), prompt=instruction)))

    return df.withColumn("vector", embed("text"))


def iterator_udf(df: DataFrame, folder: str, instruction: str) -> DataFrame:
    """Embed as people do next: with a pandas UDF over batches that loads the model once per task."""

    @pandas_udf("array<float>")
    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(folder)
        model.set_pooling_include_prompt(False)
        for texts in batches:
            yield pd.Series(list(model.encode(texts.tolist(), prompt=instruction, batch_size=32)))

    return df.withColumn("vector", embed("text"))


def spark_instructor(precision: str, df: DataFrame, folder: str, instruction: str) -> DataFrame:
    """Embed with this package."""
    stage = InstructorEmbeddings(
        model=folder, precision=precision, instruction=instruction, inputCols="text", outputCol="vector"
    )
    return stage.transform(df)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000, help="texts of a job (%(default)s)")
    parser.add_argument("--words", type=int, help="words of each text; by default, passages of all lengths")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind of job (%(default)s)")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    arguments = common.parse(parser)

    cores = common.cores(max(TASKS))
    model = inputs.model(arguments.model)
    texts = (
        inputs.of_words(arguments.words, arguments.texts)
        if arguments.words
        else inputs.text_set("texts", arguments.texts)
    )
    warming = texts._replace(texts=texts.texts[:CHECKED])
    say("Computing the vectors in float64")
    _, expected = common.run_apart(peers.reference, model, warming, on=cores)

    by_hand: dict[str, Embedding] = {"naive UDF": naive_udf, "iterator UDF": iterator_udf}
    ours: dict[str, Embedding] = {
        f"spark_instructor, {precision}": partial(spark_instructor, precision) for precision in arguments.precisions
    }
    bare = {precision: _encoders(model, precision, warming, cores) for precision in arguments.precisions}
    jobs = [(name, tasks, embedding) for name, embedding in ours.items() for tasks in TASKS]
    jobs += [(name, max(TASKS), embedding) for name, embedding in by_hand.items()]

    seconds: dict[str, dict[str, list[float]]] = {}  # of each job or encoder, by the number of tasks or processes

    def took(name: str, tasks: int, time_taken: float) -> None:
        seconds.setdefault(name, {}).setdefault(str(tasks), []).append(time_taken)
        say(f"{name}, {tasks} at once: {time_taken:.1f} s")

    with tempfile.TemporaryDirectory() as folder:
        data = {tasks: Path(folder, str(tasks)) for tasks in TASKS}
        for tasks, path in data.items():
            _write(path / "texts", texts.texts, tasks)
            _write(path / "warming", warming.texts, tasks)
        for turn in range(arguments.rounds):
            say(f"Round {turn + 1}")
            for name, tasks, embedding in jobs:
                time_taken, vectors = common.run_apart(
                    _run_job, embedding, model, texts.instruction, data[tasks], tasks, on=cores[:tasks]
                )
                _check(name, vectors, warming.texts, expected)
                took(name, tasks, time_taken)
            for precision, processes in bare.items():
                for tasks in TASKS:
                    shares = inputs.shares(texts.texts, tasks)
                    running = [
                        one.submit(peers.seconds, texts._replace(texts=share))
                        for one, share in zip(processes, shares, strict=False)  # one process per task
                    ]
                    took(f"bare encoder, {precision}", tasks, max(one.result() for one in running))
    for one in (one for processes in bare.values() for one in processes):
        one.shutdown()
    medians = {
        name: {tasks: statistics.median(of_rounds) for tasks, of_rounds in of_name.items()}
        for name, of_name in seconds.items()
    }
    rows = _compare(medians, list(ours), list(by_hand))
    common.table(
        f"{len(texts.texts):,} texts, median of {arguments.rounds} rounds",
        ["", "tasks", "seconds", "texts/s", "of the bare encoder", "x one task", *(f"x {name}" for name in by_hand)],
        [_cells(row, len(texts.texts), list(by_hand)) for row in rows],
    )
    common.write_json(
        arguments, {"model": model.path.name, "texts": len(texts.texts), "jobs": rows, "seconds": seconds}
    )


def _encoders(
    model: inputs.Model, precision: str, warming: inputs.TextSet, cores: list[int]
) -> list[ProcessPoolExecutor]:
    """Measure the encoder without Spark, warm, in one process per core."""
    processes = [common.process([core]) for core in cores]
    for one in processes:
        one.submit(peers.load, peers.SparkInstructor, model, precision).result()
        one.submit(peers.encode, warming).result()
    return processes


def _write(folder: Path, texts: list[str], tasks: int) -> None:
    """Write the texts as Parquet, one file and therefore one partition of equal work per task."""
    folder.mkdir(parents=True)
    for i, share in enumerate(inputs.shares(texts, tasks)):
        pq.write_table(pa.table({"text": share}), folder / f"{i}.parquet")


def _run_job(
    embedding: Embedding, model: inputs.Model, instruction: str, data: Path, tasks: int
) -> tuple[float, dict[str, list[float]]]:
    """Return the seconds of the job in its own session, and the vectors of the texts that warmed it up."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = common.session(f"local[{tasks}]")

    def embed_file(name: str) -> DataFrame:
        df = session.read.parquet(str(data / name))
        if df.rdd.getNumPartitions() != tasks:
            raise RuntimeError(f"Spark reads {name} in {df.rdd.getNumPartitions()} partitions, expected {tasks}")
        return embedding(df, str(model.path), instruction)

    vectors = {row.text: row.vector for row in embed_file("warming").collect()}
    job = embed_file("texts").write.format("noop").mode("overwrite")
    start = time.perf_counter()
    job.save()
    seconds = time.perf_counter() - start
    session.stop()
    return seconds, vectors


def _check(name: str, vectors: dict[str, list[float]], texts: list[str], expected: npt.NDArray[np.float64]) -> None:
    """Exit if the vectors are not those of float64."""
    least = (np.array([vectors[text] for text in texts]) * expected).sum(axis=1).min()
    if least < LEAST_COSINE:
        raise SystemExit(f"{name}: min cosine to float64 is {least:.6f}, expected at least {LEAST_COSINE}")


def _compare(medians: dict[str, dict[str, float]], ours: list[str], by_hand: list[str]) -> list[dict[str, Any]]:
    """Return one row per job or encoder and number of tasks, with the ratios that are known."""
    rows = []
    for name, of_name in medians.items():
        for tasks, seconds in of_name.items():
            row = {"name": name, "tasks": int(tasks), "seconds": seconds}
            if len(of_name) > 1:
                row["times_one_task"] = of_name["1"] / seconds
            if name in ours:
                row["of_bare_encoder"] = medians[name.replace("spark_instructor", "bare encoder")][tasks] / seconds
                row |= {
                    f"times {other}": medians[other][tasks] / seconds for other in by_hand if tasks in medians[other]
                }
            rows.append(row)
    return rows


def _cells(row: dict[str, Any], texts: int, by_hand: list[str]) -> list[str]:
    ratios = [row.get(key) for key in ("times_one_task", *(f"times {name}" for name in by_hand))]
    bare = row.get("of_bare_encoder")
    return [
        row["name"],
        str(row["tasks"]),
        f"{row['seconds']:.2f}",
        f"{texts / row['seconds']:.1f}",
        "" if bare is None else f"{bare:.1%}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    ]


if __name__ == "__main__":
    main()
