"""Measure how much memory 1, 2 and 4 Python workers of a host take.

python benchmarks/memory.py --json memory.json
"""

import argparse
from pathlib import Path
from typing import Any

import common
import inputs
from common import say
from peers import SparkInstructor
from python_worker import PythonWorker

from spark_instructor.models.prepared import PRECISIONS

WORKERS = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200, help="texts that each worker embeds first (%(default)s)")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    arguments = common.parse(parser)

    core = common.cores(1)[0]
    model = inputs.model(arguments.model)
    folders = {
        f"spark_instructor, {precision}": ("spark_instructor", _prepare(model, precision))
        for precision in arguments.precisions
    }
    folders["sentence-transformers, float32"] = ("sentence-transformers", model.path)
    pss = {name: _pss(name, kind, folder, core, arguments.texts) for name, (kind, folder) in folders.items()}
    common.table(
        "Memory of a host's Python workers after use, summed PSS in MB",
        ["", *(f"{count} worker{'s' * (count > 1)}" for count in WORKERS), "growth a worker"],
        [(name, *(f"{mb:,.0f}" for mb in of_counts), f"{_growth(of_counts):,.0f}") for name, of_counts in pss.items()],
    )
    figures: dict[str, Any] = {
        "model": model.path.name,
        "pss_mb": {name: dict(zip(WORKERS, of_counts, strict=True)) for name, of_counts in pss.items()},
        "growth_mb": {name: _growth(of_counts) for name, of_counts in pss.items()},
    }
    common.write_json(arguments, figures)


def _prepare(model: inputs.Model, precision: str) -> Path:
    folder: Path = common.run_apart(SparkInstructor.build, model, precision, on=common.cores(1))
    return folder


def _pss(name: str, kind: str, folder: Path, core: int, texts: int) -> list[float]:
    """Return the sum of the PSS in MB for each number of workers, all of them in use."""
    workers: list[PythonWorker] = []
    summed = []
    for count in WORKERS:
        while len(workers) < count:
            workers.append(PythonWorker(kind, folder, core, count=texts))
        summed.append(sum(worker.pss_mb() for worker in workers))
        say(f"{name}: {count} workers: {summed[-1]:,.0f} MB")
    for worker in workers:
        worker.end()
    return summed


def _growth(summed: list[float]) -> float:
    """Return the MB that one more worker takes."""
    return (summed[-1] - summed[0]) / (WORKERS[-1] - WORKERS[0])


if __name__ == "__main__":
    main()
