"""The collection for the columns of a DataFrame: which fields they need, and creating, checking and loading it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..columns import find_field, read_column, to_plain_type
from ..udf import convert_vectors
from .client import import_pymilvus
from .provenance import create_properties
from .rows import MAX_STRING_BYTES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructField, StructType

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# For each SQL type the types of field that can hold it; a new collection gets the first.
_FieldTypes = dict[str, tuple[str, ...]]
_INTEGERS = ("INT8", "INT16", "INT32", "INT64")
_KEYS: _FieldTypes = {"string": ("VARCHAR",), **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), ("INT64",))}
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


def select_columns(
    df: DataFrame, id_col: str, vector_col: str, payload_cols: Sequence[str]
) -> tuple[DataFrame, StructField]:
    """Select the columns to write, ids and vectors first, and return them with the field of the vectors in ``df``.

    Ids become bigint or string, and vectors of all output types arrays of floats.

    Raises ValueError if a column is missing, has another type or a name that Milvus does not accept.
    """
    if isinstance(payload_cols, str):
        raise TypeError(f"payload_cols is the str {payload_cols!r}, expected a list of columns")
    names = [id_col, vector_col, *payload_cols]
    fields = [find_field(df, name, "write_to_milvus") for name in names]
    if len({field.name for field in fields}) < len(fields):
        raise ValueError(f"write_to_milvus: a column is named twice among {', '.join(names)}")
    vector = convert_vectors(fields[1], "float", "write_to_milvus")
    for field, types in zip(fields, [_KEYS, None, *[_PAYLOADS] * len(payload_cols)], strict=True):
        found = to_plain_type(field.dataType).simpleString()
        if types is not None and found not in types:
            raise ValueError(f"write_to_milvus: column {field.name!r} is {found[:80]}, expected {' or '.join(types)}")
        if not _FIELD_NAME.fullmatch(field.name):
            raise ValueError(
                f"write_to_milvus: Milvus accepts no field named {field.name!r} (only letters, digits and _): rename "
                "the column"
            )
    key_type = "string" if to_plain_type(fields[0].dataType).simpleString() == "string" else "bigint"
    key, *payload = map(read_column, [fields[0], *fields[2:]])
    selected = [key.cast(key_type), vector, *payload]
    rows = df.select(*(expression.alias(name) for expression, name in zip(selected, names, strict=True)))
    return rows, fields[1]


def create_collection(
    client: Any,
    collection: str,
    columns: StructType,
    dimension: int,
    vector_type: str,
    provenance: Mapping[str, str],
) -> None:
    """Create a collection with a field for each column; its properties say which model embeds its vectors.

    It is no error if another writer has just created it.
    """
    pymilvus = import_pymilvus()
    types = pymilvus.DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    key, vector, *payload = columns
    schema.add_field(
        key.name,
        types[_KEYS[key.dataType.simpleString()][0]],
        is_primary=True,
        **_string_limit(key.dataType.simpleString()),
    )
    schema.add_field(vector.name, types[vector_type], dim=dimension)
    for field in payload:
        type_ = field.dataType.simpleString()
        schema.add_field(field.name, types[_PAYLOADS[type_][0]], nullable=True, **_string_limit(type_))
    try:
        client.create_collection(collection, schema=schema, properties=create_properties(provenance))
    except pymilvus.exceptions.MilvusException:
        time.sleep(1)  # milvus-lite refuses a second collection moments before it shows the first
        if not client.has_collection(collection):
            raise


def make_searchable(client: Any, collection: str, vector_field: str, index: dict[str, Any]) -> None:
    """Load a collection; first create the index of its vectors if there is none.

    It is no error if another writer has just created the index.
    """
    if not client.list_indexes(collection, field_name=vector_field):
        indexes = client.prepare_index_params()
        indexes.add_index(vector_field, **index)
        try:
            client.create_index(collection, indexes)
        except import_pymilvus().exceptions.MilvusException:
            if not client.list_indexes(collection, field_name=vector_field):
                raise
    client.load_collection(collection)


def check_fields(
    description: dict[str, Any], columns: StructType, dimension: int | None, vector_type: str
) -> dict[str, Any]:
    """Return the fields of a collection by name; raise ValueError, naming the field, if the columns do not fit them."""
    fields = {field["name"]: field for field in description["fields"]}

    def fail(problem: str) -> None:
        names = ", ".join(f"{name} {field['type'].name}" for name, field in fields.items())
        raise ValueError(
            f"write_to_milvus: {problem}. The fields of collection {description['collection_name']!r} are {names}"
        )

    key, vector, *payload = columns
    vectors: _FieldTypes = {"array<float>": (vector_type,)}
    types_of_columns = [_KEYS, vectors, *[_PAYLOADS] * len(payload)]
    for column_field, types in zip(columns, types_of_columns, strict=True):
        name, type_ = column_field.name, column_field.dataType.simpleString()
        if name not in fields:
            if types is _PAYLOADS and description.get("enable_dynamic_field"):
                continue
            fail(f"there is no field for column {name!r}; rename the column or leave it out")
        if fields[name]["type"].name not in types[type_]:
            as_vectors = f" as {vector_type}; pass its vector_type" if types is vectors else ""
            fail(f"column {name!r} is {type_}, which its field cannot hold{as_vectors}")
    if not fields[key.name].get("is_primary") or description.get("auto_id") or fields[key.name].get("auto_id"):
        fail(
            f"{key.name!r} must be the primary key with ids of your own (auto_id=False), so that a retry replaces rows"
        )
    width = int(fields[vector.name]["params"]["dim"])
    if dimension not in (None, width):
        fail(f"column {vector.name!r} has vectors of {dimension} floats, but its field has vectors of {width}")
    for name, field in fields.items():
        if name not in columns.names and not accepts_null(field):
            fail(f"there is no column for the field {name!r}, which must not be null")
    return fields


def check_rows_kept(client: Any, collection: str, fields: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Raise ValueError, naming the fields, if an upsert of these columns could erase the values of other fields.

    An upsert replaces whole rows, even if a request lacks some of the fields. The collection must be loaded.
    """
    lost = [
        name
        for name, field in fields.items()
        if name not in columns and not (field.get("is_function_output") or field.get("is_dynamic"))
    ]
    if lost and client.query(collection, filter="", limit=1, output_fields=[columns[0]], consistency_level="Strong"):
        raise ValueError(
            f"write_to_milvus: collection {collection!r} has rows, and there are no columns for its fields "
            f"{', '.join(map(repr, lost))}. An upsert would set them to null or to their default: add them to "
            "payload_cols"
        )


def accepts_null(field: dict[str, Any]) -> bool:
    """Return whether a row may lack a value for a field of a collection."""
    return bool(field.get("nullable") or field.get("default_value") is not None or field.get("is_function_output"))


def _string_limit(type_: str) -> dict[str, int]:
    return {"max_length": MAX_STRING_BYTES} if type_ == "string" else {}
