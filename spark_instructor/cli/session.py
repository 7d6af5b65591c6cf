"""The Spark session of a command: how it starts, and how Ctrl-C and SIGTERM end its jobs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


UNFINISHED = "_temporary"
"""Name of the folder in which Spark keeps what it writes until the job is finished."""


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


def runs_here(arguments: argparse.Namespace) -> bool:
    """Return whether the session will run on this machine and will read its files."""
    is_remote = arguments.remote or _is_submitted() or os.environ.get("HADOOP_CONF_DIR")
    return not is_remote and (arguments.master or "local").startswith("local")


def start_session(arguments: argparse.Namespace) -> SparkSession:
    """Return the session that the arguments ask for; start it if it does not run yet."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("spark-instructor embed")
    if arguments.remote:
        return builder.remote(arguments.remote).getOrCreate()
    if _is_submitted():
        if arguments.master:
            raise ValueError("if you use spark-submit, pass --master to spark-submit, before the script")
        return builder.getOrCreate()
    if arguments.master:
        builder = builder.master(arguments.master)
    if (arguments.master or "local").startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.config("spark.python.daemon.module", "spark_instructor.daemon")
        # The progress moves by Arrow batches, which heartbeats report.
        builder = builder.config("spark.executor.heartbeatInterval", "2s")
        builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "500")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if arguments.traceback:
        spark = builder.getOrCreate()
    else:
        _silence_loggers()
        with _without_stderr():
            spark = builder.getOrCreate()
    with suppress(ValueError):  # pyspark's own handler calls the JVM, even in the middle of another call
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return spark


def _is_submitted() -> bool:
    """Return whether spark-submit started this process, and has chosen the master and the Python."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _silence_loggers() -> None:
    """Silence the loggers that print what is in the exceptions anyway."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_py4j)
    with suppress(ImportError):  # Spark 3.5 has no loggers of its own
        from pyspark.logger import PySparkLogger

        for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
            PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    """Drop what py4j writes to the root logger if it is interrupted."""
    return "while sending command" not in str(record.msg)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Let the processes that start in the block, Spark's JVM and its workers, write their logs nowhere.

    What goes wrong in them is in the exceptions that Python gets.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def catch_signals() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt and SIGTERM raise `Terminated` in the block."""

    def terminate(*_: Any) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # this is not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(number, handler)


def delete_unfinished(spark: SparkSession, output: str) -> None:
    """Delete an output folder that an interrupted run left without data; only a classic session can do that."""
    from ..incremental import open_file_system
    from ..models.shipping import is_connect

    if is_connect(spark):
        return
    file_system, path = open_file_system(spark, output)
    if file_system.exists(path) and {status.getPath().getName() for status in file_system.listStatus(path)} <= {
        UNFINISHED
    }:
        file_system.delete(path, True)


def cancel_jobs(spark: SparkSession) -> None:
    """Cancel the jobs of a session.

    This thread may have been interrupted while it waited for an answer of the JVM, so its connection cannot be used.
    """
    from ..models.shipping import is_connect

    def cancel() -> None:
        with suppress(Exception), warnings.catch_warnings():
            # A JVM in the middle of a job may not answer; it ends with this process.
            warnings.filterwarnings("ignore", "Unable to cleanly shutdown Spark JVM process")
            if is_connect(spark):
                spark.interruptAll()
            else:
                spark.stop()

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    thread.join(timeout=20)
