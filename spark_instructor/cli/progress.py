"""A live bar for a Spark job that embeds: what its finished tasks amount to in texts, tokens and time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

from ..models.shipping import is_connect

_SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def progress_bar(spark: SparkSession, rows: int, tokens: float, tasks: int) -> Iterator[None]:
    """Show a bar on stderr, where that is a terminal, while the block runs a job whose last stage has ``tasks``.

    A driver hears of finished tasks, not of rows, so the bar moves by a task's share of ``rows`` and of
    ``tokens`` (an estimate). Spark Connect tells of tasks from version 4.0.
    """
    bar = tqdm(
        total=rows,
        disable=None,  # on anything but a terminal
        leave=False,
        bar_format="{percentage:3.0f}% |{bar:30}| {n_fmt} of {total_fmt} texts{postfix}, {remaining} left",
    )

    def show(done: int) -> None:
        elapsed = bar.format_dict["elapsed"]
        bar.n = max(bar.n, rows * done // tasks)  # another stage may have as many tasks
        if done and elapsed:
            bar.set_postfix_str(f"{bar.n / elapsed:,.1f} texts/s, {tokens * done / tasks / elapsed:,.0f} tokens/s")
        bar.refresh()

    watch = _told if is_connect(spark) else _polled
    with bar, watch(spark, tasks, show):
        yield


@contextmanager
def _polled(spark: SparkSession, tasks: int, show: Callable[[int], None]) -> Iterator[None]:
    """Look at the tasks of a classic session from time to time."""
    tracker = spark.sparkContext.statusTracker()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            stages = [tracker.getStageInfo(stage) for stage in sorted(tracker.getActiveStageIds())]
            done = [stage.numCompletedTasks for stage in stages if stage is not None and stage.numTasks == tasks]
            if done:
                show(done[-1])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _told(spark: SparkSession, tasks: int, show: Callable[[int], None]) -> Iterator[None]:
    """Have Spark Connect tell of the tasks."""

    def handler(stages: Any, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        completed = [stage.num_completed_tasks for stage in stages or () if stage.num_tasks == tasks]
        if completed:
            show(completed[-1])

    if not hasattr(spark, "registerProgressHandler"):
        yield
        return
    spark.registerProgressHandler(handler)  # type: ignore[arg-type]  # a function will do
    try:
        yield
    finally:
        spark.removeProgressHandler(handler)  # type: ignore[arg-type]
