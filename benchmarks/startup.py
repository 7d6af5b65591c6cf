"""Measure the time from a fresh Python worker to its first vector.

python benchmarks/startup.py --json startup.json
"""

import argparse
import statistics

import common
import inputs
from common import say
from peers import SparkInstructor
from python_worker import PythonWorker

from spark_instructor.models.prepared import PRECISIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="fresh workers of each kind (%(default)s)")
    arguments = common.parse(parser)

    (core,) = common.cores(1)
    model = inputs.model(arguments.model)
    candidates = {
        f"spark_instructor, {precision}": (
            "spark_instructor",
            common.run_apart(SparkInstructor.build, model, precision, on=[core]),
        )
        for precision in PRECISIONS
    }
    candidates["sentence-transformers"] = ("sentence-transformers", model.path)

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for turn in range(arguments.rounds + 1):
        for name, (kind, folder) in candidates.items():
            worker = PythonWorker(kind, folder, core)
            worker.end()
            total = sum(worker.seconds.values())
            say(f"Round {turn or 'to warm up'}: {name}: {total:.2f} s")
            if turn:  # the first one fills the page cache
                rounds[name].append({**worker.seconds, "in all": total})

    medians = {
        name: {step: statistics.median(one[step] for one in of_rounds) for step in of_rounds[0]}
        for name, of_rounds in rounds.items()
    }
    for steps in medians.values():
        steps["in all, without Spark's own"] = steps["in all"] - steps["Python, pyspark"]
    steps = next(iter(medians.values()))
    common.table(
        f"Fresh Python worker to first vector, seconds, median of {arguments.rounds}",
        ["", *medians],
        [(step, *(f"{of_candidate[step]:.2f}" for of_candidate in medians.values())) for step in steps],
    )
    common.write_json(arguments, {"model": model.path.name, "seconds": medians, "rounds": rounds})


if __name__ == "__main__":
    main()
