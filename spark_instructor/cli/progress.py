"""A progress bar for a Spark job that embeds, computed from its finished tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

from ..models.shipping import is_connect

_POLL_SECONDS = 0.5


@contextmanager
def show_progress(spark: SparkSession, rows: int, tokens: float, tasks: int) -> Iterator[None]:
    """Show a bar on stderr, if that is a terminal, while the block runs a job whose last stage has ``tasks`` tasks.

    The driver hears of finished tasks and not of rows, so the bar moves by each task's share of ``rows`` and of
    ``tokens`` (an estimate). Spark Connect reports tasks from version 4.0.
    """
    bar = tqdm(
        total=rows,
        disable=None,  # on anything but a terminal
        leave=False,
        bar_format="{percentage:3.0f}% |{bar:30}| {n_fmt} of {total_fmt} texts{postfix}, {remaining} left",
    )

    def update(finished_tasks: int) -> None:
        elapsed = bar.format_dict["elapsed"]
        bar.n = max(bar.n, rows * finished_tasks // tasks)  # another stage may have the same number of tasks
        if finished_tasks and elapsed:
            token_rate = tokens * finished_tasks / tasks / elapsed
            bar.set_postfix_str(f"{bar.n / elapsed:,.1f} texts/s, {token_rate:,.0f} tokens/s")
        bar.refresh()

    watch = _watch_connect if is_connect(spark) else _watch_classic
    with bar, watch(spark, tasks, update):
        yield


@contextmanager
def _watch_classic(spark: SparkSession, tasks: int, update: Callable[[int], None]) -> Iterator[None]:
    """Poll the status tracker of a classic session."""
    tracker = spark.sparkContext.statusTracker()
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            stages = [tracker.getStageInfo(stage) for stage in sorted(tracker.getActiveStageIds())]
            finished = [stage.numCompletedTasks for stage in stages if stage is not None and stage.numTasks == tasks]
            if finished:
                update(finished[-1])

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _watch_connect(spark: SparkSession, tasks: int, update: Callable[[int], None]) -> Iterator[None]:
    """Let a Spark Connect session report its tasks."""

    def handle(stages: Any, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        finished = [stage.num_completed_tasks for stage in stages or () if stage.num_tasks == tasks]
        if finished:
            update(finished[-1])

    if not hasattr(spark, "registerProgressHandler"):
        yield
        return
    spark.registerProgressHandler(handle)  # type: ignore[arg-type]  # a function is enough
    try:
        yield
    finally:
        spark.removeProgressHandler(handle)  # type: ignore[arg-type]
