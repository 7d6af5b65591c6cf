"""Searching a Parquet folder of vectors on the driver: which model embedded it, and the rows nearest to a vector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from .fingerprints import FINGERPRINT, get_fingerprint_prefix
from .models.prepared import PreparedModel
from .provenance import get_provenance
from .top_k import TopK, read_vectors, take_rows
from .vectors import OUTPUT_TYPE

_SPARK_SCHEMA = b"org.apache.spark.sql.parquet.row.metadata"


class Hit(NamedTuple):
    """A row that a search found."""

    similarity: float
    """Cosine similarity to the query."""
    row: dict[str, Any]
    """The columns of the row except its vector."""


def open_parquet(path: str, vector_col: str) -> ds.Dataset:
    """Open a Parquet file or folder.

    Raises FileNotFoundError if it does not exist, and ValueError if it has no column ``vector_col``.
    """
    try:
        dataset = ds.dataset(path, format="parquet")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file or folder {path}") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not Parquet: search what 'spark-instructor embed' wrote") from error
    if vector_col not in dataset.schema.names:
        names = ", ".join(map(repr, dataset.schema.names)) or "no columns"
        raise ValueError(f"{path} has no column {vector_col!r}; it has {names}")
    type_ = dataset.schema.field(vector_col).type
    if not _holds_vectors(type_, read_metadata(dataset, vector_col)):
        raise ValueError(f"the column {vector_col!r} of {path} is {type_}, expected vectors, such as lists of floats")
    return dataset


def read_metadata(dataset: ds.Dataset, vector_col: str) -> dict[str, Any]:
    """Return the metadata that Spark wrote for a column; the dict is empty if something else wrote the file."""
    schema = json.loads((dataset.schema.metadata or {}).get(_SPARK_SCHEMA, b'{"fields": []}'))
    metadata: dict[str, Any] = {field["name"]: field["metadata"] for field in schema["fields"]}.get(vector_col, {})
    return metadata


def check_model(dataset: ds.Dataset, vector_col: str, model: PreparedModel, path: str | Path) -> None:
    """Raise ValueError if a model did not embed all vectors of a column."""
    provenance = get_provenance(read_metadata(dataset, vector_col))
    if provenance.get("hash", model.hash) != model.hash:
        raise ValueError(
            f"{path} was embedded with {provenance['model']} in {provenance['precision']}, but the question would be "
            f"embedded with {model.name} in {model.precision}; vectors of different models cannot be compared"
        )
    if FINGERPRINT in dataset.schema.names and _list_prefixes(dataset) - {get_fingerprint_prefix(model)}:
        raise ValueError(
            f"{path} contains rows of more than one model, as embed_changes leaves them if it is interrupted, and "
            "vectors of different models cannot be compared. Run embed_changes again."
        )


def find_nearest(dataset: ds.Dataset, vector_col: str, query: npt.NDArray[np.float32], k: int) -> list[Hit]:
    """Return the ``k`` rows whose vectors are most similar to a query, best first.

    Null vectors and vectors of zeros are ignored. Only one record batch is in memory at a time.

    Args:
        dataset: The rows.
        vector_col: The column of the vectors, in any output type.
        query: A unit vector, float32 (dimension,).
        k: The maximum number of rows.

    Raises ValueError if the vectors and the query differ in width, and if a vector contains NaN, infinity or null.
    """
    top = TopK(query[None], k)
    metadata = read_metadata(dataset, vector_col)
    for batch in dataset.to_batches():
        vectors, rows = read_vectors(batch.column(vector_col), metadata, vector_col, "cosine")
        if len(vectors) and vectors.shape[1] != len(query):
            raise ValueError(
                f"the vectors of {vector_col!r} have {vectors.shape[1]} floats and those of the model {len(query)}: "
                "pass the --model that embedded them"
            )
        top.add(vectors, take_rows(batch, vector_col, rows))
    found = [] if top.rows is None else top.rows.to_pylist()
    for row in found:
        del row[vector_col]
    return list(map(Hit, top.scores.tolist(), found))


def _holds_vectors(type_: pa.DataType, metadata: Mapping[str, Any]) -> bool:
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return bool(pa.types.is_floating(type_.value_type) or pa.types.is_int8(type_.value_type))
    if pa.types.is_struct(type_):  # a pyspark.ml vector
        return {"type", "values"} <= {field.name for field in type_}
    return bool(pa.types.is_binary(type_) and OUTPUT_TYPE in metadata)


def _list_prefixes(dataset: ds.Dataset) -> set[str]:
    """Return how the fingerprints of `embed_changes` begin, one prefix per model.

    The set is empty if the column of this name holds something else.
    """
    if dataset.schema.field(FINGERPRINT).type != pa.string():
        return set()
    prefixes: set[str] = set()
    for batch in dataset.to_batches(columns=[FINGERPRINT]):
        matches = pc.extract_regex(batch.column(0), r"^(?P<prefix>[0-9a-f]{16}-)[0-9a-f]{64}$")
        prefixes.update(matches.drop_null().field("prefix").unique().to_pylist())
    return prefixes
