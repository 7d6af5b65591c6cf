"""The progress of jobs that embed: a bar in a terminal or a notebook, lines in a log."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyspark.sql import SparkSession
from tqdm import TqdmExperimentalWarning, TqdmWarning, tqdm

from .models.shipping import is_connect
from .udf import UDF_NAMES

_IS_OURS = re.compile(rf"\b({'|'.join(UDF_NAMES)})\(")
_POLL_SECONDS = 1.0
_LOG_SECONDS = 30.0
_WAIT_SECONDS = 2.0

Show = Callable[[int, "int | None", str], None]
"""Shows how many of how many units are done; the number of all units may be unknown."""


@contextmanager
def progress(rows: int | None = None) -> Iterator[None]:
    """Show the progress of the jobs in the block: how many rows are embedded, how many per second, and the time left.

    In a terminal and in a notebook this is a bar, elsewhere a line on stderr every 30 seconds.

    On a classic session, it counts the rows that `InstructorEmbeddings` and `instructor_embed` have embedded since the
    block began, as the executors report them in their heartbeats (``spark.executor.heartbeatInterval``, 10 seconds by
    default). A Spark Connect server reports only finished tasks, from Spark 4.0, so it counts the tasks of the stage
    that runs.

    Args:
        rows: Number of rows that the block embeds. Without it, a classic session shows neither a share nor the time
            left.
    """
    spark = SparkSession.active()
    with _open_display() as show, _watch_tasks(spark, show) if is_connect(spark) else _watch_rows(spark, rows, show):
        yield


@contextmanager
def _open_display() -> Iterator[Show]:
    """Yield a function that shows the progress, in a bar or in the lines of a log."""
    start = time.monotonic()
    bar_class = _find_bar_class()
    if bar_class is None:
        yield _LogLines(start).show
        return
    columns = shutil.get_terminal_size((80, 24)).columns  # tqdm shows nothing in a terminal of unknown width
    with bar_class(total=0, bar_format="{desc}", ncols=columns) as bar:

        def show(done: int, total: int | None, unit: str) -> None:
            if total != bar.total:
                bar.bar_format = "{desc}" if total is None else "{percentage:3.0f}% |{bar:20}| {desc}"
                bar.reset(total=total)
            bar.n = done
            bar.set_description_str(format_progress(done, total, unit, time.monotonic() - start))

        yield show


def _find_bar_class() -> Any:
    """Return tqdm's class for this notebook or terminal, or None if stderr is neither."""
    with warnings.catch_warnings():  # tqdm.autonotebook is experimental, and a notebook may lack ipywidgets
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.autonotebook import tqdm as bar_class
    return bar_class if bar_class is not tqdm or sys.stderr.isatty() else None


class _LogLines:
    """Prints a line on stderr every 30 seconds."""

    def __init__(self, start: float) -> None:
        self._start = self._last = start

    def show(self, done: int, total: int | None, unit: str) -> None:
        now = time.monotonic()
        if now - self._last >= _LOG_SECONDS:
            self._last = now
            share = f"{done / total:.0%}, " if total else ""
            print(share + format_progress(done, total, unit, now - self._start), file=sys.stderr, flush=True)


def format_progress(done: int, total: int | None, unit: str, seconds: float) -> str:
    """Return, for example, "1,250 of 20,000 rows, 251.0 rows/s, 01:14 left"."""
    if not done:
        return f"0 of {total:,} {unit}" if total else f"0 {unit}"
    rate = done / seconds
    if total is None:
        return f"{done:,} {unit}, {rate:,.1f} {unit}/s"
    left = tqdm.format_interval(max(total - done, 0) / rate)
    return f"{done:,} of {total:,} {unit}, {rate:,.1f} {unit}/s, {left} left"


@contextmanager
def _watch_rows(spark: SparkSession, total: int | None, show: Show) -> Iterator[None]:
    """Show the rows that a classic session embeds."""
    counter = _RowCounter(spark._jsparkSession.sharedState().statusStore())
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            with suppress(Exception):  # the job matters more than its progress
                show(counter.count(), total, "rows")

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    with suppress(Exception):
        show(counter.count_finally(), total, "rows")


class _RowCounter:
    """Counts the rows that the UDFs of this package have returned, from the metrics of Spark's SQL executions."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._counts: dict[int, int] = {}
        self._final: set[int] = set()
        self._first = 1 + max((execution.executionId() for execution in self._list_executions()), default=-1)

    def count(self) -> int:
        """Return the number of rows since this object was created."""
        for execution in self._list_executions():
            execution_id = execution.executionId()
            if execution_id < self._first:
                break
            if execution_id not in self._final:
                self._counts[execution_id] = sum(self._list_counts(execution_id))
                if execution.metricValues() is not None:
                    self._final.add(execution_id)
        return sum(self._counts.values())

    def count_finally(self) -> int:
        """Return the number of rows when Spark has the final counts of the executions, moments after their end."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            count = self.count()
            if self._counts.keys() == self._final or time.monotonic() > deadline:
                return count
            time.sleep(0.05)

    def _list_executions(self) -> Iterator[Any]:
        """Yield the executions, the newest first."""
        executions = self._store.executionsList()
        return (executions.apply(i) for i in reversed(range(executions.size())))

    def _list_counts(self, execution_id: int) -> Iterator[int]:
        values = self._store.executionMetrics(execution_id)
        nodes = self._store.planGraph(execution_id).allNodes()
        for node in (nodes.apply(i) for i in range(nodes.size())):
            if node.name() == "ArrowEvalPython" and _IS_OURS.search(node.desc()):
                metrics = node.metrics()
                for metric in (metrics.apply(i) for i in range(metrics.size())):
                    if metric.name() == "number of output rows" and values.contains(metric.accumulatorId()):
                        yield int(values.apply(metric.accumulatorId()).replace(",", ""))


@contextmanager
def _watch_tasks(spark: SparkSession, show: Show) -> Iterator[None]:
    """Show the tasks that a Spark Connect session reports."""

    def handle(stages: Any, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        if stages:
            newest = max(stages, key=lambda stage: stage.stage_id)
            show(newest.num_completed_tasks, newest.num_tasks, "tasks")

    if not hasattr(spark, "registerProgressHandler"):
        yield
        return
    spark.registerProgressHandler(handle)  # type: ignore[arg-type]  # a function is enough
    try:
        yield
    finally:
        spark.removeProgressHandler(handle)  # type: ignore[arg-type]
