"""What a task does on an executor: it loads the model once per Python worker and embeds batches of rows."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from .arrays import TextColumn, count_elements, cut_rows, is_nested, list_strings
from .models.host_cache import HostModel, ModelLocation, locate_model
from .vectors import build_cells, check_finite, decode_vectors, encode_vectors

if TYPE_CHECKING:
    from .encoder import InstructorModel

VECTORS, TOKENS, TRUNCATED = "vectors", "tokens", "truncated"
"""Results for every input column; `name_result` gives their column names."""
DISTINCT, UNKNOWN, SECONDS = "distinct", "unknown", "seconds"
"""Results for every piece of a batch, in its first row; the other rows have zeros."""

# A batch is embedded in pieces, so that memory does not grow with the rows of a batch or the texts of a row. By default
# Spark's batches have 10,000 rows, and 10,000 short texts are one piece.
_MAX_BYTES = 32_000_000
_BYTES_PER_TEXT = 3_200  # at least, because of its vector
_TEXTS_PER_PANDAS_PIECE = 500

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
    """Whether the result contains `DISTINCT`, `UNKNOWN` and `SECONDS`."""
    instruction: str | None
    """The instruction for all rows; None if the last column of a frame holds the instruction of each row."""
    device: str
    max_length: int | None
    """Maximum number of tokens per text; None for the limit of the model."""
    batch_size: int | None
    """Maximum number of texts per forward pass; None for no maximum."""
    long_text: str
    output_type: str
    """How the vectors are encoded; see `encode_vectors`."""


def name_result(name: str, index: int) -> str:
    """Return the name of a result column for input column number ``index``."""
    return f"{name}_{index}"


def embed_structs(arguments: dict[str, Any], structs: Iterator[pa.StructArray]) -> Iterator[pa.StructArray]:
    """Embed structs of texts; row i of the results belongs to row i of the structs.

    A field of a struct holds a text per row, or a list of texts; the last one holds the instructions if the job has
    none. The result has the fields `VECTORS`, `TOKENS` and `TRUNCATED` for each field of texts, and `DISTINCT`,
    `UNKNOWN` and `SECONDS`, as far as the job asks for them. A null text gives a null vector, a null list gives a null,
    and a null element gives a null element. The results of a struct come in pieces, so that memory does not grow with
    its size.
    """
    job, model = _load_job(arguments)
    return (piece for struct in structs for piece in embed_columns(model, job, struct.flatten()))


def embed_arrays(
    arguments: dict[str, Any], batches: Iterator[pa.Array | tuple[pa.Array, ...]]
) -> Iterator[pa.ListArray]:
    """Embed arrays of texts, or of texts and instructions, which then replace the job's instruction."""
    job, model = _load_job(arguments)
    job_with_instructions = dataclasses.replace(job, instruction=None)

    def embed(batch: pa.Array | tuple[pa.Array, ...]) -> Iterator[pa.StructArray]:
        columns = [_read_texts(column) for column in (batch if isinstance(batch, tuple) else (batch,))]
        if not 1 <= len(columns) <= 2:
            raise ValueError(f"expected a text and optionally an instruction, got {len(columns)} arguments")
        return embed_columns(model, job if len(columns) == 1 else job_with_instructions, columns)

    return (piece.field(0) for batch in batches for piece in embed(batch))


def embed_frames(arguments: dict[str, Any], frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Do what `embed_structs` does, for a pandas UDF."""
    types = [pa.list_(pa.string()) if is_list else pa.string() for is_list in arguments["nested"]]

    def to_struct(frame: pd.DataFrame) -> pa.StructArray:
        fields = zip_longest(frame, types, fillvalue=pa.string())  # the last column may hold instructions
        return pa.StructArray.from_arrays([_to_arrow(frame[name], type_) for name, type_ in fields], list(frame))

    def to_frame(piece: pa.StructArray) -> pd.DataFrame:
        names = [field.name for field in piece.type]
        return pd.DataFrame({name: piece.field(name).to_pandas(integer_object_nulls=True) for name in names})

    results = embed_structs(arguments, map(to_struct, frames))
    return (to_frame(piece) for struct in results for piece in _cut_for_pandas(struct))


def embed_series(
    arguments: dict[str, Any], batches: Iterator[pd.Series[Any] | tuple[pd.Series[Any], ...]]
) -> Iterator[pd.Series[Any]]:
    """Do what `embed_arrays` does, for a pandas UDF."""
    arrays = (tuple(map(_to_arrow, batch if isinstance(batch, tuple) else (batch,))) for batch in batches)
    return (piece.to_pandas() for vectors in embed_arrays(arguments, arrays) for piece in _cut_for_pandas(vectors))


def convert_arrays(arguments: dict[str, Any], batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
    """Convert cells of vectors to another output type; a null stays a null."""
    for cells in batches:
        vectors, rows = decode_vectors(cells, arguments["metadata"], arguments["name"])
        if arguments["output_type"] in ("int8", "binary"):  # these cannot represent them
            check_finite(vectors, arguments["name"])
        yield build_cells(encode_vectors(vectors, arguments["output_type"]), np.isin(np.arange(len(cells)), rows))


def convert_series(arguments: dict[str, Any], batches: Iterator[pd.Series[Any]]) -> Iterator[pd.Series[Any]]:
    """Do what `convert_arrays` does, for a pandas UDF."""

    def to_cells(batch: pd.Series[Any]) -> pa.Array:
        cells = _to_arrow(batch)
        return cells.cast(pa.list_(pa.float32())) if pa.types.is_null(cells.type) else cells  # any type of vectors

    arrays = (piece for batch in batches for piece in _cut_for_pandas(to_cells(batch)))
    return (cells.to_pandas() for cells in convert_arrays(arguments, arrays))


def embed_columns(model: InstructorModel, job: Job, columns: Sequence[pa.Array]) -> Iterator[pa.StructArray]:
    """Embed the columns of a batch; see `embed_structs`."""
    text_columns = [TextColumn(column) for column in columns[: len(job.nested)]]
    sizes = [np.maximum(column.count_texts() * _BYTES_PER_TEXT, column.count_bytes()) for column in text_columns]
    for rows in cut_rows(np.sum(sizes, axis=0), _MAX_BYTES):
        yield _embed_rows(model, job, [column[rows] for column in columns])


def _embed_rows(model: InstructorModel, job: Job, columns: Sequence[pa.Array]) -> pa.StructArray:
    text_columns = [TextColumn(column) for column in columns[: len(job.nested)]]
    texts = [column.list_texts() for column in text_columns]
    instructions: str | list[str | None]
    if job.instruction is not None:
        instructions = job.instruction
    else:
        row_instructions = np.array(list_strings(columns[-1]), dtype=object)
        instructions = [own for column in text_columns for own in column.repeat_for_texts(row_instructions)]
    start = time.perf_counter()
    encoded = model.encode_counted(
        instructions,
        [text for of_column in texts for text in of_column],
        max_length=job.max_length,
        long_text=job.long_text,
        batch_size=job.batch_size,
    )
    values: dict[str, npt.NDArray[Any]] = {VECTORS: encode_vectors(encoded.vectors, job.output_type)}
    if job.with_counts:
        values |= {TOKENS: encoded.tokens, TRUNCATED: encoded.truncated}
    fields: dict[str, pa.Array] = {}
    first = 0
    for i, column in enumerate(text_columns):
        of_column = slice(first, first + len(texts[i]))
        fields |= {name_result(name, i): column.restore_rows(values[name][of_column]) for name in values}
        first = of_column.stop
    if job.with_metrics:
        is_first = np.arange(len(columns[0])) == 0
        fields[DISTINCT] = pa.array((is_first * encoded.distinct).astype(np.int32))
        fields[UNKNOWN] = pa.array((is_first * encoded.unknown.sum()).astype(np.int32))
        fields[SECONDS] = pa.array(is_first * (time.perf_counter() - start))
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def _read_texts(column: pa.Array) -> pa.Array:
    """Return an argument of an expression; raise TypeError if it is not a column of texts, and say what to pass."""
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if pa.types.is_struct(column.type):
        names = ", ".join(field.name for field in column.type)
        raise TypeError(f"expected a column of texts, got a struct of {names}: pass one of its fields")
    if is_nested(column.type):
        raise TypeError("expected a column of texts, got an array: explode it, or use InstructorEmbeddings")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise TypeError(f"expected a column of texts, got one of {column.type}: cast it to string")
    return column


def _to_arrow(column: pd.Series[Any] | pd.DataFrame, type_: pa.DataType | None = None) -> pa.Array:
    """Return an argument of a pandas UDF as an array."""
    if isinstance(column, pd.DataFrame):
        return pa.array(column.to_dict("records"))
    return pa.array(column, type_, from_pandas=True)  # pandas has several nulls


def _cut_for_pandas(array: pa.Array) -> Iterator[pa.Array]:
    """Cut a result into small pieces, because pyspark makes Python objects of the numbers of a pandas result."""
    fields = array.flatten() if pa.types.is_struct(array.type) else [array]
    texts = [
        count_elements(field)
        if is_nested(field.type) and _is_cell(field.type.value_type)
        else np.ones(len(field), np.int64)
        for field in fields
        if _is_cell(field.type)
    ]
    return (array[rows] for rows in cut_rows(np.sum(texts, axis=0), _TEXTS_PER_PANDAS_PIECE))


def _is_cell(type_: pa.DataType) -> bool:
    """Return whether an Arrow type may be that of a vector, or of several."""
    return is_nested(type_) or bool(pa.types.is_binary(type_))


_models: OrderedDict[tuple[HostModel, str], InstructorModel] = OrderedDict()
_models_lock = threading.Lock()


def _load_job(arguments: dict[str, Any]) -> tuple[Job, InstructorModel]:
    """Return the job and its model, on the device and with the CPUs of this task."""
    from pyspark import TaskContext

    job = Job(**{**arguments, "model": ModelLocation(**arguments["model"])})
    task = TaskContext.get()
    use_cpus(task.cpus() if task is not None else 1)
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


def use_cpus(cpus: int) -> None:
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
