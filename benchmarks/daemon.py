"""Measure the first job and the memory of Python workers, with Spark's daemon and with spark_instructor's.

python benchmarks/daemon.py --json daemon.json
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import common
import inputs
import psutil
from common import say
from peers import SparkInstructor
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings
from spark_instructor.daemon import PRELOAD
from spark_instructor.models.prepared import PRECISIONS, WEIGHTS

DAEMONS = {
    "Spark's daemon": ("pyspark.daemon", False),
    "spark_instructor.daemon": ("spark_instructor.daemon", False),
    f"the same with {PRELOAD}": ("spark_instructor.daemon", True),
}
TEXTS_PER_WORKER = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8], help="(%(default)s)")
    parser.add_argument("--precision", default="bfloat16", choices=PRECISIONS, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="jobs of each kind (%(default)s)")
    arguments = common.parse(parser)

    cores = sorted(os.sched_getaffinity(0))
    model = inputs.model(arguments.model)
    folder = common.run_apart(SparkInstructor.build, model, arguments.precision, on=cores)
    rounds: dict[str, dict[int, list[dict[str, float]]]] = {name: {} for name in DAEMONS}
    for turn in range(arguments.rounds):
        for workers in arguments.workers:
            for name, (module, with_model) in DAEMONS.items():
                measured = common.run_apart(_run_job, folder, workers, module, with_model, on=cores)
                rounds[name].setdefault(workers, []).append(measured)
                say(f"Round {turn + 1}: {name}, {workers} workers: {measured}")
    medians = {
        name: {
            workers: {key: statistics.median(one[key] for one in of_rounds) for key in of_rounds[0]}
            for workers, of_rounds in of_name.items()
        }
        for name, of_name in rounds.items()
    }
    for key, title in (
        ("seconds", "First job, seconds"),
        ("private", "Private memory per worker, MB"),
        ("together", "All workers and the daemon together (PSS), MB"),
    ):
        common.table(
            f"{title}, {arguments.precision}, median of {arguments.rounds}, {len(cores)} cores",
            ["", *(f"local[{workers}]" for workers in arguments.workers)],
            [
                (name, *(f"{one[key]:,.1f}" if key == "seconds" else f"{one[key]:,.0f}" for one in of_name.values()))
                for name, of_name in medians.items()
            ],
        )
    common.write_json(arguments, {"model": model.path.name, "medians": medians, "rounds": rounds})


def _run_job(model: Path, workers: int, daemon: str, with_model: bool) -> dict[str, float]:
    """Run the first job of a session, and return its seconds and the memory of its Python workers in MB."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    if with_model:
        os.environ[PRELOAD] = str(model)
    session = common.session(f"local[{workers}]", {"spark.python.daemon.module": daemon})
    stage = InstructorEmbeddings(model=str(model), inputCols="text", outputCol="vector")
    stage.prepare_model()
    # This needs no Python worker, and warms the JVM.
    numbers = session.range(workers * TEXTS_PER_WORKER, numPartitions=workers)
    frame = numbers.select(F.concat(F.col("id").cast("string"), F.repeat(F.lit(" what"), 80)).alias("text"))
    frame.write.format("noop").mode("overwrite").save()
    start = time.perf_counter()
    stage.transform(frame).write.format("noop").mode("overwrite").save()
    seconds = time.perf_counter() - start
    embedding = [child for child in psutil.Process().children(recursive=True) if WEIGHTS in _read(child, "maps")]
    # A daemon that has loaded the model is a child of the JVM, and the workers are children of a daemon.
    running = [child for child in embedding if f"-m {daemon}" in " ".join(child.parent().cmdline())]
    if len(running) != workers:
        raise RuntimeError(f"{len(running)} workers embedded, expected {workers}")
    private = [_sum_mb(one, "Private_Clean:", "Private_Dirty:") for one in running]
    together = sum(_sum_mb(one, "Pss:") for one in [running[0].parent(), *running])
    session.stop()
    return {"seconds": seconds, "private": statistics.mean(private), "together": together}


def _read(process: psutil.Process, file: str) -> str:
    return Path(f"/proc/{process.pid}/{file}").read_text()


def _sum_mb(process: psutil.Process, *names: str) -> float:
    """Return the sum of these figures of a process's memory, in MB."""
    lines = (line.split() for line in _read(process, "smaps_rollup").splitlines()[1:])
    return sum(int(line[1]) for line in lines if line[0] in names) / 1e3


if __name__ == "__main__":
    main()
