"""Measure the encoder on one GPU: its vectors, its speed, two workers at once, and a batch that does not fit.

python benchmarks/gpu.py --json gpu.json

It takes three minutes with the shape of base. There is no Spark in it: a worker is a process that embeds.
"""

import argparse
import os
import statistics
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
import numpy.typing as npt
from common import say

PRECISIONS = ("float32", "bfloat16")
PEAK_ROWS = (16_384, 65_536)
PEAK_SHAPES = ((768, 2304), (768, 3072), (3072, 768), (8192, 8192))  # (in, out): base's, and a large square
LARGEST_BATCH = 65_536  # tokens, to fill the memory
MEMORY_LEFT = 0.15e9  # bytes beside the model, for the batch that must not fit

_model: Any = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000, help="texts to embed (%(default)s, which are all)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure (%(default)s)")
    arguments = common.parse(parser)
    # Unlike a worker on a CPU, a worker on a GPU has the cores beside it for tokenizing.
    os.environ.update(TOKENIZERS_PARALLELISM="true")
    del os.environ["RAYON_NUM_THREADS"]

    model = inputs.model(arguments.model)
    texts = inputs.text_set("texts", arguments.texts)
    every_core = sorted(os.sched_getaffinity(0))
    say("Computing the vectors on the CPU")
    checked = texts.checked()
    expected = common.run_apart(_encode_on_cpu, model.path, checked, on=every_core)
    with common.process(every_core) as process:
        gpu, peaks = process.submit(_describe).result(), process.submit(_peak).result()
        tokenizing = process.submit(_tokenize, model.path, texts, arguments.rounds).result()

    rows = []
    lengths = tokenizing.pop("lengths")
    flops = model.flops(lengths)
    for precision in PRECISIONS:
        with common.process(every_core) as process:
            process.submit(_load, model.path, precision).result()
            cosines = (process.submit(_encode, checked).result() * expected).sum(axis=1)
            measured = process.submit(_measure, texts, arguments.rounds).result()
        rows.append(
            {
                "precision": precision,
                "cosine_min": float(cosines.min()),
                "cosine_mean": float(cosines.mean()),
                "tokens_per_second": lengths.sum() / measured["seconds"],
                "tokens_per_second_without_tokenizing": lengths.sum() / measured["encoder_seconds"],
                "share_of_peak": flops / measured["encoder_seconds"] / 1e12 / peaks[precision],
                "memory_gb": measured["memory_gb"],
            }
        )
        say(f"{precision}: {rows[-1]}")
    pair = _run_two_workers(model.path, texts, arguments.rounds, every_core)
    halved = common.run_apart(_encode_without_memory, model.path, texts, on=every_core)
    figures = {
        "gpu": gpu,
        "peak_tflops": peaks,
        "tokens": int(lengths.sum()),
        "tokenizing": tokenizing | {"tokens_per_second": lengths.sum() / tokenizing["seconds"]},
        "results": rows,
        "two_workers": {"tokens_per_second": 2 * lengths.sum() / pair["seconds"], "memory_gb": pair["memory_gb"]},
        "out_of_memory": halved,
    }
    common.write_json(arguments, figures)
    _print(figures)


def _describe() -> str:
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def _peak() -> dict[str, float]:
    """Return the TFLOP/s of the best matrix product in each precision."""
    import torch

    peaks = {}
    for precision in PRECISIONS:
        rates = []
        for rows in PEAK_ROWS:
            for columns_in, columns_out in PEAK_SHAPES:
                x = torch.randn(rows, columns_in, device="cuda", dtype=getattr(torch, precision))
                weight = torch.randn(columns_out, columns_in, device="cuda", dtype=getattr(torch, precision))
                seconds = min(_time(lambda x=x, weight=weight: x @ weight.T) for _ in range(10))
                rates.append(2 * rows * columns_in * columns_out / seconds / 1e12)
        peaks[precision] = max(rates)
    return peaks


def _time(call: Any) -> float:
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _tokenize(path: Path, texts: inputs.TextSet, rounds: int) -> dict[str, Any]:
    """Return the seconds to tokenize the texts, and their numbers of tokens."""
    from spark_instructor.encoder import prepare
    from spark_instructor.encoder.tokenizer import T5Tokenizer
    from spark_instructor.models.prepared import TOKENIZER

    tokenizer = T5Tokenizer(prepare(path) / TOKENIZER)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        ids = list(tokenizer.encode([texts.instruction + text for text in texts.texts], max_tokens=512))
        seconds.append(time.perf_counter() - start)
    lengths = np.array([min(len(sequence), 512) for sequence in ids])
    return {"seconds": statistics.median(seconds), "lengths": lengths}


def _encode_on_cpu(path: Path, texts: inputs.TextSet) -> npt.NDArray[np.float32]:
    import torch

    from spark_instructor.encoder import InstructorModel

    torch.set_num_threads(os.cpu_count() or 1)
    return InstructorModel.from_pretrained(path).encode(texts.instruction, texts.texts)


def _load(path: Path, precision: str) -> None:
    global _model
    from spark_instructor.encoder import InstructorModel

    _model = InstructorModel.from_pretrained(path, precision=precision, device="cuda")


def _encode(texts: inputs.TextSet) -> npt.NDArray[np.float32]:
    return _model.encode(texts.instruction, texts.texts)


def _measure(texts: inputs.TextSet, rounds: int) -> dict[str, float]:
    """Return the median seconds of encoding, those of them after tokenizing, and the peak of the GPU's memory."""
    import torch

    _encode(texts)  # warms up
    torch.cuda.reset_peak_memory_stats()
    seconds = [_time(lambda: _encode(texts)) for _ in range(rounds)]
    memory = torch.cuda.max_memory_reserved() / 1e9
    embed_windows, encoder_seconds = _model._embed_windows, []

    def embed_timed(*arguments: Any) -> npt.NDArray[np.float32]:
        found: list[npt.NDArray[np.float32]] = []
        encoder_seconds.append(_time(lambda: found.append(embed_windows(*arguments))))
        return found[0]

    _model._embed_windows = embed_timed
    for _ in range(rounds):
        _encode(texts)
    _model._embed_windows = embed_windows
    return {
        "seconds": statistics.median(seconds),
        "encoder_seconds": statistics.median(encoder_seconds),
        "memory_gb": memory,
    }


def _run_two_workers(path: Path, texts: inputs.TextSet, rounds: int, cores: list[int]) -> dict[str, float]:
    """Return the median seconds in which two processes embed all texts each, at the same time, and their memory."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Manager() as manager:
        barrier = manager.Barrier(2)
        with common.process(cores) as first, common.process(cores) as second:
            for worker in (first, second):
                worker.submit(_load, path, "bfloat16").result()
                worker.submit(_encode, texts).result()
            found = [worker.submit(_encode_together, texts, rounds, barrier) for worker in (first, second)]
            each = [future.result() for future in found]
            memory = first.submit(_used_memory).result()
    seconds = [max(pair) for pair in zip(*each, strict=True)]
    return {"seconds": statistics.median(seconds), "memory_gb": memory}


def _encode_together(texts: inputs.TextSet, rounds: int, barrier: Barrier) -> list[float]:
    seconds = []
    for _ in range(rounds):
        barrier.wait()
        seconds.append(_time(lambda: _encode(texts)))
    return seconds


def _used_memory() -> float:
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def _encode_without_memory(path: Path, texts: inputs.TextSet) -> dict[str, float]:
    """Embed with little memory left, so that batches are halved, and compare the vectors with those before."""
    import torch

    _load(path, "bfloat16")
    expected = _encode(texts)
    _model._batch_tokens = LARGEST_BATCH
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + MEMORY_LEFT) / total)
    vectors = _encode(texts)
    return {
        "tokens_tried": LARGEST_BATCH,
        "tokens_per_batch": _model._batch_tokens,
        "cosine_min": float((vectors * expected).sum(axis=1).min()),
    }


def _print(figures: dict[str, Any]) -> None:
    print(figures["gpu"])
    print("GEMM peak, TFLOP/s:", ", ".join(f"{name} {peak:.0f}" for name, peak in figures["peak_tflops"].items()))
    print(f"Tokenizing alone: {figures['tokenizing']['tokens_per_second']:,.0f} tokens/s")
    common.table(
        f"{figures['tokens']:,} tokens, one worker",
        ["precision", "tokens/s", "without tokenizing", "of peak", "memory, GB", "min cosine", "mean cosine"],
        [
            (
                row["precision"],
                f"{row['tokens_per_second']:,.0f}",
                f"{row['tokens_per_second_without_tokenizing']:,.0f}",
                f"{row['share_of_peak']:.0%}",
                f"{row['memory_gb']:.2f}",
                f"{row['cosine_min']:.6f}",
                f"{row['cosine_mean']:.6f}",
            )
            for row in figures["results"]
        ],
    )
    pair, halved = figures["two_workers"], figures["out_of_memory"]
    print(f"\nTwo workers in bfloat16: {pair['tokens_per_second']:,.0f} tokens/s together, {pair['memory_gb']:.2f} GB")
    print(
        f"Too little memory: {halved['tokens_tried']:,} tokens at a time became {halved['tokens_per_batch']:,}; "
        f"min cosine to the vectors before {halved['cosine_min']:.6f}"
    )


if __name__ == "__main__":
    main()
