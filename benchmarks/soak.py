"""Check that the memory of a Python worker stays flat over a million texts, and its rate steady.

python benchmarks/soak.py --json soak.json

The tasks go through one worker one after the other, each with its own short texts. The first tenth is for warming up.
The script fails if the memory of the last tenth exceeds that of the second tenth by more than 5 %.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import common
import psutil
from common import say
from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings
from spark_instructor.models.prepared import WEIGHTS

TEXT = "what makes the price of bread rise when rain falls in spring and who pays for it then"
WORDS_A_TEXT = 8
TENTHS = 10
MOST_GROWTH = 0.05
SECONDS_BETWEEN_LOOKS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--model", default="instructor_tiny", help="(%(default)s)")
    parser.add_argument("--precision", default="bfloat16", help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    arguments.machine = common.machine()

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = common.session("local[1]", {"spark.sql.execution.arrow.maxRecordsPerBatch": "2000"})
    stage = InstructorEmbeddings(
        model=arguments.model, precision=arguments.precision, inputCols="text", outputCol="vector"
    )
    memory: list[float] = []
    seconds: list[float] = []
    each = arguments.texts // TENTHS
    for tenth in range(TENTHS):
        texts = spark.range(tenth * each, (tenth + 1) * each, numPartitions=5).select(_text(F.col("id")).alias("text"))
        with _Memory() as seen:
            start = time.perf_counter()
            stage.transform(texts).write.format("noop").mode("overwrite").save()
            seconds.append(time.perf_counter() - start)
        memory.append(seen.median())
        say(f"{(tenth + 1) * each:,} texts: {each / seconds[-1]:,.0f} texts/s, {memory[-1]:,.0f} MB")

    growth = memory[-1] / memory[1] - 1
    rates = [each / one for one in seconds]
    common.table(
        f"{arguments.texts:,} texts through one worker, {arguments.model} in {arguments.precision}",
        ["tenth", "texts/s", "own memory, MB"],
        [(i, f"{rate:,.0f}", f"{mb:,.0f}") for i, (rate, mb) in enumerate(zip(rates, memory, strict=True), 1)],
    )
    print(f"\nmemory from the second tenth to the last: {growth:+.1%}")
    common.write_json(arguments, {"texts_a_second": rates, "own_mb": memory, "growth": growth})
    if growth > MOST_GROWTH:
        sys.exit(f"memory grew by {growth:.1%}, more than {MOST_GROWTH:.0%}")


def _text(number: Column) -> Column:
    """Return words and digits that depend on the number. The number itself would have more tokens the larger it is."""
    words = F.split(F.lit(TEXT), " ")
    picked = [words[F.pmod(F.xxhash64(number, F.lit(i)), F.size(words)).cast("int")] for i in range(WORDS_A_TEXT)]
    return F.concat_ws(" ", *picked, F.pmod(F.xxhash64(number), F.lit(10**9)))


def _own_memory(pid: int) -> float:
    """Return the MB of a process that belong to no file, since mapped files count by who else maps them."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1e3


class _Memory(threading.Thread):
    """Watches the memory of the only Python worker while a job runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._workers: dict[int, list[float]] = {}

    def __enter__(self) -> "_Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(SECONDS_BETWEEN_LOOKS):
            for process in psutil.Process().children(recursive=True):
                try:
                    if WEIGHTS in Path(f"/proc/{process.pid}/maps").read_text():
                        self._workers.setdefault(process.pid, []).append(_own_memory(process.pid))
                except (OSError, psutil.Error):  # it has ended
                    continue

    def median(self) -> float:
        """Return the process id of the only worker."""
        if len(self._workers) != 1:
            sys.exit(f"expected one Python worker at work, found {len(self._workers)}: is the run long enough?")
        (of_worker,) = self._workers.values()
        return statistics.median(of_worker)


if __name__ == "__main__":
    main()
