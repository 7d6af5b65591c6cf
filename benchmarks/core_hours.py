"""Measure how many core-hours a million passages cost on this machine, with base's and large's shapes.

python benchmarks/core_hours.py --json core-hours.json

The rate is that of one core in a process of its own, from texts to vectors. docs/sizing.md shows the table.
"""

import argparse
import statistics
import time

import common
import inputs
from common import say
from inputs import Model, TextSet
from peers import SparkInstructor

from spark_instructor.models.prepared import PRECISIONS

SHAPES = ("base", "large")
_TEXTS_TO_WARM_UP = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=60, help="passages, of all lengths (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the figure is the median of so many (%(default)s)")
    arguments = common.parse(parser)

    (core,) = common.cores(1)
    texts = inputs.text_set("texts", arguments.texts)
    shapes = SHAPES if arguments.model is None else (arguments.model.name,)
    rows = []
    for shape in shapes:
        model = inputs.model(arguments.model, shape)
        for precision in PRECISIONS:
            seconds = common.run_apart(measure, model, precision, texts, arguments.rounds, on=[core])
            per_text = statistics.median(seconds) / len(texts.texts)
            rows.append(
                {"shape": shape, "precision": precision, "core_hours": per_text * 1e6 / 3600, "rounds": seconds}
            )
            say(f"{shape}, {precision}: {per_text:.3f} s per passage")
    common.table(
        f"Core-hours per million passages, {arguments.machine['processor']}",
        ["model", *PRECISIONS],
        [(shape, *(f"{row['core_hours']:.1f}" for row in rows if row["shape"] == shape)) for shape in shapes],
    )
    common.write_json(arguments, {"texts": arguments.texts, "figures": rows})


def measure(model: Model, precision: str, texts: TextSet, rounds: int) -> list[float]:
    """Return the seconds that each round takes."""
    engine = SparkInstructor(model, precision)
    engine.encode(texts._replace(texts=texts.texts[:_TEXTS_TO_WARM_UP]), None)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        engine.encode(texts, None)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
