"""Searching a Parquet folder of vectors on the driver: which model embedded it, and the rows nearest to a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from .incremental import FINGERPRINT, get_fingerprint_prefix
from .models.prepared import PreparedModel
from .provenance import get_provenance
from .top_k import TopK

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
    if not (_is_list(type_) and pa.types.is_floating(type_.value_type)):
        raise ValueError(f"the column {vector_col!r} of {path} is {type_}, expected vectors: lists of floats")
    return dataset


def read_provenance(dataset: ds.Dataset, vector_col: str) -> dict[str, str]:
    """Return what `InstructorEmbeddings` wrote about its model into the metadata of a column.

    The keys are model, revision, precision, instruction and hash, as far as they are known. The dict is empty if
    something else wrote the column.
    """
    schema = json.loads((dataset.schema.metadata or {}).get(_SPARK_SCHEMA, b'{"fields": []}'))
    metadata = {field["name"]: field["metadata"] for field in schema["fields"]}
    return get_provenance(metadata.get(vector_col))


def check_model(dataset: ds.Dataset, vector_col: str, model: PreparedModel, path: str | Path) -> None:
    """Raise ValueError if a model did not embed all vectors of a column."""
    provenance = read_provenance(dataset, vector_col)
    if provenance.get("hash", model.hash) != model.hash:
        raise ValueError(
            f"{path} was embedded with {provenance['model']} in {provenance['precision']}, and {model.name} in "
            f"{model.precision} is another model; vectors of different models cannot be compared"
        )
    if FINGERPRINT in dataset.schema.names and _list_prefixes(dataset) - {get_fingerprint_prefix(model)}:
        raise ValueError(
            f"{path} contains rows of more than one model, as embed_changes leaves them if it is interrupted, and "
            "vectors of different models cannot be compared. Run embed_changes again."
        )


def find_nearest(dataset: ds.Dataset, vector_col: str, query: npt.NDArray[np.float32], k: int) -> list[Hit]:
    """Return the ``k`` rows whose vectors are most similar to a query, best first.

    Null vectors, and vectors that contain a null or NaN, are ignored.

    ``query`` is a unit vector, float32 (dimension,). Only one record batch is in memory at a time.

    Raises ValueError if the vectors and the query differ in width.
    """
    top = TopK(query[None], k)
    for batch in dataset.to_batches():
        batch = batch.filter(batch.column(vector_col).is_valid())
        widths = pc.unique(pc.list_value_length(batch.column(vector_col))).to_pylist()
        if not widths:
            continue
        if widths != [len(query)]:
            found = " or ".join(map(str, sorted(widths)))
            raise ValueError(
                f"the vectors of {vector_col!r} have {found} floats and those of the model {len(query)}: "
                "pass the --model that embedded them"
            )
        vectors = batch.column(vector_col).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        is_complete = ~np.isnan(vectors).any(axis=1)
        vectors, batch = vectors[is_complete], batch.filter(pa.array(is_complete))
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        # A record batch itself cannot drop columns before pyarrow 16.
        top.add(vectors, pa.Table.from_batches([batch]).drop([vector_col]))
    return [] if top.rows is None else list(map(Hit, top.scores.tolist(), top.rows.to_pylist()))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


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
