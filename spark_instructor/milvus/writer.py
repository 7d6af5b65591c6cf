"""Writing the vectors of a DataFrame to a Milvus collection."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from ..columns import column, find_field, quote_name, read_column, to_plain_type
from ..udf import on_executor

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

T = TypeVar("T")

MAX_STRING_BYTES = 65_535
"""Maximum number of bytes of a string field in Milvus."""

_ON_INVALID = ("error", "skip")
_THROUGH = ("executors", "driver")
_SERVER = re.compile(r"(https?|tcp|unix)://")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# For each SQL type the types of field that can hold it; a new collection gets the first.
_FieldTypes = dict[str, tuple[str, ...]]
_INTEGERS = ("INT8", "INT16", "INT32", "INT64")
_KEYS: _FieldTypes = {"string": ("VARCHAR",), **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), ("INT64",))}
_VECTORS: _FieldTypes = dict.fromkeys(("array<float>", "array<double>"), ("FLOAT_VECTOR",))
_PAYLOADS: _FieldTypes = {
    "string": ("VARCHAR",),
    "tinyint": _INTEGERS,
    "smallint": _INTEGERS[1:],
    "int": _INTEGERS[2:],
    "bigint": _INTEGERS[3:],
    "float": ("FLOAT", "DOUBLE"),
    "double": ("DOUBLE",),
    "boolean": ("BOOL",),
}


class WriteCounts(NamedTuple):
    """Numbers of rows that `write_to_milvus` handled; their sum is the number of all rows."""

    written: int
    """Rows that were written."""
    nulls: int
    """Rows that were skipped because their id or their vector is null."""
    invalid: int
    """Rows that ``on_invalid="skip"`` skipped."""


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
    metric_type: str = "COSINE",
    index_type: str = "AUTOINDEX",
    index_params: dict[str, Any] | None = None,
    batch_size: int = 1000,
    on_invalid: str = "error",
    retries: int = 5,
    through: str = "executors",
) -> WriteCounts:
    """Upsert the vectors of a DataFrame into a Milvus collection, and return how many rows were written and skipped.

    The executors write to a server, all tasks at once. With ``through="driver"`` the rows stream through the driver
    instead, one partition at a time; embed into Parquet first if they are many. A file of milvus-lite is always written
    in this way, since only one process may open it.

    The fields of the collection have the names of the columns. If the collection does not exist, it is created with an
    index; if it exists, the columns must fit its fields. Of several rows with the same id, the one written last stays.

    A failed request is repeated, and neither that nor a task that Spark runs again duplicates a row. A row whose id or
    vector is null is skipped and counted. A row is invalid if its vector contains NaN or an infinity, is zero, or has
    another width than the collection's vectors, and if one of its strings is too long. An invalid row fails the job
    before its request is sent, and the error contains the id and the reason.

    Args:
        df: The rows.
        uri: Address of a server ("http://host:19530"), or path of a milvus-lite file ("./vectors.db").
        collection: Name of the collection.
        id_col: Column of the primary key: integers or strings.
        vector_col: Column of the vectors: ``array<float>``, or ``array<double>``, which is rounded to floats.
        payload_cols: Other columns to write: strings of up to 65,535 bytes, numbers and booleans.
        token: Token for ``MilvusClient``.
        db_name: Name of the database for ``MilvusClient``.
        dimension: Width of the vectors. By default the metadata of the column or the first row determines it.
        metric_type: Metric of a new index.
        index_type: Type of a new index.
        index_params: Parameters of a new index, such as ``{"M": 16}``.
        batch_size: Maximum number of rows per request.
        on_invalid: "error" to fail on an invalid row, "skip" to skip and count it.
        retries: Maximum number of times a failed request is repeated, after 1, 2, 4 and at most 30 seconds.
        through: "executors", or "driver" if the executors have no network (as on Databricks serverless).

    Raises on the driver ValueError if a column is missing, has another type or does not fit the collection, and if no
    dimension can be determined; and ImportError if pymilvus is not installed.
    """
    if on_invalid not in _ON_INVALID:
        raise ValueError(f"on_invalid is {on_invalid!r}, expected one of {', '.join(_ON_INVALID)}")
    if through not in _THROUGH:
        raise ValueError(f"through is {through!r}, expected one of {', '.join(_THROUGH)}")
    if batch_size < 1 or retries < 0:
        raise ValueError(f"batch_size is {batch_size} and retries is {retries}, expected at least 1 and 0")
    uri = os.fspath(uri)
    if not (_SERVER.match(uri) or is_milvus_lite(uri)):
        raise ValueError(
            f"uri is {uri!r}, expected the address of a server (http://host:19530) or the path of a file (x.db)"
        )
    rows, metadata_dimension = _select_columns(df, id_col, vector_col, payload_cols)
    dimension = dimension or metadata_dimension
    with closing(_open(uri, token, db_name)) as client:
        if not client.has_collection(collection):
            index = {"index_type": index_type, "metric_type": metric_type, "params": index_params or {}}
            _create(client, collection, rows.schema, dimension or _measure_first(rows, vector_col), index)
        description = client.describe_collection(collection)
    fields = _check_fields(description, rows.schema, dimension)
    target = _Target(
        uri=uri,
        token=token,
        db_name=db_name,
        collection=collection,
        dimension=int(fields[vector_col]["params"]["dim"]),
        max_bytes={name: int(field["params"].get("max_length", MAX_STRING_BYTES)) for name, field in fields.items()},
        batch_size=batch_size,
        skip_invalid=on_invalid == "skip",
        retries=retries,
    )
    counts: Iterable[tuple[int, ...]]
    if through == "driver" or is_milvus_lite(uri):
        counts = target.write(_stream_to_driver(rows, batch_size))
    else:
        counts = _write_on_executors(rows, target)
    return WriteCounts(*map(sum, zip((0, 0, 0), *counts, strict=True)))


def is_milvus_lite(uri: str) -> bool:
    """Return whether a uri is a file of milvus-lite, which only one process may open."""
    return uri.endswith(".db") and not _SERVER.match(uri)


def _select_columns(
    df: DataFrame, id_col: str, vector_col: str, payload_cols: Sequence[str]
) -> tuple[DataFrame, int | None]:
    """Select the columns to write, and return them with the dimension in the metadata of the vectors.

    Keys become bigint or string, and vectors arrays of floats.
    """
    if isinstance(payload_cols, str):
        raise TypeError(f"payload_cols is the str {payload_cols!r}, expected a list of columns")
    names = [id_col, vector_col, *payload_cols]
    fields = [find_field(df, name, "write_to_milvus") for name in names]
    if len({field.name for field in fields}) < len(fields):
        raise ValueError(f"write_to_milvus: a column is named twice among {', '.join(names)}")
    for field, types in zip(fields, [_KEYS, _VECTORS, *[_PAYLOADS] * len(payload_cols)], strict=True):
        found = to_plain_type(field.dataType).simpleString()
        if found not in types:
            hint = (
                f". Take the vector of one annotation: F.col({quote_name(field.name)!r})[0]['embeddings']; convert "
                "a pyspark.ml vector with pyspark.ml.functions.vector_to_array"
                if types is _VECTORS
                else ""
            )
            raise ValueError(
                f"write_to_milvus: column {field.name!r} is {found[:80]}, expected {' or '.join(types)}{hint}"
            )
        if not _FIELD_NAME.fullmatch(field.name):
            raise ValueError(
                f"write_to_milvus: Milvus accepts no field named {field.name!r} (only letters, digits and _): rename "
                "the column"
            )
    key_type = "string" if to_plain_type(fields[0].dataType).simpleString() == "string" else "bigint"
    key, vector, *payload = map(read_column, fields)
    selected = [key.cast(key_type), vector.cast("array<float>"), *payload]
    rows = df.select(*(expression.alias(name) for expression, name in zip(selected, names, strict=True)))
    return rows, (fields[1].metadata or {}).get("dimension")


def _measure_first(rows: DataFrame, vector_col: str) -> int:
    first = rows.where(F.size(column(vector_col)) > 0).select(column(vector_col)).first()
    if first is None:
        raise ValueError(
            f"write_to_milvus: column {vector_col!r} has no vector that determines the dimension of the collection; "
            "pass dimension"
        )
    return len(first[0])


def _open(uri: str, token: str, db_name: str) -> Any:
    return _pymilvus().MilvusClient(uri, token=token, db_name=db_name)


def _pymilvus() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise ImportError(
            f"{error}. Writing to Milvus needs pymilvus on the driver, and for a server on the executors too: "
            "pip install 'spark-instructor-embeddings[milvus]'",
            name=error.name,
        ) from error
    return pymilvus


def _create(client: Any, collection: str, columns: StructType, dimension: int, index: dict[str, Any]) -> None:
    types = _pymilvus().DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    key, vector, *payload = columns
    schema.add_field(
        key.name,
        types[_KEYS[key.dataType.simpleString()][0]],
        is_primary=True,
        **_string_limit(key.dataType.simpleString()),
    )
    schema.add_field(vector.name, types.FLOAT_VECTOR, dim=dimension)
    for field in payload:
        type_ = field.dataType.simpleString()
        schema.add_field(field.name, types[_PAYLOADS[type_][0]], nullable=True, **_string_limit(type_))
    indexes = client.prepare_index_params()
    indexes.add_index(vector.name, **index)
    client.create_collection(collection, schema=schema)
    try:
        client.create_index(collection, indexes)
        client.load_collection(collection)
    except BaseException:
        client.drop_collection(collection)  # the next call could not tell that its index is missing
        raise


def _string_limit(type_: str) -> dict[str, int]:
    return {"max_length": MAX_STRING_BYTES} if type_ == "string" else {}


def _check_fields(description: dict[str, Any], columns: StructType, dimension: int | None) -> dict[str, Any]:
    """Return the fields of a collection by name; raise ValueError, naming the field, if the columns do not fit them."""
    fields = {field["name"]: field for field in description["fields"]}

    def fail(problem: str) -> None:
        names = ", ".join(f"{name} {field['type'].name}" for name, field in fields.items())
        raise ValueError(
            f"write_to_milvus: {problem}. The fields of collection {description['collection_name']!r} are {names}"
        )

    key, vector, *payload = columns
    for column_field, types in [(key, _KEYS), (vector, _VECTORS), *((field, _PAYLOADS) for field in payload)]:
        name, type_ = column_field.name, column_field.dataType.simpleString()
        if name not in fields:
            if types is _PAYLOADS and description.get("enable_dynamic_field"):
                continue
            fail(f"there is no field for column {name!r}; rename the column or leave it out")
        if fields[name]["type"].name not in types[type_]:
            fail(f"column {name!r} is {type_}, which its field cannot hold")
    if not fields[key.name].get("is_primary") or description.get("auto_id") or fields[key.name].get("auto_id"):
        fail(
            f"{key.name!r} must be the primary key with ids of your own (auto_id=False), so that a retry replaces rows"
        )
    width = int(fields[vector.name]["params"]["dim"])
    if dimension not in (None, width):
        fail(f"column {vector.name!r} has vectors of {dimension} floats, but its field has vectors of {width}")
    names = set(columns.names)
    for name, field in fields.items():
        optional = field.get("nullable") or field.get("default_value") is not None or field.get("is_function_output")
        if name not in names and not optional:
            fail(f"there is no column for the field {name!r}, which must not be null")
    return fields


def _stream_to_driver(rows: DataFrame, size: int) -> Iterator[pa.RecordBatch]:
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(rows.schema)
    local = rows.toLocalIterator(prefetchPartitions=True)
    while dicts := [row.asDict() for row in islice(local, size)]:
        yield pa.RecordBatch.from_pylist(dicts, schema)


def _write_on_executors(rows: DataFrame, target: _Target) -> Iterable[tuple[int, ...]]:
    write = on_executor("milvus.writer.write_batches", dataclasses.asdict(target))
    return rows.mapInArrow(write, "written bigint, nulls bigint, invalid bigint").collect()


def write_batches(arguments: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write the batches of a task, on an executor, and yield the `WriteCounts` of each request."""
    for counts in _Target(**arguments).write(batches):
        yield pa.RecordBatch.from_pylist([counts._asdict()])


@dataclasses.dataclass(frozen=True)
class _Target:
    """A collection to write to, as it travels to the executors."""

    uri: str
    token: str
    db_name: str
    collection: str
    dimension: int
    max_bytes: dict[str, int]
    """Maximum number of bytes of each string field."""
    batch_size: int
    skip_invalid: bool
    retries: int

    def write(self, batches: Iterable[pa.RecordBatch]) -> Iterator[WriteCounts]:
        """Write batches; their first column holds the ids and their second the vectors."""
        with closing(self._connect()) as client:
            for batch in batches:
                for start in range(0, batch.num_rows, self.batch_size):
                    yield self._upsert(client, batch.slice(start, self.batch_size))

    def _connect(self) -> Any:
        try:
            return self._retry(lambda: _open(self.uri, self.token, self.db_name))
        except _pymilvus().exceptions.MilvusException as error:
            raise ConnectionError(
                f"write_to_milvus: this process cannot reach Milvus at {self.uri} ({error}). If the executors have no "
                'network but the driver has, as on Databricks serverless, pass through="driver"'
            ) from error

    def _upsert(self, client: Any, batch: pa.RecordBatch) -> WriteCounts:
        complete = batch.filter(pc.and_(pc.is_valid(batch.column(0)), pc.is_valid(batch.column(1))))
        problems = self._find_problems(complete)
        invalid = np.flatnonzero(problems)
        if len(invalid) and not self.skip_invalid:
            others = f" ({len(invalid)} such rows among {batch.num_rows})" if len(invalid) > 1 else ""
            raise ValueError(
                f"write_to_milvus: the row with {batch.schema.names[0]} {complete.column(0)[invalid[0]].as_py()!r} "
                f'cannot be written: {problems[invalid[0]]}{others}. Correct it, or pass on_invalid="skip"'
            )
        valid = complete.filter(pa.array(problems == ""))
        # If a request contains an id twice, a server may keep both rows.
        row_by_id = dict(zip(valid.column(0).to_pylist(), self._build_rows(valid), strict=True))
        if row_by_id:
            # Only this class retries: pymilvus's own retries would take minutes before each of them.
            self._retry(lambda: client.upsert(self.collection, list(row_by_id.values()), retry_times=0))
        return WriteCounts(
            written=valid.num_rows,
            nulls=batch.num_rows - complete.num_rows,
            invalid=complete.num_rows - valid.num_rows,
        )

    def _find_problems(self, batch: pa.RecordBatch) -> npt.NDArray[np.object_]:
        """Return for each row the reason why it cannot be written, or an empty string."""
        name, vectors = batch.schema.names[1], batch.column(1)
        problems = np.full(batch.num_rows, "", object)
        widths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
        fitting = np.flatnonzero(widths == self.dimension)
        matrix = _to_matrix(vectors.take(pa.array(fitting)), self.dimension)
        problems[fitting[~matrix.any(axis=1)]] = f"{name!r} is zero, so it has no direction"
        problems[fitting[~np.isfinite(matrix).all(axis=1)]] = f"{name!r} contains NaN, an infinity or null"
        for row in np.flatnonzero(widths != self.dimension):
            problems[row] = f"{name!r} has {widths[row]} floats, but the collection's vectors have {self.dimension}"
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                max_bytes = self.max_bytes.get(name, MAX_STRING_BYTES)
                sizes = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
                for row in np.flatnonzero(sizes > max_bytes):
                    problems[row] = f"{name!r} has {sizes[row]:,} bytes, but its field holds at most {max_bytes:,}"
        return problems

    def _build_rows(self, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """Yield the rows in the form that pymilvus takes, with the vectors as float32 arrays, bit for bit."""
        names = batch.schema.names
        ids, vectors, *payload = batch.columns
        columns = [ids.to_pylist(), _to_matrix(vectors, self.dimension), *(values.to_pylist() for values in payload)]
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def _retry(self, call: Callable[[], T]) -> T:
        exceptions = _pymilvus().exceptions
        for attempt in range(self.retries):
            try:
                return call()
            except (exceptions.DataNotMatchException, exceptions.ParamError):
                raise  # the same request would fail again
            except exceptions.MilvusException:
                time.sleep(min(2**attempt, 30))
        return call()


def _to_matrix(vectors: pa.ListArray, width: int) -> npt.NDArray[np.float32]:
    """Return vectors of one width as float32 (n, width); a null among the floats becomes NaN."""
    matrix: npt.NDArray[np.float32] = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix
