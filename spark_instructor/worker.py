"""What a task does on an executor: it loads the model once per Python worker and embeds batches of rows."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .models.host_cache import HostModel, ModelLocation, locate_model

if TYPE_CHECKING:
    from .encoder import InstructorModel

VECTORS, TOKENS, TRUNCATED = "vectors", "tokens", "truncated"
"""Results for every input column; `name_result` gives their column names."""
DISTINCT, SECONDS = "distinct", "seconds"
"""Results for every frame, in its first row; the other rows have zeros."""

_MAX_MODELS = 2  # a worker that serves two stages in turn should not load a model for each batch


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one stage, as it travels to the executors."""

    model: ModelLocation
    nested: tuple[bool, ...]
    """For each input column, whether a row holds an array of texts."""
    with_counts: bool
    """Whether the result contains `TOKENS` and `TRUNCATED`."""
    with_metrics: bool
    """Whether the result contains `DISTINCT` and `SECONDS`."""
    instruction: str | None
    """The instruction for all rows; None if the last column of a frame holds the instruction of each row."""
    device: str
    max_length: int | None
    """Maximum number of tokens per text; None for the limit of the model."""
    batch_size: int | None
    """Maximum number of texts per forward pass; None for no maximum."""
    long_text: str


def name_result(name: str, index: int) -> str:
    """Return the name of a result column for input column number ``index``."""
    return f"{name}_{index}"


def embed_frames(arguments: dict[str, Any], frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Embed frames of texts; row i of a result belongs to row i of its frame.

    A null text gives a null vector, a null array gives a null, and a null element gives a null element. The result
    has the columns `VECTORS`, `TOKENS` and `TRUNCATED` for each input column, and `DISTINCT` and `SECONDS`, as far
    as the job asks for them.
    """
    job, model = _load_job(arguments)
    return (embed_frame(model, job, frame) for frame in frames)


def embed_series(
    arguments: dict[str, Any], batches: Iterator[pd.Series[Any] | tuple[pd.Series[Any], ...]]
) -> Iterator[pd.Series[Any]]:
    """Embed batches of texts, or of texts and instructions, which then replace the job's instruction."""
    job, model = _load_job(arguments)
    job_with_instructions = dataclasses.replace(job, instruction=None)

    def embed(batch: pd.Series[Any] | tuple[pd.Series[Any], ...]) -> pd.Series[Any]:
        columns: tuple[Any, ...] = batch if isinstance(batch, tuple) else (batch,)
        if not 1 <= len(columns) <= 2:
            raise ValueError(f"expected a text and optionally an instruction, got {len(columns)} arguments")
        for column in columns:
            _check_strings(column)
        frame = pd.concat(columns, axis=1)
        return embed_frame(model, job if len(columns) == 1 else job_with_instructions, frame)[name_result(VECTORS, 0)]

    return map(embed, batches)


def _check_strings(column: Any) -> None:
    """Raise TypeError if an argument of the function is not a column of strings, and say what to pass instead."""
    if isinstance(column, pd.DataFrame):
        raise TypeError(
            f"expected a column of texts, got a struct of {', '.join(map(str, column))}: pass one of its fields"
        )
    value = next((value for value in column if isinstance(value, (list, np.ndarray)) or not pd.isna(value)), "")
    if isinstance(value, (list, np.ndarray)):
        raise TypeError("expected a column of texts, got an array: explode it, or use InstructorEmbeddings")
    if not isinstance(value, str):
        raise TypeError(f"expected a column of texts, got one of {type(value).__name__}: cast it to string")


def embed_frame(model: InstructorModel, job: Job, frame: pd.DataFrame) -> pd.DataFrame:
    """Embed one frame of texts; see `embed_frames`."""
    columns = [_TextColumn(frame.iloc[:, i], is_nested) for i, is_nested in enumerate(job.nested)]
    instructions: str | list[str]
    if job.instruction is not None:
        instructions = job.instruction
    else:
        row_instructions = frame.iloc[:, -1].to_numpy(dtype=object)
        row_instructions = np.where(pd.isna(row_instructions), "", row_instructions)
        instructions = [row_instructions[row] for column in columns for row in column.row_of_text]
    start = time.perf_counter()
    encoded = model.encode_counted(
        instructions,
        [text for column in columns for text in column.texts],
        max_length=job.max_length,
        long_text=job.long_text,
        batch_size=job.batch_size,
    )
    results: dict[str, Iterator[Any]] = {VECTORS: iter(encoded.vectors)}
    if job.with_counts:
        results |= {TOKENS: iter(encoded.tokens.tolist()), TRUNCATED: iter(encoded.truncated.tolist())}
    result: pd.DataFrame = pd.DataFrame(index=range(len(frame)))
    for i, column in enumerate(columns):
        for name, values in results.items():
            result[name_result(name, i)] = column.restore_rows(values)
    if job.with_metrics:
        is_first = np.arange(len(frame)) == 0
        result[DISTINCT] = is_first * encoded.distinct
        result[SECONDS] = is_first * (time.perf_counter() - start)
    return result


class _TextColumn:
    """The texts of one column in a flat list, and the way back from one value per text to one value per row."""

    def __init__(self, series: pd.Series[Any], is_nested: bool) -> None:
        self._is_nested = is_nested
        self._cells = [self._list_texts(value) for value in series]
        self.texts = [text for cell in self._cells for text in cell or [] if text is not None]
        self.row_of_text = [row for row, cell in enumerate(self._cells) for text in cell or [] if text is not None]

    def _list_texts(self, value: Any) -> list[str | None] | None:
        """Return the texts of a row; None if the row is null (pandas may represent a null string as NaN)."""
        if self._is_nested:
            return None if value is None else [None if pd.isna(text) else text for text in value]
        return None if pd.isna(value) else [value]

    def restore_rows(self, values: Iterator[Any]) -> pd.Series[Any]:
        """Take one value per text and return one value per row, or one list per row; nulls stay where texts are null.

        The columns of a frame take their values from the same iterator, one column after the other.
        """
        rows = [
            None if cell is None else [None if text is None else next(values) for text in cell] for cell in self._cells
        ]
        return pd.Series(rows if self._is_nested else [row if row is None else row[0] for row in rows], dtype=object)


_models: OrderedDict[tuple[HostModel, str], InstructorModel] = OrderedDict()
_models_lock = threading.Lock()


def _load_job(arguments: dict[str, Any]) -> tuple[Job, InstructorModel]:
    """Return the job and its model, on the device and with the CPUs of this task."""
    from pyspark import TaskContext

    job = Job(**{**arguments, "model": ModelLocation(**arguments["model"])})
    task = TaskContext.get()
    _use_cpus(task.cpus() if task is not None else 1)
    from .encoder import prepare_model

    return job, load_cached(locate_model(job.model, prepare=prepare_model), choose_device(job.device, task))


def load_cached(model: HostModel, device: str) -> InstructorModel:
    """Return a loaded model; this process keeps the most recently used ones."""
    key = (model, device)
    with _models_lock:
        loaded = _models.pop(key, None)
        if loaded is None:
            from .encoder import InstructorModel

            loaded = InstructorModel.load(model.folder, device)
        _models[key] = loaded
        while len(_models) > _MAX_MODELS:
            _models.popitem(last=False)
        return loaded


def _use_cpus(cpus: int) -> None:
    """Limit torch and the tokenizer to the CPUs of the task: Spark runs one task per slot, each with its own CPUs.

    OpenMP reads its variables when torch is first imported, which a worker does here. Threads that spin while they
    wait would take the CPUs of the other tasks on the host and slow them down severalfold.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(cpus)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if cpus > 1 else "false"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(cpus)


def choose_device(device: str, task: Any = None) -> str:
    """Return the torch device for "auto", "cpu" or "cuda": the GPU that Spark assigned to the task, if there is one.

    Raises RuntimeError if ``device`` is "cuda" and torch finds no GPU.
    """
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError(
            "device is 'cuda', but torch finds no GPU on this machine. Use setDevice('auto'), or a cluster with GPUs "
            "and a CUDA build of torch."
        )
    gpus = task.resources().get("gpu") if task is not None else None
    return f"cuda:{gpus.addresses[0]}" if gpus is not None else "cuda:0"
