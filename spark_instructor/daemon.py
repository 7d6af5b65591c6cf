"""A daemon for Spark's Python workers that imports torch, and loads a model, once for all of them.

Spark forks its Python workers from one process per executor. By default, that process has imported nothing, so each
worker imports torch and loads the model for itself. With ``spark.python.daemon.module=spark_instructor.daemon``, the
workers start with both, in memory that they share. SPARK_INSTRUCTOR_PRELOAD in the environment of the executors is the
folder of a prepared model, or the name of a model that is installed as a wheel. All jobs run as they do without this
daemon, including those with other models or other UDFs.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.daemon import manager

PRELOAD = "SPARK_INSTRUCTOR_PRELOAD"


def preload() -> None:
    """Import what a worker needs, and load the model that the environment names.

    An error does not stop the daemon: a worker that needs what is missing reports it in its task.
    """
    model = os.environ.get(PRELOAD)
    try:
        _import_modules()
        if model:
            _load_model(model)
    except Exception as error:
        print(f"spark_instructor.daemon: {PRELOAD}={model or ''}: {error}", file=sys.stderr)
    # Without this, the garbage collection of each worker would write to the memory that the workers share.
    gc.collect()
    gc.freeze()


def _import_modules() -> None:
    """Import what a worker would import. No thread may start here, because a fork would not copy it.

    Spark sets OMP_NUM_THREADS for the daemon, so numpy starts none, either.
    """
    from .worker import use_cpus

    use_cpus(1)
    import pyspark.worker  # noqa: F401

    from .encoder import model  # noqa: F401


def _load_model(name_or_folder: str) -> None:
    """Load a prepared model as a task does, and pack its weights, so that no worker has to.

    It is for workers without a GPU. CUDA does not work after a fork if it was used before, so this daemon never asks
    for a GPU; a worker that has one loads the model there by itself.
    """
    from .encoder import prepare_model
    from .models.host_cache import ModelLocation, locate_model
    from .models.installed import find_installed
    from .worker import load_cached

    folder = str(find_installed(name_or_folder) or name_or_folder)
    location = ModelLocation(name=name_or_folder, folder_name="", path=folder, archive=None)
    load_cached(locate_model(location, prepare=prepare_model), "cpu").pack()


@contextmanager
def _print_to_stderr() -> Iterator[None]:
    """Send what libraries print to stderr, since Spark reads the daemon's port from its stdout."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


if __name__ == "__main__":
    # Spark 4 also forks workers that read data sources or run streams. Spark 3.5 does not name the kind.
    if sys.argv[1:2] in ([], ["pyspark.worker"]):
        with _print_to_stderr():
            preload()
    manager()
