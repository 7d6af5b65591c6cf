"""A Python worker of an executor without the executor: a process with the same imports and the same calls.

`PythonWorker` starts a worker; run as a script, this file is the worker.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inputs

KINDS = ("spark_instructor", "sentence-transformers")

Embed = Callable[[list[str]], None]


class PythonWorker:
    """A worker that has loaded a model, and has embedded one text and then ``count`` texts.

    ``folder`` is a prepared folder for spark_instructor and a checkpoint for sentence-transformers.
    """

    def __init__(self, kind: str, folder: Path, core: int, count: int = 0) -> None:
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, __file__, kind, str(folder), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker for {kind} ended with exit code {self._process.wait()}; see above")
        told = json.loads(answer)
        ends = [start, *told["ends"].values()]
        self.seconds: dict[str, float] = {
            step: end - begin for step, begin, end in zip(told["ends"], ends, ends[1:], strict=False)
        }
        """Seconds of each step to the first vector, including the start of Python."""

    def pss_mb(self) -> float:
        """Return its current memory: its own pages, and its part of the pages that it shares with other processes."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    def end(self) -> None:
        """End the worker, which waits until its input is closed."""
        self._process.communicate()


def main() -> None:
    kind, folder, count = sys.argv[1:]
    ends: dict[str, float] = {}

    def done(step: str) -> None:
        ends[step] = time.perf_counter()

    # Spark's own worker has imported these before it calls a pandas UDF.
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    import pyspark.worker  # noqa: F401

    done("Python, pyspark")
    import torch  # noqa: F401

    done("torch")
    open_model = {"spark_instructor": _spark_instructor, "sentence-transformers": _sentence_transformers}[kind]()
    done("imports")
    embed = open_model(folder)
    done("load")
    embed(["What does a worker need before its first vector?"])
    done("first vector")

    if int(count):
        embed(inputs.of_words(80, int(count)).texts)
    print(json.dumps({"ends": ends}), flush=True)
    sys.stdin.read()


def _spark_instructor() -> Callable[[str], Embed]:
    """Import the package, and return a function that loads, keeps and calls the model as an executor does."""
    import pyarrow as pa

    import spark_instructor.encoder.model  # noqa: F401
    from spark_instructor import worker
    from spark_instructor.models.host_cache import ModelLocation

    def open_model(folder: str) -> Embed:
        job = worker.Job(
            model=ModelLocation(name="benchmark", folder_name="benchmark", path=folder, archive=None),
            nested=(False,),
            with_counts=False,
            with_metrics=False,
            instruction=inputs.DOCUMENT_INSTRUCTION,
            device="cpu",
            max_length=None,
            batch_size=None,
            long_text="truncate",
            output_type="float",
        )

        def embed(texts: list[str]) -> None:
            structs = iter([pa.StructArray.from_arrays([pa.array(texts)], ["text"])] if texts else [])
            for _ in worker.embed_structs(dataclasses.asdict(job), structs):
                pass

        embed([])  # this loads the model
        return embed

    return open_model


def _sentence_transformers() -> Callable[[str], Embed]:
    """Import the package, and return a function that loads and calls the model as a pandas UDF does."""
    from sentence_transformers import SentenceTransformer

    def open_model(folder: str) -> Embed:
        model: Any = SentenceTransformer(folder, device="cpu")
        model.set_pooling_include_prompt(False)

        def embed(texts: list[str]) -> None:
            model.encode(texts, prompt=inputs.DOCUMENT_INSTRUCTION)

        return embed

    return open_model


if __name__ == "__main__":
    main()
