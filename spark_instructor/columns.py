"""The columns of a DataFrame: referring to them, checking their types and adding new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, FloatType, MapType, StructField, StructType

VECTOR = ArrayType(FloatType(), containsNull=False)
"""SQL type of a vector."""


def quote_name(name: str) -> str:
    """Quote a column name for Spark's expressions; the name may contain dots, spaces and backticks."""
    return "`" + name.replace("`", "``") + "`"


def column(name: str) -> Column:
    """Return the top-level column with exactly this name."""
    return F.col(quote_name(name))


def is_same_type(found: DataType, expected: DataType) -> bool:
    """Return whether two types are equal except for nullability, which Parquet does not keep."""
    if isinstance(found, ArrayType) and isinstance(expected, ArrayType):
        return is_same_type(found.elementType, expected.elementType)
    if isinstance(found, MapType) and isinstance(expected, MapType):
        return is_same_type(found.keyType, expected.keyType) and is_same_type(found.valueType, expected.valueType)
    if isinstance(found, StructType) and isinstance(expected, StructType):
        return found.names == expected.names and all(
            is_same_type(left.dataType, right.dataType) for left, right in zip(found, expected, strict=True)
        )
    return found == expected


def find_field(dataset: DataFrame, name: str, reader: str) -> StructField:
    """Return the schema's field of a column.

    Raises ValueError, naming the ``reader`` of the column, if there is no such column, and if the DataFrame has no
    schema yet because it belongs to a declarative pipeline.
    """
    try:
        schema = dataset.schema
    except AnalysisException as error:
        if "ATTEMPT_ANALYSIS_IN_PIPELINE_QUERY_FUNCTION" not in str(error):
            raise
        raise ValueError(
            f"{reader}: a query function of a declarative pipeline cannot use a stage, which needs the schema of the "
            "DataFrame. Use spark_instructor.instructor_embed there: "
            "df.withColumn('vector', instructor_embed('text', 'Represent the document: ', model='instructor_base'))"
        ) from error
    for field in schema.fields:
        if field.name == name:
            return field
    raise ValueError(f"{reader}: there is no column {name!r}; the columns are {', '.join(map(repr, schema.names))}")


def check_type(field: StructField, expected: Iterable[DataType], reader: str) -> None:
    """Raise ValueError, naming the column, if its type is none of the expected types (ignoring nullability)."""
    types = list(expected)
    if not any(is_same_type(field.dataType, type_) for type_ in types):
        wanted = " or ".join(map(_describe_type, types))
        raise ValueError(f"{reader}: column {field.name!r} is {_describe_type(field.dataType)}, expected {wanted}")


def check_new_columns(dataset: DataFrame, names: Iterable[str], writer: str) -> None:
    """Raise ValueError if an output column exists already or is named twice."""
    taken = list(dataset.columns)
    for name in names:
        if name in taken:
            raise ValueError(f"{writer}: the output column {name!r} exists already; drop it or choose another name")
        taken.append(name)


def add_columns(dataset: DataFrame, added: dict[str, tuple[Column, dict[str, Any]]]) -> DataFrame:
    """Append columns, each with its metadata.

    This uses `select` because Spark Connect loses the metadata of an alias in `withColumn`, and `withMetadata`
    fails on names with dots.
    """
    new = [expression.alias(name, metadata=metadata) for name, (expression, metadata) in added.items()]
    return dataset.select("*", *new)


def _describe_type(type_: DataType) -> str:
    """Return a type as in SQL; annotations, whose SQL type is long, by their name."""
    element = type_.elementType if isinstance(type_, ArrayType) else None
    if isinstance(element, StructType) and "annotatorType" in element.names:
        return "array of annotations"
    return type_.simpleString()
