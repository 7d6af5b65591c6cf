"""Writing the vectors of a DataFrame to a Milvus collection."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from ..columns import column
from ..provenance import get_provenance
from ..udf import on_executor
from .client import connect, is_milvus_lite, is_server, retry
from .collection import (
    accepts_null,
    check_fields,
    check_rows_kept,
    create_collection,
    make_searchable,
    select_columns,
)
from .import_files import write_import_files
from .provenance import check_collection_model
from .requests import Target, WriteCounts
from .rows import MAX_STRING_BYTES, RowCheck
from .vectors import check_vector_type

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ON_INVALID = ("error", "skip")
_THROUGH = ("executors", "driver")


def write_to_milvus(
    df: DataFrame,
    uri: str | os.PathLike[str],
    collection: str,
    id_col: str,
    vector_col: str,
    *,
    payload_cols: Sequence[str] = (),
    token: str = "",
    db_name: str = "",
    dimension: int | None = None,
    vector_type: str = "FLOAT_VECTOR",
    metric_type: str | None = None,
    index_type: str = "AUTOINDEX",
    index_params: dict[str, Any] | None = None,
    batch_size: int = 1000,
    on_invalid: str = "error",
    check_model: bool = True,
    retries: int = 5,
    through: str = "executors",
    import_folder: str | None = None,
) -> WriteCounts:
    """Upsert the vectors of a DataFrame into a Milvus collection, and return how many rows were written and skipped.

    The executors write to a server, all tasks at once. With ``through="driver"`` the rows stream through the driver
    instead, one partition at a time; if there are many rows, write them to Parquet first. A file of milvus-lite is
    always written in this way, since only one process may open it.

    The fields of the collection have the names of the columns. If the collection does not exist, it is created; if it
    exists, the columns must fit its fields. If its vectors have no index, one is created. The collection is loaded, so
    it can be searched; only a file of milvus-lite has to be loaded again by each process that opens it. Of several rows
    with the same id, the one written last stays.

    An upsert replaces the whole row. If the collection has rows and a field for which there is no column, the upsert
    would set this field to null or to its default, so this is an error; add the field to ``payload_cols``.

    A failed request is repeated if it may succeed later, and neither that nor a task that Spark runs again duplicates a
    row. A row whose id or vector is null is skipped and counted. A row is invalid if its vector contains NaN or an
    infinity, is zero, or has another width than the collection's vectors; if the length of the vector, as
    ``vector_type`` stores it, is 0 or infinite in float32; if one of its strings is too long; if it has a null for a
    field that accepts none; and if it has NaN or an infinity for the dynamic field. An invalid row fails the job before
    its request is sent, and the error contains the id and the reason.

    A new collection stores which model embedded the column, as far as the metadata of the column says so.

    Args:
        df: The rows.
        uri: Address of a server ("http://host:19530"), or path of a milvus-lite file ("./vectors.db").
        collection: Name of the collection.
        id_col: Column of the primary key: integers or strings.
        vector_col: Column of the vectors, in any type that `InstructorEmbeddings` gives or in ``array<double>``. They
            are converted to floats, and then to ``vector_type``.
        payload_cols: Other columns to write: strings of up to 65,535 bytes, numbers and booleans.
        token: Token for ``MilvusClient``.
        db_name: Name of the database for ``MilvusClient``.
        dimension: Width of the vectors. By default the metadata of the column or the first row determines it.
        vector_type: Type of the vector field: "FLOAT_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR", "INT8_VECTOR" or
            "BINARY_VECTOR"; `InstructorEmbeddingFunction` takes the same argument for the questions.
        metric_type: Metric of a new index. By default "HAMMING" for BINARY_VECTOR and "COSINE" for the other types.
        index_type: Type of a new index.
        index_params: Parameters of a new index, such as ``{"M": 16}``.
        batch_size: Maximum number of rows per request. A request also has at most 32 MiB.
        on_invalid: "error" to fail on an invalid row, "skip" to skip and count it.
        check_model: Whether to fail if the collection holds the vectors of another model.
        retries: Maximum number of times that a failed request or connection is repeated, after 1, 2, 4 and at most 30
            seconds.
        through: "executors", or "driver" if the executors have no network (as on Databricks serverless).
        import_folder: New folder for Parquet files that Milvus' bulk import reads. Then the executors write these files
            instead of sending the rows, and the collection is prepared for them. The import itself is up to you, and
            it does not replace rows with the same id.

    Raises on the driver ValueError if a column is missing, has another type or does not fit the collection, if the
    upsert would erase fields, if another model embedded the collection, and if no dimension can be determined;
    FileNotFoundError if there is no folder for a milvus-lite file; ConnectionError if Milvus cannot be reached; and
    ImportError if pymilvus is not installed.
    """
    _check_choice("on_invalid", on_invalid, _ON_INVALID)
    _check_choice("through", through, _THROUGH)
    uri = os.fspath(uri)
    if batch_size < 1 or retries < 0:
        raise ValueError(f"batch_size is {batch_size} and retries is {retries}, expected at least 1 and 0")
    rows, fields = prepare_collection(
        df,
        uri,
        collection,
        id_col,
        vector_col,
        payload_cols=payload_cols,
        token=token,
        db_name=db_name,
        dimension=dimension,
        vector_type=vector_type,
        metric_type=metric_type,
        index_type=index_type,
        index_params=index_params,
        check_model=check_model,
        retries=retries,
        import_folder=import_folder,
    )
    check = RowCheck(
        dimension=int(fields[vector_col]["params"]["dim"]),
        vector_type=vector_type,
        max_bytes={name: int(field["params"].get("max_length", MAX_STRING_BYTES)) for name, field in fields.items()},
        required=[name for name, field in fields.items() if not accepts_null(field)],
        dynamic=[name for name in rows.columns if name not in fields],
        skip_invalid=on_invalid == "skip",
    )
    if import_folder is not None:
        return write_import_files(rows, fields, check, import_folder)
    target = Target(
        uri=uri,
        token=token,
        db_name=db_name,
        collection=collection,
        check=check,
        batch_size=batch_size,
        retries=retries,
    )
    counts: Iterable[tuple[int, ...]]
    if through == "driver" or is_milvus_lite(uri):
        counts = target.write(_stream_to_driver(rows, batch_size))
    else:
        counts = _write_on_executors(rows, target)
    return WriteCounts(*map(sum, zip((0, 0, 0), *counts, strict=True)))


def prepare_collection(
    df: DataFrame,
    uri: str,
    collection: str,
    id_col: str,
    vector_col: str,
    *,
    payload_cols: Sequence[str] = (),
    token: str = "",
    db_name: str = "",
    dimension: int | None = None,
    vector_type: str = "FLOAT_VECTOR",
    metric_type: str | None = None,
    index_type: str = "AUTOINDEX",
    index_params: dict[str, Any] | None = None,
    check_model: bool = True,
    retries: int = 5,
    import_folder: str | None = None,
) -> tuple[DataFrame, dict[str, Any]]:
    """Check the columns and the collection before rows are written; create, index and load the collection if necessary.

    It takes the arguments of `write_to_milvus` and raises on the driver what that raises. It computes a row of ``df``
    only if nothing else determines the dimension of a new collection.

    Returns:
        The columns to write, ids and vectors first, and the fields of the collection by name.
    """
    check_vector_type(vector_type)
    if not (is_server(uri) or is_milvus_lite(uri)):
        raise ValueError(
            f"uri is {uri!r}, expected the address of a server (http://host:19530) or the local path of a file (x.db)"
        )
    metric_type = metric_type or ("HAMMING" if vector_type == "BINARY_VECTOR" else "COSINE")
    rows, vector_field = select_columns(df, id_col, vector_col, payload_cols)
    metadata = vector_field.metadata or {}
    provenance = get_provenance(metadata)
    dimension = dimension or metadata.get("dimension")
    with connect(uri, token, db_name, retries) as client:
        if not retry(lambda: client.has_collection(collection), retries):
            width = dimension or _measure_first(rows, vector_col)
            create_collection(client, collection, rows.schema, width, vector_type, provenance)
        description = client.describe_collection(collection)
        fields = check_fields(description, rows.schema, dimension, vector_type)
        if check_model:
            remedy = "Use another collection, or pass check_model=False"
            check_collection_model(description, provenance, f"column {vector_col!r}", remedy)
        index = {"index_type": index_type, "metric_type": metric_type, "params": index_params or {}}
        make_searchable(client, collection, vector_col, index)
        if import_folder is None:  # an import adds rows and replaces none
            check_rows_kept(client, collection, fields, rows.columns)
    return rows, fields


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


def _measure_first(rows: DataFrame, vector_col: str) -> int:
    first = rows.where(F.size(column(vector_col)) > 0).select(column(vector_col)).first()
    if first is None:
        raise ValueError(
            f"write_to_milvus: column {vector_col!r} has no vector that determines the dimension of the collection; "
            "pass dimension"
        )
    return len(first[0])


def _stream_to_driver(rows: DataFrame, size: int) -> Iterator[pa.RecordBatch]:
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(rows.schema)
    local = rows.toLocalIterator(prefetchPartitions=True)
    while dicts := [row.asDict() for row in islice(local, size)]:
        yield pa.RecordBatch.from_pylist(dicts, schema)


def _write_on_executors(rows: DataFrame, target: Target) -> Iterable[tuple[int, ...]]:
    write = on_executor("milvus.requests.write_batches", dataclasses.asdict(target))
    return rows.mapInArrow(write, "written bigint, nulls bigint, invalid bigint").collect()
