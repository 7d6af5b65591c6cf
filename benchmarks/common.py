"""What the benchmarks share: processes pinned to cores, tables, JSON, and a description of the machine."""

import argparse
import atexit
import gzip
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGES = (
    "spark-instructor-embeddings",
    "torch",
    "pyspark",
    "sentence-transformers",
    "transformers",
    "onnxruntime",
    "ctranslate2",
    "openvino",
    "nncf",
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

# One thread per process. Libraries read these when they start, so they are set before a process imports any.
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, including those that every benchmark has, and set the environment of its processes."""
    parser.add_argument(
        "--model", type=Path, help="folder of an INSTRUCTOR checkpoint (default: random weights, shape of base)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if find_spec("sentence_transformers") is None:
        parser.error("sentence-transformers is missing, with which everything is compared: pip install -e '.[bench]'")
    arguments.machine = machine()  # now, while the load average is still that of other work
    prepared = tempfile.mkdtemp(prefix="benchmarks-")  # for this run, so that a changed encoder never meets old files
    atexit.register(shutil.rmtree, prepared, ignore_errors=True)
    os.environ.update(ONE_THREAD, HF_HOME=prepared, HF_HUB_OFFLINE="1")
    os.environ.update(TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error", PYTHONWARNINGS="ignore")
    return arguments


def cache() -> Path:
    """Return the folder for what is created once: the checkpoint, and what the engines make of it."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "spark_instructor_benchmarks").expanduser()


def cores(count: int) -> list[int]:
    """Return the last ``count`` cores that this process may use (see `taskset`); if there are fewer, they repeat."""
    available = sorted(os.sched_getaffinity(0), reverse=True)
    if len(available) < count:
        say(f"WARNING: {count} cores are wanted, and there are {len(available)}: what runs at once shares them")
    return [available[i % len(available)] for i in range(count)]


def process(on: Iterable[int]) -> ProcessPoolExecutor:
    """Return a fresh process, pinned to these cores, that runs the calls submitted to it one after the other."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(set(on),))


def _begin(on: set[int]) -> None:
    os.sched_setaffinity(0, on)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print things that are not results


def run_apart(function: Callable[..., Any], *arguments: Any, on: Iterable[int]) -> Any:
    """Run a function in a fresh process that ends with it, and return its result."""
    with process(on) as one:
        return one.submit(function, *arguments).result()


def session(master: str, settings: Mapping[str, str] | None = None) -> "SparkSession":
    """Start a classic Spark session that logs little; ``settings`` are added to its configuration."""
    from pyspark.sql import SparkSession  # imported here, since most measurements need no Spark

    quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
    return SparkSession.builder.master(master).config(map={**quiet, **(settings or {})}).getOrCreate()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON lines file, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def say(message: str) -> None:
    """Report the progress of the benchmark on stderr, apart from its results."""
    print(message, file=sys.stderr, flush=True)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table; the first column holds names and the others figures."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n{title}\n")
    for row in (cells[0], rule, *cells[1:]):
        aligned = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print(f"| {' | '.join(aligned)} |")


def write_json(arguments: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Write the figures of a benchmark with its command and its machine, if ``--json`` names a file."""
    if arguments.json is not None:
        command = " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
        content = {"command": command, "machine": arguments.machine, **figures}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def machine() -> dict[str, Any]:
    """Return the processor, memory, system and versions that the figures belong to, and how busy the machine is."""
    return {
        "processor": _cpuinfo("model name"),
        "instructions": [flag for flag in CPU_FLAGS if flag in cpu_flags()],
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cpu_flags() -> list[str]:
    """Return the features of the processor, by the kernel's names."""
    return _cpuinfo("flags").split()


def _cpuinfo(key: str) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
