"""Measure how a model reaches the executors of a cluster: how long it takes, and how much of it the driver sends.

python benchmarks/shipping.py --json shipping.json
python benchmarks/shipping.py --executors 8 --ways archive broadcast    # some of it

All executors are on this machine, each with one core and a cache of its own, so the figures show the work of the
driver and not the limits of a network.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import inputs
import pandas as pd
from common import say

from spark_instructor.encoder import prepare_model
from spark_instructor.models.host_cache import ModelLocation
from spark_instructor.models.prepared import PRECISIONS, PreparedModel, read_prepared
from spark_instructor.models.shipping import ship_model
from spark_instructor.models.wheel import build_wheel

WAYS = ("archive", "broadcast", "shared folder", "wheel")
_PIECE = 16 << 20  # bytes per broadcast
_WARM_UPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    arguments = common.parse(parser)

    model = prepare_model(inputs.model(arguments.model).path, arguments.precision)
    rows = []
    for count in arguments.executors:
        for way in arguments.ways:
            on = common.cores(os.cpu_count() or 1)
            rows.append({"executors": count, "way": way, **common.run_apart(_measure, model.path, way, count, on=on)})
            say(str(rows[-1]))
    common.table(
        f"A model of {model.size / 1e6:,.0f} MB until every executor has verified it",
        ["", "executors", "driver prepares, s", "job, s", "driver sends, x model", "over loopback, x model"],
        [
            (
                row["way"],
                row["executors"],
                f"{row['prepare_s']:.1f}",
                f"{row['job_s']:.1f}",
                f"{row['driver_bytes'] / model.size:.2f}",
                f"{row['loopback_bytes'] / model.size:.2f}",
            )
            for row in rows
        ],
    )
    common.write_json(arguments, {"model": model.path.name, "bytes": model.size, "rows": rows})


def _measure(folder: Path, way: str, count: int) -> dict[str, float]:
    """Start a cluster of ``count`` executors whose workers are warm, and let each of them get the model."""
    model = read_prepared(folder)
    with tempfile.TemporaryDirectory(prefix="shipping-") as work:
        os.environ.update(SPARK_WORKER_DIR=work, PYSPARK_PYTHON=sys.executable)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), f"{work}/site"])
        if way == "wheel":
            wheel = build_wheel(model, folder, Path(work))
            shutil.unpack_archive(wheel, f"{work}/site", "zip")
            sys.path.append(f"{work}/site")
        spark = common.session(
            f"local-cluster[{count},1,512]",
            {
                "spark.driver.memory": "2g",
                "spark.executor.memory": "512m",
                "spark.executorEnv.TMPDIR": "./",  # the working folder of each executor
                "spark.scheduler.minRegisteredResourcesRatio": "1.0",
                "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
            },
        )
        jvm = spark.sparkContext._gateway.proc.pid
        frame = spark.range(count, numPartitions=count)

        def run(locate: Callable[[], str]) -> tuple[float, int]:
            """Run a function once on each executor, all at once; return the seconds and the number of its results."""

            def act(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
                for _ in frames:
                    yield pd.DataFrame({"folder": [locate()]})

            start = time.perf_counter()
            folders = {row.folder for row in frame.mapInPandas(act, "folder string", barrier=True).collect()}
            return time.perf_counter() - start, len(folders)

        def warm_up() -> str:
            import spark_instructor.models.host_cache  # noqa: F401

            return os.getcwd()

        warm_ups = [run(warm_up) for _ in range(_WARM_UPS)]
        assert all(executors == count for _, executors in warm_ups)
        idle = statistics.median(seconds for seconds, _ in warm_ups[1:])
        sent = _count_sent(jvm), _count_loopback()
        start = time.perf_counter()
        locate = _prepare(spark, model, way)
        prepared = time.perf_counter() - start
        seconds, copies = run(locate)
        assert copies == (count if way in ("archive", "broadcast") else 1)
        figures = {
            "prepare_s": prepared,
            "job_s": seconds - idle,
            "driver_bytes": _count_sent(jvm) - sent[0],
            "loopback_bytes": _count_loopback() - sent[1],
        }
        spark.stop()
        return figures


def _prepare(spark: Any, model: PreparedModel, way: str) -> Callable[[], str]:
    """Do the driver's part, and return the function with which an executor gets the model."""
    if way == "broadcast":
        return _broadcast(spark, model)
    if way == "shared folder":
        location = ship_model(spark, model, prepare=prepare_model, shared=True)
    elif way == "wheel":
        location = ship_model(spark, model, prepare=prepare_model)
        assert location.installed is not None
    else:
        location = ship_model(spark, model, prepare=prepare_model)
        assert location.archive is not None

    def locate() -> str:
        from spark_instructor.models.host_cache import locate_model

        return locate_model(location, prepare=None).folder  # type: ignore[arg-type]

    return locate


def _broadcast(spark: Any, model: PreparedModel) -> Callable[[], str]:
    pieces = []
    for path in model.paths:
        with path.open("rb") as file:
            while content := file.read(_PIECE):
                pieces.append((path.name, spark.sparkContext.broadcast(content)))
    name = model.folder_name

    def locate() -> str:
        from spark_instructor.models.host_cache import locate_model

        folder = Path(name).absolute()
        folder.mkdir()
        for file_name, piece in pieces:
            with (folder / file_name).open("ab") as file:
                file.write(piece.value)
        location = ModelLocation(name=name, folder_name=name, path=str(folder), archive=None)
        return locate_model(location, prepare=None).folder  # type: ignore[arg-type]

    return locate


def _count_sent(pid: int) -> int:
    """Return how many bytes a process has sent over the connections that it has open now."""
    connections = subprocess.run(["ss", "-tinpOH"], capture_output=True, text=True, check=True).stdout.splitlines()
    counts = [re.search(r"bytes_sent:(\d+)", line) for line in connections if f"pid={pid}," in line]
    return sum(int(count[1]) for count in counts if count is not None)


def _count_loopback() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


if __name__ == "__main__":
    main()
