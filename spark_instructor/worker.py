"""What runs on an executor: loading the model once a Python worker, embedding batches of rows."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .models.host_cache import Shipped, locate, verified

if TYPE_CHECKING:
    from pyspark.sql.types import ArrayType, StructType

    from .encoder import InstructorModel

HOW_TO_INSTALL = (
    "The Python workers of the executors need spark-instructor-embeddings and its packages (torch, tokenizers, "
    "safetensors), like the driver. Databricks: %pip install spark-instructor-embeddings in the notebook, or name it "
    "in the serverless environment. Other clusters: install it on every node, or ship a packed environment "
    "(venv-pack, then spark.archives=env.tar.gz#env and PYSPARK_PYTHON=./env/bin/python)."
)

_MODELS_KEPT = 2  # a worker that serves two stages in turn should not load at each batch


@dataclasses.dataclass(frozen=True)
class Job:
    """One stage's work as it travels to the executors."""

    model: Shipped
    nested: tuple[bool, ...]
    """For each input column, whether a row holds an array of texts."""
    counted: bool
    """Whether tokens and truncated flags go back beside the vectors."""
    observed: bool
    """Whether the distinct texts and the seconds of each frame go back, on its first row."""
    instruction: str | None
    """The stage's instruction; None where each row brings its own, in the frame's last column."""
    device: str
    max_length: int | None
    max_batch: int | None
    long_text: str


def on_executor(function: str, plain: dict[str, Any]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """What a task calls: ``function`` (a dotted name in this package) with ``plain`` and its batches.

    It is pickled by value and holds plain values alone, so that a worker without this package gets as far
    as saying so.
    """
    how_to_install = HOW_TO_INSTALL

    def call(batches: Iterator[Any]) -> Iterator[Any]:
        from importlib import import_module

        module, _, name = function.rpartition(".")
        try:
            results = getattr(import_module(f"spark_instructor.{module}"), name)(plain, batches)
        except ImportError as error:
            raise ImportError(f"{error}. {how_to_install}", name=error.name) from error
        yield from results

    return call


def embedding_udf(job: Job, returns: StructType) -> Any:
    """The pandas UDF of a stage: one struct of text columns in, one struct of vector columns out."""
    from pyspark.sql.pandas.functions import pandas_udf

    call = on_executor("worker.embed_frames", dataclasses.asdict(job))

    def embed(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        return call(frames)

    return pandas_udf(embed, returns)  # type: ignore[call-overload]  # its stubs know no kind inferred from hints


def embedding_function(job: Job, returns: ArrayType) -> Any:
    """The pandas UDF for expressions: a column of texts in, or texts and instructions, a column of vectors out."""
    from pyspark.sql.pandas.functions import pandas_udf

    call = on_executor("worker.embed_series", dataclasses.asdict(job))

    def embed(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.Series]:
        return call(batches)

    return pandas_udf(embed, returns)  # type: ignore[call-overload]


def embed_frames(plain: dict[str, Any], frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Embed frames of texts; row i of each result belongs to row i of its frame.

    A null text gives a null vector, a null array a null array, an element that is null a null element.
    The result has, for each input column i, the vectors ``v<i>`` and, where counted, ``n<i>`` (tokens) and
    ``t<i>`` (truncated); where observed also ``distinct`` and ``seconds``.
    """
    job, model = _job_and_model(plain)
    return (embed_frame(model, job, frame) for frame in frames)


def embed_series(
    plain: dict[str, Any], batches: Iterator[pd.Series[Any] | tuple[pd.Series[Any], ...]]
) -> Iterator[pd.Series[Any]]:
    """Embed batches of texts, or of texts with an instruction each, which then wins over the job's."""
    job, model = _job_and_model(plain)
    of_row = dataclasses.replace(job, instruction=None)

    def embed(batch: pd.Series[Any] | tuple[pd.Series[Any], ...]) -> pd.Series[Any]:
        columns: tuple[Any, ...] = batch if isinstance(batch, tuple) else (batch,)
        if len(columns) > 2:
            raise ValueError(f"expected a text and perhaps an instruction, got {len(columns)} arguments")
        for column in columns:
            if isinstance(column, pd.DataFrame):
                raise TypeError(
                    f"expected a column of texts, got a struct of {', '.join(map(str, column))}: pass one of its fields"
                )
        return embed_frame(model, job if len(columns) == 1 else of_row, pd.concat(columns, axis=1))["v0"]

    return map(embed, batches)


def _job_and_model(plain: dict[str, Any]) -> tuple[Job, InstructorModel]:
    job = Job(**{**plain, "model": Shipped(**plain["model"])})
    return job, _task_model(job)


def embed_frame(model: InstructorModel, job: Job, frame: pd.DataFrame) -> pd.DataFrame:
    """Embed one frame of texts; see `embed_frames`."""
    columns = [_Column(frame.iloc[:, i], nested) for i, nested in enumerate(job.nested)]
    instructions: str | list[str]
    if job.instruction is not None:
        instructions = job.instruction
    else:
        of_row = frame.iloc[:, -1].to_numpy(dtype=object)
        of_row = np.where(pd.isna(of_row), "", of_row)
        instructions = [of_row[row] for column in columns for row in column.row_of_text]
    start = time.perf_counter()
    encoded = model.encode_counted(
        instructions,
        [text for column in columns for text in column.texts],
        max_length=job.max_length,
        long_text=job.long_text,
        max_batch=job.max_batch,
    )
    vectors, tokens, truncated = iter(encoded.vectors), iter(encoded.tokens.tolist()), iter(encoded.truncated.tolist())
    result: pd.DataFrame = pd.DataFrame(index=range(len(frame)))
    for i, column in enumerate(columns):
        result[f"v{i}"] = column.rows(vectors)
        if job.counted:
            result[f"n{i}"] = column.rows(tokens)
            result[f"t{i}"] = column.rows(truncated)
    if job.observed:
        first = np.arange(len(frame)) == 0
        result["distinct"] = first * encoded.distinct
        result["seconds"] = first * (time.perf_counter() - start)
    return result


class _Column:
    """One column's texts in a row, and the way back from a value for each text to one for each row."""

    def __init__(self, series: pd.Series[Any], nested: bool) -> None:
        self._nested = nested
        self._cells = [self._cell(value, nested) for value in series]
        self.texts = [text for cell in self._cells for text in cell or [] if text is not None]
        self.row_of_text = [row for row, cell in enumerate(self._cells) for text in cell or [] if text is not None]

    @staticmethod
    def _cell(value: Any, nested: bool) -> list[str | None] | None:
        """A row's texts; None where the row is null (pandas may spell a null string NaN)."""
        if nested:
            return None if value is None else [None if pd.isna(text) else text for text in value]
        return None if pd.isna(value) else [value]

    def rows(self, values: Iterator[Any]) -> pd.Series[Any]:
        """Take a value for each text, and give each row its own or the list of its own, nulls where texts were null."""
        rows = [
            None if cell is None else [None if text is None else next(values) for text in cell] for cell in self._cells
        ]
        return pd.Series(rows if self._nested else [row if row is None else row[0] for row in rows], dtype=object)


_models: OrderedDict[tuple[str, ...], InstructorModel] = OrderedDict()
_models_lock = threading.Lock()


def _task_model(job: Job) -> InstructorModel:
    """The job's model on this task's device and cpus, loaded once in the life of a Python worker."""
    from pyspark import TaskContext

    task = TaskContext.get()
    _use_cpus(task.cpus() if task is not None else 1)
    folder = str(locate(job.model))
    return cached_model(folder, torch_device(job.device, task), verified(folder))


def cached_model(prepared: str, device: str, state: str = "") -> InstructorModel:
    """A loaded model of this process, by folder, device and its files' state; the least used one makes room."""
    key = (prepared, device, state)
    with _models_lock:
        model = _models.pop(key, None)
        if model is None:
            from .encoder import InstructorModel

            model = InstructorModel.load(prepared, device)
        _models[key] = model
        while len(_models) > _MODELS_KEPT:
            _models.popitem(last=False)
        return model


def _use_cpus(cpus: int) -> None:
    """Keep torch and the tokenizer to the task's cpus: Spark runs one task a slot, each with its own.

    OpenMP reads its variables when torch is first imported, which in a worker is here. Threads that spin
    while they wait would take the cpus of the other tasks of the host, and cost several times their speed.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(cpus)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if cpus > 1 else "false"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(cpus)


def torch_device(wanted: str, task: Any = None) -> str:
    """The torch device of this task: its own GPU where Spark assigned it one."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError(
            "device is 'cuda', but torch finds no GPU on this executor. Use setDevice('auto'), or a cluster with GPUs "
            "and a CUDA build of torch."
        )
    gpus = task.resources().get("gpu") if task is not None else None
    return f"cuda:{gpus.addresses[0]}" if gpus is not None else "cuda:0"
