"""Writing a DataFrame's vectors to a Milvus collection."""

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

from ..stages.annotation import column, input_field, quoted
from ..worker import on_executor

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

T = TypeVar("T")

MAX_STRING_BYTES = 65_535
"""Most bytes of a string field in Milvus."""

_ON_INVALID = ("error", "skip")
_SERVER = re.compile(r"(https?|tcp|unix)://")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# For each of Spark's types the fields that hold it; a new collection gets the first.
_Types = dict[str, tuple[str, ...]]
_WHOLE_NUMBERS = ("INT8", "INT16", "INT32", "INT64")
_KEYS: _Types = {"string": ("VARCHAR",), **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), ("INT64",))}
_VECTORS: _Types = dict.fromkeys(("array<float>", "array<double>"), ("FLOAT_VECTOR",))
_PAYLOADS: _Types = {
    "string": ("VARCHAR",),
    "tinyint": _WHOLE_NUMBERS,
    "smallint": _WHOLE_NUMBERS[1:],
    "int": _WHOLE_NUMBERS[2:],
    "bigint": _WHOLE_NUMBERS[3:],
    "float": ("FLOAT", "DOUBLE"),
    "double": ("DOUBLE",),
    "boolean": ("BOOL",),
}


class WriteCounts(NamedTuple):
    """What became of the rows of `write_to_milvus`; the three add up to all of them."""

    written: int
    nulls: int
    """Rows left out because their id or their vector is null."""
    invalid: int
    """Rows left out by ``on_invalid="skip"``."""


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
) -> WriteCounts:
    """Upsert a DataFrame's vectors into a Milvus collection by their ids, and say how many.

    ``uri`` is a server's address ("http://host:19530"), to which the executors write, all tasks at once, or
    a file of milvus-lite ("./vectors.db"), which one process alone may open: there the rows stream through
    the driver, a partition at a time, so embed into Parquet first where they are many. ``token`` and
    ``db_name`` are those of ``MilvusClient``.

    The collection's fields are named after the columns: ``id_col`` (a whole number or a string; of rows with
    the same id the one written last stays), ``vector_col`` (``array<float>``; doubles are rounded to floats)
    and ``payload_cols`` (strings of up to 65,535 bytes, numbers, booleans). A missing collection is made, for
    vectors of ``dimension`` floats (default: what the column's metadata says, or the first row's width),
    with an index of ``index_type`` and ``index_params`` (such as ``{"M": 16}``). Into a collection that is
    there the columns must fit.

    ``batch_size`` rows go in one request. A request that fails is repeated up to ``retries`` times, after 1,
    2, 4 and at most 30 seconds. Neither that nor a task that Spark runs again doubles a row. A row whose id
    or vector is null is left out and counted. A vector that holds NaN or an infinity, is zero, or has another
    width than the collection's, and a string that is too long, fail the job before their batch is
    written, with the id and the reason; ``on_invalid="skip"`` leaves such rows out and counts them.

    Raises on the driver ValueError for columns that are missing, of another type or that do not fit the
    collection, and where no dimension can be known; ImportError without pymilvus.
    """
    if on_invalid not in _ON_INVALID:
        raise ValueError(f"on_invalid is {on_invalid!r}, expected one of {', '.join(_ON_INVALID)}")
    if batch_size < 1 or retries < 0:
        raise ValueError(f"batch_size is {batch_size} and retries is {retries}, expected at least 1 and 0")
    uri = os.fspath(uri)
    if not (_SERVER.match(uri) or is_file(uri)):
        raise ValueError(f"uri is {uri!r}, expected a server's address (http://host:19530) or a file's path (x.db)")
    rows, said = _selected(df, id_col, vector_col, payload_cols)
    dimension = dimension or said
    with closing(_open(uri, token, db_name)) as client:
        if not client.has_collection(collection):
            index = {"index_type": index_type, "metric_type": metric_type, "params": index_params or {}}
            _create(client, collection, rows.schema, dimension or _width_of_first(rows, vector_col), index)
        described = client.describe_collection(collection)
    fields = _checked_fields(described, rows.schema, dimension)
    target = _Target(
        uri=uri,
        token=token,
        db_name=db_name,
        collection=collection,
        dimension=int(fields[vector_col]["params"]["dim"]),
        longest={name: int(field["params"].get("max_length", MAX_STRING_BYTES)) for name, field in fields.items()},
        batch_size=batch_size,
        skip_invalid=on_invalid == "skip",
        retries=retries,
    )
    counts = target.write(_to_driver(rows, batch_size)) if is_file(uri) else _through_executors(rows, target)
    return WriteCounts(*map(sum, zip((0, 0, 0), *counts, strict=True)))


def is_file(uri: str) -> bool:
    """Whether a uri is a file of milvus-lite, which one process alone may open."""
    return uri.endswith(".db") and not _SERVER.match(uri)


def _selected(df: DataFrame, id_col: str, vector_col: str, payload_cols: Sequence[str]) -> tuple[DataFrame, int | None]:
    """The columns to write, keys as bigint or string and vectors as floats; and the width that metadata tells."""
    if isinstance(payload_cols, str):
        raise TypeError(f"payload_cols is the str {payload_cols!r}, expected a list of columns")
    names = [id_col, vector_col, *payload_cols]
    if len(set(names)) < len(names):
        raise ValueError(f"write_to_milvus: a column is named twice among {', '.join(names)}")
    fields = [input_field(df, name, "write_to_milvus") for name in names]
    for field, types in zip(fields, [_KEYS, _VECTORS, *[_PAYLOADS] * len(payload_cols)], strict=True):
        found = field.dataType.simpleString()
        if found not in types:
            hint = (
                f". Of annotations take one's vector: F.col({quoted(field.name)!r})[0]['embeddings']; of a pyspark.ml "
                "vector pyspark.ml.functions.vector_to_array"
                if types is _VECTORS
                else ""
            )
            raise ValueError(
                f"write_to_milvus: column {field.name!r} is {found[:80]}, expected {' or '.join(types)}{hint}"
            )
        if not _FIELD_NAME.fullmatch(field.name):
            raise ValueError(
                f"write_to_milvus: Milvus takes no field named {field.name!r} (letters, digits and _ alone): "
                "rename the column"
            )
    casts = ["string" if fields[0].dataType.simpleString() == "string" else "bigint", "array<float>"]
    chosen = [column(name).cast(type_).alias(name) for name, type_ in zip(names, casts, strict=False)]
    return df.select(*chosen, *map(column, payload_cols)), (fields[1].metadata or {}).get("dimension")


def _width_of_first(rows: DataFrame, vector_col: str) -> int:
    first = rows.where(F.size(column(vector_col)) > 0).select(column(vector_col)).first()
    if first is None:
        raise ValueError(
            f"write_to_milvus: column {vector_col!r} has no vector to take the collection's dimension from; "
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
        client.drop_collection(collection)  # without its index it would pass for whole at the next call
        raise


def _string_limit(type_: str) -> dict[str, int]:
    return {"max_length": MAX_STRING_BYTES} if type_ == "string" else {}


def _checked_fields(described: dict[str, Any], columns: StructType, dimension: int | None) -> dict[str, Any]:
    """The collection's fields by name; ValueError, naming the field, where the columns do not fit them."""
    name = described["collection_name"]
    fields = {field["name"]: field for field in described["fields"]}

    def fail(what: str) -> None:
        listed = ", ".join(f"{field} {one['type'].name}" for field, one in fields.items())
        raise ValueError(f"write_to_milvus: {what}. The fields of collection {name!r} are {listed}")

    key, vector, *payload = columns
    for field, types in [(key, _KEYS), (vector, _VECTORS), *((field, _PAYLOADS) for field in payload)]:
        type_ = field.dataType.simpleString()
        if field.name not in fields:
            if types is _PAYLOADS and described.get("enable_dynamic_field"):
                continue
            fail(f"there is no field for column {field.name!r}; rename the column or leave it out")
        if fields[field.name]["type"].name not in types[type_]:
            fail(f"column {field.name!r} is {type_}, which its field does not hold")
    if not fields[key.name].get("is_primary") or described.get("auto_id") or fields[key.name].get("auto_id"):
        fail(f"{key.name!r} must be the primary key, with ids of yours (auto_id=False), so that a retry replaces rows")
    width = int(fields[vector.name]["params"]["dim"])
    if dimension not in (None, width):
        fail(f"column {vector.name!r} has vectors of {dimension} floats, its field of {width}")
    given = set(columns.names)
    for field_name, one in fields.items():
        optional = one.get("nullable") or one.get("default_value") is not None or one.get("is_function_output")
        if field_name not in given and not optional:
            fail(f"there is no column for the field {field_name!r}, which must not be null")
    return fields


def _to_driver(rows: DataFrame, size: int) -> Iterator[pa.RecordBatch]:
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(rows.schema)
    local = rows.toLocalIterator(prefetchPartitions=True)
    while some := [row.asDict() for row in islice(local, size)]:
        yield pa.RecordBatch.from_pylist(some, schema)


def _through_executors(rows: DataFrame, target: _Target) -> Iterable[tuple[int, ...]]:
    write = on_executor("milvus.writer.write_batches", dataclasses.asdict(target))
    return rows.mapInArrow(write, "written bigint, nulls bigint, invalid bigint").collect()


def write_batches(plain: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """On an executor: write a task's batches, and give the counts of each."""
    for counts in _Target(**plain).write(batches):
        yield pa.RecordBatch.from_pylist([counts._asdict()])


@dataclasses.dataclass(frozen=True)
class _Target:
    """A collection to write to, as it travels to the executors."""

    uri: str
    token: str
    db_name: str
    collection: str
    dimension: int
    longest: dict[str, int]
    """Most bytes of each string field."""
    batch_size: int
    skip_invalid: bool
    retries: int

    def write(self, batches: Iterable[pa.RecordBatch]) -> Iterator[WriteCounts]:
        """Write batches whose first column are ids and whose second are vectors."""
        with closing(self._retried(lambda: _open(self.uri, self.token, self.db_name))) as client:
            for batch in batches:
                for start in range(0, batch.num_rows, self.batch_size):
                    yield self._upsert(client, batch.slice(start, self.batch_size))

    def _upsert(self, client: Any, batch: pa.RecordBatch) -> WriteCounts:
        whole = batch.filter(pc.and_(pc.is_valid(batch.column(0)), pc.is_valid(batch.column(1))))
        problems = self._problems(whole)
        found = np.flatnonzero(problems)
        if len(found) and not self.skip_invalid:
            more = f" ({len(found)} such rows among {batch.num_rows})" if len(found) > 1 else ""
            raise ValueError(
                f"write_to_milvus: the row with {batch.schema.names[0]} {whole.column(0)[found[0]].as_py()!r} cannot "
                f'be written: {problems[found[0]]}{more}. Mend it, or pass on_invalid="skip"'
            )
        kept = whole.filter(pa.array(problems == ""))
        # Of a request with an id twice, a server might keep both rows.
        of_id = dict(zip(kept.column(0).to_pylist(), self._rows(kept), strict=True))
        if of_id:
            # Retries are ours alone: pymilvus's own would take minutes before each of them.
            self._retried(lambda: client.upsert(self.collection, list(of_id.values()), retry_times=0))
        return WriteCounts(kept.num_rows, batch.num_rows - whole.num_rows, whole.num_rows - kept.num_rows)

    def _problems(self, batch: pa.RecordBatch) -> npt.NDArray[np.object_]:
        """For each row what keeps it from being written, or an empty string."""
        name, vectors = batch.schema.names[1], batch.column(1)
        problems = np.full(batch.num_rows, "", object)
        widths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
        right = np.flatnonzero(widths == self.dimension)
        matrix = _matrix(vectors.take(pa.array(right)), self.dimension)
        problems[right[~matrix.any(axis=1)]] = f"{name!r} is zero, which has no direction"
        problems[right[~np.isfinite(matrix).all(axis=1)]] = f"{name!r} holds NaN, an infinity or null"
        for row in np.flatnonzero(widths != self.dimension):
            problems[row] = f"{name!r} has {widths[row]} floats, the collection's vectors {self.dimension}"
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                most = self.longest.get(name, MAX_STRING_BYTES)
                sizes = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
                for row in np.flatnonzero(sizes > most):
                    problems[row] = f"{name!r} has {sizes[row]:,} bytes, its field takes {most:,}"
        return problems

    def _rows(self, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """The rows as pymilvus takes them, vectors as float32 arrays, bit for bit."""
        names = batch.schema.names
        columns = [values.to_pylist() for values in batch.columns]
        columns[1] = list(_matrix(batch.column(1), self.dimension))
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def _retried(self, call: Callable[[], T]) -> T:
        exceptions = _pymilvus().exceptions
        for attempt in range(self.retries):
            try:
                return call()
            except (exceptions.DataNotMatchException, exceptions.ParamError):
                raise  # the same again would fail again
            except exceptions.MilvusException:
                time.sleep(min(2**attempt, 30))
        return call()


def _matrix(vectors: pa.ListArray, width: int) -> npt.NDArray[np.float32]:
    """Vectors of one width as float32 (n, width); a null among the floats becomes NaN."""
    matrix: npt.NDArray[np.float32] = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix
