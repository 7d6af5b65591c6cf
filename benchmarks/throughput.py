"""Measure how fast each engine embeds with one thread.

python benchmarks/throughput.py --json throughput.json
python benchmarks/throughput.py --sets texts repeats --engines spark_instructor
"""

import argparse
import dataclasses
import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import common
import inputs
import numpy as np
import numpy.typing as npt
import peers
from common import say

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.999}  # an engine with a lower cosine is not timed
BASELINE = (peers.SentenceTransformers.name, "float32")


@dataclasses.dataclass
class Result:
    """The figures of one engine in one precision on one set."""

    set: str
    engine: str
    precision: str
    cosine_min: float
    cosine_mean: float
    token_budget: int | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000, help="texts of each set (%(default)s, which are all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (%(default)s)")
    parser.add_argument("--sets", nargs="+", default=["texts", "queries"], choices=inputs.SETS)
    parser.add_argument("--engines", nargs="+", default=list(peers.ENGINES), choices=peers.ENGINES)
    parser.add_argument("--precisions", nargs="+", default=list(LEAST_COSINE), choices=LEAST_COSINE)
    arguments = common.parse(parser)

    core = common.cores(1)
    model = inputs.model(arguments.model)
    sets = [inputs.text_set(name, arguments.texts) for name in arguments.sets]
    say("Computing the vectors in float64")
    references = {texts.name: common.run_apart(peers.reference, model, texts, on=core) for texts in sets}
    lengths = {name: of_set for name, (of_set, _) in references.items()}

    engines = _find_installed(arguments.engines)
    processes: dict[tuple[str, str], ProcessPoolExecutor] = {}
    for engine in engines:
        for precision in (one for one in engine.precisions if one in arguments.precisions):
            say(f"Loading {engine.name} {precision}")
            common.run_apart(engine.build, model, precision, on=core)
            process = processes[engine.name, precision] = common.process(core)
            process.submit(peers.load, engine, model, precision).result()

    results = [
        _check_engine(process, *who, texts, references[texts.name][1])
        for texts in sets
        for who, process in processes.items()
    ]
    peaks: dict[str, list[float]] = {precision: [] for precision in arguments.precisions}
    by_name = {texts.name: texts for texts in sets}
    with common.process(core) as gemm:
        for turn in range(arguments.rounds):
            for precision, of_rounds in peaks.items():
                of_rounds.append(gemm.submit(_gemm_peak, precision).result())
            for one in (one for one in results if _is_sound(one)):
                process, texts = processes[one.engine, one.precision], by_name[one.set]
                one.seconds.append(process.submit(peers.seconds, texts, one.token_budget).result())
                rate = lengths[one.set].sum() / one.seconds[-1]
                say(f"Round {turn + 1}: {one.set}, {one.engine} {one.precision}: {rate:,.0f} tokens/s")
            figures = _figures(model, results, lengths, peaks)
            common.write_json(arguments, figures)
    for process in processes.values():
        process.shutdown()
    _print(figures)


def _find_installed(names: list[str]) -> list[type[peers.Engine]]:
    """Return the named engines that can run here, and report what the others lack."""
    found = []
    for name in names:
        missing = peers.ENGINES[name].missing()
        if missing:
            say(
                f"Left out: {name}, which needs: pip install {' '.join(missing)} (all peers: pip install -e '.[bench]')"
            )
        else:
            found.append(peers.ENGINES[name])
    return found


def _check_engine(
    process: ProcessPoolExecutor, engine: str, precision: str, texts: inputs.TextSet, expected: npt.NDArray[np.float64]
) -> Result:
    """Compare the vectors of an engine with float64 and, if they are close enough, find its batch size."""
    vectors = process.submit(peers.encode, texts.checked()).result()
    cosines = (vectors * expected).sum(axis=1)  # these are unit vectors
    result = Result(texts.name, engine, precision, float(cosines.min()), float(cosines.mean()))
    if _is_sound(result):
        result.token_budget = process.submit(peers.tune, texts).result()
        batches = "" if result.token_budget is None else f", batches of {result.token_budget} tokens"
        say(f"{texts.name}, {engine} {precision}: min cosine {result.cosine_min:.6f}{batches}")
    else:
        say(f"{texts.name}, {engine} {precision} is not timed: min cosine {result.cosine_min:.6f}")
    return result


def _is_sound(result: Result) -> bool:
    return result.cosine_min >= LEAST_COSINE[result.precision]


def _gemm_peak(precision: str) -> float:
    from gemm import peak  # imported here; otherwise the process of each engine would import torch

    return peak(precision)


def _figures(
    model: inputs.Model,
    results: list[Result],
    lengths: dict[str, npt.NDArray[np.int64]],
    peaks: dict[str, list[float]],
) -> dict[str, Any]:
    """Return all figures so far, as medians over the rounds."""
    peak = {precision: statistics.median(of_rounds) for precision, of_rounds in peaks.items()}
    medians = {(one.set, one.engine, one.precision): statistics.median(one.seconds) for one in results if one.seconds}
    rows = []
    for one in results:
        row = dataclasses.asdict(one)
        seconds = medians.get((one.set, one.engine, one.precision))
        if seconds is not None:
            tokens, baseline = lengths[one.set], medians.get((one.set, *BASELINE))
            row |= {
                "tokens_per_second": tokens.sum() / seconds,
                "texts_per_second": len(tokens) / seconds,
                "times_baseline": baseline and baseline / seconds,
                "share_of_peak": model.flops(tokens) / seconds / 1e9 / peak[one.precision],
                "spread": (max(one.seconds) - min(one.seconds)) / seconds,
            }
            distinct = medians.get(("texts", one.engine, one.precision))
            if one.set == "repeats" and distinct is not None:
                row["time_against_distinct"] = seconds / distinct
        rows.append(row)
    return {
        "model": model.path.name,
        "sets": {name: _count_tokens(of_set) for name, of_set in lengths.items()},
        "peak_gflops": peak,
        "results": rows,
    }


def _count_tokens(lengths: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the tokens of a set's texts, including the instruction and ``</s>``."""
    return {
        "texts": len(lengths),
        "tokens": int(lengths.sum()),
        "mean": round(float(lengths.mean()), 1),
        "deviation": round(float(lengths.std()), 1),
        "median": float(np.median(lengths)),
        "most": int(lengths.max()),
    }


def _print(figures: dict[str, Any]) -> None:
    print("GEMM peak, GFLOP/s:", ", ".join(f"{name} {peak:.0f}" for name, peak in figures["peak_gflops"].items()))
    for name, described in figures["sets"].items():
        rows = [row for row in figures["results"] if row["set"] == name]
        common.table(
            f"{name}: {described['texts']:,} texts of {described['mean']} tokens in the mean, one thread",
            [
                "engine",
                "precision",
                "tokens/s",
                "texts/s",
                "x baseline",
                "of peak",
                "spread",
                "min cosine",
                "mean cosine",
            ],
            [_cells(row) for row in rows],
        )
    repeats = [row for row in figures["results"] if "time_against_distinct" in row]
    if repeats:
        common.table(
            f"{inputs.REPEATED:.0%} of the texts repeat others: time against all of them distinct",
            ["engine", "precision", "time"],
            [(row["engine"], row["precision"], f"{row['time_against_distinct']:.1%}") for row in repeats],
        )


def _cells(row: dict[str, Any]) -> list[str]:
    cosines = [f"{row['cosine_min']:.6f}", f"{row['cosine_mean']:.6f}"]
    if not row["seconds"]:
        return [row["engine"], row["precision"], "not timed", *[""] * 4, *cosines]
    return [
        row["engine"],
        row["precision"],
        f"{row['tokens_per_second']:,.0f}",
        f"{row['texts_per_second']:,.1f}",
        "" if row["times_baseline"] is None else f"{row['times_baseline']:.2f}",
        f"{row['share_of_peak']:.0%}",
        f"{row['spread']:.1%}",
        *cosines,
    ]


if __name__ == "__main__":
    main()
