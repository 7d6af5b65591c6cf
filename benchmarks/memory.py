"""Measure how much memory 1, 2 and 4 Python workers of a host take, and whether a batch of long texts takes more.

python benchmarks/memory.py --json memory.json
python benchmarks/memory.py --long --json memory.json    # also the second question, which takes minutes
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
LONG, SHORT = 420, 9  # words, of about 512 and 20 tokens with the instruction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200, help="texts that each worker embeds first (%(default)s)")
    parser.add_argument(
        "--long",
        nargs="?",
        const="small",
        choices=inputs.SHAPES,
        metavar="SHAPE",
        help="also compare a batch of long texts with one of short ones, with a model of this shape (small, or base, "
        "which takes an hour; --model does not matter here)",
    )
    parser.add_argument("--long-texts", type=int, default=10_000, help="texts of that batch (%(default)s)")
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
    if arguments.long:
        figures["peak_mb"] = _compare_peaks(arguments, core)
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


def _compare_peaks(arguments: argparse.Namespace, core: int) -> dict[str, dict[str, float]]:
    """Return the peak memory of a worker in MB over one batch of short texts and one of long texts."""
    model = inputs.model(None, arguments.long)
    peaks: dict[str, dict[str, float]] = {}
    for precision in arguments.precisions:
        folder = _prepare(model, precision)
        peaks[precision] = {}
        for name, words in (("short", SHORT), ("long", LONG)):
            worker = PythonWorker("spark_instructor", folder, core, words, arguments.long_texts)
            worker.end()
            peaks[precision][name] = worker.peak_mb
            say(f"{precision}: {arguments.long_texts:,} {name} texts: {worker.peak_mb:,.0f} MB")
    common.table(
        f"Peak memory of a worker over one Arrow batch of {arguments.long_texts:,} texts, MB, {model.path.name}",
        ["", "20 tokens each", "512 tokens each", "ratio"],
        [
            (precision, f"{of['short']:,.0f}", f"{of['long']:,.0f}", f"{of['long'] / of['short']:.2f}")
            for precision, of in peaks.items()
        ],
    )
    return peaks


if __name__ == "__main__":
    main()
