"""From the driver to the executors: what a task calls, and the UDFs that embed columns of texts."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from . import chunks
from .chunks import SplitJob
from .columns import VECTOR, VECTOR_TYPES, column, get_output_type, is_same_type
from .sentences import SentenceFinder
from .worker import DISTINCT, SECONDS, TOKENS, TRUNCATED, UNKNOWN, VECTORS, Job, name_result

_arrow_udf: Any = getattr(F, "arrow_udf", None)
"""Creates a UDF of Arrow arrays; None before Spark 4.1, where every vectorized UDF takes and returns pandas objects."""

UDF_NAMES = ("embed_structs", "embed_frames", "embed_arrays", "embed_series")
"""Names of the UDFs that embed, in Spark's plans."""

_PACKAGES = ("pandas", "pyarrow", "torch")

_HOW_TO_INSTALL = (
    "The Python workers of the executors need spark-instructor-embeddings and its packages (torch, tokenizers, "
    "safetensors), like the driver. Databricks: run %pip install spark-instructor-embeddings in the notebook, or add "
    "it to the serverless environment. Other clusters: install it on every node, or send a packed environment "
    "(venv-pack, then spark.archives=env.tar.gz#env and PYSPARK_PYTHON=./env/bin/python)."
)

_HOW_TO_GET_MEMORY = (
    "This Python worker ran out of memory while it loaded torch and the model. If spark.executor.pyspark.memory is "
    "set, Spark divides it by the executor's cores and limits the address space of each worker to that, which includes "
    "all of torch's libraries and the mapped model. Leave it unset, or set it to at least 2 GB per core for "
    "instructor_base in float32 and 1.5 GB per core in bfloat16."
)


def on_executor(function: str, arguments: dict[str, Any]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return what a task calls with its batches: ``function`` of this package, with ``arguments`` and the batches.

    ``function`` is a dotted name such as "worker.embed_frames". The returned function is pickled by value and holds
    only plain values, so a worker that lacks this package gets far enough to say so.
    """
    how_to_install, how_to_get_memory, driver_python = _HOW_TO_INSTALL, _HOW_TO_GET_MEMORY, sys.executable

    def call(batches: Iterator[Any]) -> Iterator[Any]:
        import sys
        from importlib import import_module

        module, _, name = function.rpartition(".")
        try:
            results = getattr(import_module(f"spark_instructor.{module}"), name)(arguments, batches)
        except MemoryError as error:
            raise MemoryError(f"{error}. {how_to_get_memory}") from error
        except ImportError as error:
            if "failed to map" in str(error) or "allocate memory" in str(error):
                raise MemoryError(f"{error}. {how_to_get_memory}") from error
            pythons = f"This worker runs {sys.executable}, the driver {driver_python}: set PYSPARK_PYTHON. "
            which = pythons if sys.executable != driver_python else ""
            raise ImportError(f"{error}. {which}{how_to_install}", name=error.name) from error
        yield from results

    return call


@lru_cache
def check_worker_python(python: str) -> None:
    """Raise ImportError if the Python that Spark's workers run on this machine lacks a package that they need."""
    path = shutil.which(python)
    if path is None or path == sys.executable:
        return
    code = f"from importlib.util import find_spec; print(*[n for n in {_PACKAGES!r} if find_spec(n) is None])"
    missing = subprocess.run([path, "-c", code], capture_output=True, text=True).stdout.split()
    if missing:
        raise ImportError(
            f"Spark's Python workers run {path}, which lacks {', '.join(missing)}; this process runs {sys.executable}. "
            "Before the session starts, set os.environ['PYSPARK_PYTHON'] = sys.executable"
        )


def create_stage_udf(job: Job, has_null_texts: Iterable[bool]) -> Any:
    """Return the UDF of a stage.

    It takes a struct with one column of texts per input column, and the column of instructions if the rows have
    their own. It returns a struct; see `create_result_type`.
    """
    result_type = create_result_type(job, has_null_texts)
    functions = ("worker.embed_structs", "worker.embed_frames")
    takes = (Iterator[pa.Array], Iterator[pd.DataFrame])
    return _create_udf(functions, dataclasses.asdict(job), result_type, takes)


def create_expression_udf(job: Job) -> Any:
    """Return the UDF for expressions: it takes texts, or texts and instructions, and returns vectors."""
    functions = ("worker.embed_arrays", "worker.embed_series")
    takes = (Iterator[tuple[pa.Array, ...]], Iterator[tuple[pd.Series, ...]])
    return _create_udf(functions, dataclasses.asdict(job), VECTOR, takes)


def create_splitter_udf(job: SplitJob) -> Any:
    """Return the UDF of a `DocumentTokenSplitter`: it does what `chunks.split_arrays` does."""
    functions = ("chunks.split_arrays", "chunks.split_series")
    return _create_udf(functions, dataclasses.asdict(job), _create_pieces_type(chunks.CHUNK_NUMBERS))


def create_sentences_udf(finder: SentenceFinder) -> Any:
    """Return the UDF of a `SentenceDetector`: it does what `chunks.detect_arrays` does."""
    functions = ("chunks.detect_arrays", "chunks.detect_series")
    return _create_udf(functions, dataclasses.asdict(finder), _create_pieces_type(chunks.SENTENCE_NUMBERS))


def _create_pieces_type(numbers: Iterable[str]) -> StructType:
    """Return the SQL type of the pieces of a row's texts: arrays of their numbers and of their texts."""
    result_type = StructType()
    for name in numbers:
        result_type.add(name, ArrayType(IntegerType()))
    return result_type.add(chunks.TEXT, ArrayType(StringType()))


def _create_udf(
    functions: tuple[str, str],
    arguments: dict[str, Any],
    result_type: DataType,
    takes: tuple[Any, Any] = (Iterator[pa.Array], Iterator[pd.Series]),
) -> Any:
    """Return a UDF that calls `on_executor` with the function for Arrow arrays or with the one for pandas objects.

    ``functions`` names these two functions, and ``takes`` holds the types of what they take.
    """
    create: Any
    results: Any
    if _arrow_udf is not None:
        create, function, batches, results = _arrow_udf, functions[0], takes[0], Iterator[pa.Array]
    else:
        create, function, batches = pandas_udf, functions[1], takes[1]
        results = Iterator[pd.DataFrame] if isinstance(result_type, StructType) else Iterator[pd.Series]
    call = on_executor(function, arguments)
    call.__name__ = function.rpartition(".")[2]  # Spark's plans show it
    call.__annotations__ = {"batches": batches, "return": results}  # from these, Spark infers the kind of the UDF
    return create(call, result_type)


def convert_vectors(field: StructField, output_type: str, reader: str) -> Column:
    """Return the vectors of a column in another output type.

    Raises ValueError, naming the column, if it holds no vectors; see `get_output_type`.
    """
    vectors, found = column(field.name), get_output_type(field, reader)
    if found == "vector":
        vectors, found = _to_floats(vectors), "float"
    elif is_same_type(field.dataType, ArrayType(DoubleType())):
        vectors = vectors.cast("array<float>")
    encoded_type = "float" if output_type == "vector" else output_type
    if found != encoded_type:
        vectors = _create_conversion_udf(field, encoded_type)(vectors)
    return to_ml_vector(vectors) if output_type == "vector" else vectors


def to_ml_vector(floats: Column) -> Column:
    """Return the pyspark.ml vector of an array of floats, or null for null."""
    from pyspark.ml.functions import array_to_vector  # on 3.5 this needs a session, as it looks up the JVM

    # array_to_vector fails on null, and `when` does not prevent the call.
    return F.when(floats.isNotNull(), array_to_vector(F.coalesce(floats, F.array().cast("array<float>"))))


def _to_floats(vector: Column) -> Column:
    """Return the array of floats of a pyspark.ml vector, or null for null."""
    from pyspark.ml.functions import array_to_vector, vector_to_array

    no_floats = array_to_vector(F.array().cast("array<float>"))  # for the same reason
    return F.when(vector.isNotNull(), vector_to_array(F.coalesce(vector, no_floats), "float32"))


def _create_conversion_udf(field: StructField, output_type: str) -> Any:
    arguments = {"metadata": dict(field.metadata or {}), "name": field.name, "output_type": output_type}
    return _create_udf(("worker.convert_arrays", "worker.convert_series"), arguments, VECTOR_TYPES[output_type])


def create_result_type(job: Job, has_null_texts: Iterable[bool]) -> StructType:
    """Return the SQL type of what `worker.embed_structs` returns.

    ``has_null_texts`` says for each input column whether an array of its texts may contain nulls.
    """
    types: dict[str, DataType] = {VECTORS: VECTOR_TYPES[job.output_type]}
    if job.with_counts:
        types |= {TOKENS: IntegerType(), TRUNCATED: BooleanType()}
    result = StructType()
    for index, (is_nested, has_nulls) in enumerate(zip(job.nested, has_null_texts, strict=True)):
        for name, type_ in types.items():
            result.add(name_result(name, index), ArrayType(type_, has_nulls) if is_nested else type_)
    if job.with_metrics:
        result.add(DISTINCT, IntegerType()).add(UNKNOWN, IntegerType()).add(SECONDS, DoubleType())
    return result
