"""The columns of a DataFrame: referring to them, checking their types and adding new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyspark.errors import AnalysisException, PySparkException
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    ByteType,
    CharType,
    DataType,
    DoubleType,
    FloatType,
    MapType,
    NullType,
    StringType,
    StructField,
    StructType,
    VarcharType,
)

from .vectors import DIMENSION, OUTPUT_TYPE

VECTOR = ArrayType(FloatType(), containsNull=False)
"""SQL type of a vector."""
VECTOR_TYPES: dict[str, DataType] = {
    "float": VECTOR,
    "vector": VectorUDT(),
    "half": BinaryType(),
    "int8": ArrayType(ByteType(), containsNull=False),
    "binary": BinaryType(),
}
"""SQL types of vectors by output type."""


def quote_name(name: str) -> str:
    """Quote a column name for Spark's expressions; the name may contain dots, spaces and backticks."""
    return "`" + name.replace("`", "``") + "`"


def column(name: str) -> Column:
    """Return the top-level column with exactly this name."""
    return F.col(quote_name(name))


def to_plain_type(type_: DataType) -> DataType:
    """Return a type with a plain string in place of every type that Spark treats as a string.

    These are strings with a collation, char, varchar, and void, which is the type of a null and of an element of
    ``array()``.
    """
    if isinstance(type_, (StringType, CharType, VarcharType, NullType)):
        return StringType()
    if isinstance(type_, ArrayType):
        return ArrayType(to_plain_type(type_.elementType), type_.containsNull)
    if isinstance(type_, MapType):
        key, value = to_plain_type(type_.keyType), to_plain_type(type_.valueType)
        return MapType(key, value, type_.valueContainsNull)
    if isinstance(type_, StructType):
        fields = [StructField(field.name, to_plain_type(field.dataType), field.nullable) for field in type_.fields]
        return StructType(fields)
    return type_


def read_column(field: StructField) -> Column:
    """Return a column of a DataFrame with plain strings, so that no collation changes what an expression does."""
    return column(field.name).cast(to_plain_type(field.dataType))


def empty_array(element: Column) -> Column:
    """Return an empty array of the type of ``element``.

    A cast of ``array()`` would do if ``spark.sql.legacy.createEmptyCollectionUsingStringType`` did not give it strings.
    """
    return F.array_repeat(element, 0)


def is_same_type(found: DataType, expected: DataType) -> bool:
    """Return whether two types are equal, whatever their nullability and whatever kinds of strings they hold.

    Parquet does not keep nullability.
    """
    if isinstance(found, ArrayType) and isinstance(expected, ArrayType):
        return is_same_type(found.elementType, expected.elementType)
    if isinstance(found, MapType) and isinstance(expected, MapType):
        return is_same_type(found.keyType, expected.keyType) and is_same_type(found.valueType, expected.valueType)
    if isinstance(found, StructType) and isinstance(expected, StructType):
        return found.names == expected.names and all(
            is_same_type(left.dataType, right.dataType) for left, right in zip(found, expected, strict=True)
        )
    return to_plain_type(found) == to_plain_type(expected)


def match_names(names: Iterable[str], name: str, spark: SparkSession | None) -> list[str]:
    """Return those of the names that Spark takes for ``name``, which ``spark.sql.caseSensitive`` decides.

    Without a session, this ignores case, as Spark does by default.
    """
    similar = [other for other in names if other.lower() == name.lower()]
    exact = [other for other in similar if other == name]
    return exact if similar == exact or _is_case_sensitive(spark) else similar


def find_field(dataset: DataFrame, name: str, reader: str) -> StructField:
    """Return the schema's field of a column.

    Raises ValueError, naming the ``reader`` of the column, if there is no such column or more than one, and if the
    DataFrame has no schema yet because it belongs to a declarative pipeline.
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
    matches = match_names(schema.names, name, dataset.sparkSession)
    if not matches:
        names = ", ".join(map(repr, schema.names))
        parent, _, child = name.rpartition(".")
        is_nested = any(
            isinstance(schema[found].dataType, StructType) for found in match_names(schema.names, parent, None)
        )
        advice = f"; make the field a column: df.withColumn({child!r}, F.col({name!r}))" if is_nested else ""
        raise ValueError(f"{reader}: there is no column {name!r}; the columns are {names}{advice}")
    if len(matches) > 1:
        raise ValueError(
            f"{reader}: column {name!r} is ambiguous, since there are the columns {', '.join(map(repr, matches))}; "
            "rename one of them"
        )
    return schema[matches[0]]


def check_type(field: StructField, expected: Iterable[DataType], reader: str) -> None:
    """Raise ValueError, naming the column, if its type is none of the expected types; see `is_same_type`."""
    types = list(expected)
    if not any(is_same_type(field.dataType, type_) for type_ in types):
        wanted = " or ".join(map(_describe_type, types))
        raise ValueError(f"{reader}: column {field.name!r} is {_describe_type(field.dataType)}, expected {wanted}")


def get_output_type(field: StructField, reader: str) -> str:
    """Return the output type of a column of vectors, one of `OUTPUT_TYPES`.

    Raises ValueError, naming the column, if it holds no vectors, and if it holds binaries but its metadata does not
    say what they contain.
    """
    if is_same_type(field.dataType, ArrayType(DoubleType())):
        return "float"
    output_type: str | None = (field.metadata or {}).get(OUTPUT_TYPE)
    candidates = [name for name, type_ in VECTOR_TYPES.items() if is_same_type(field.dataType, type_)]
    if isinstance(field.dataType, BinaryType) and output_type not in candidates:
        raise ValueError(
            f"{reader}: column {field.name!r} is binary, and its metadata does not say whether it holds vectors of the "
            "output type 'half' or 'binary'. If something dropped the metadata, add it: "
            f"df.withMetadata({field.name!r}, {{'{OUTPUT_TYPE}': 'half', '{DIMENSION}': 768}})"
        )
    if not candidates:
        raise ValueError(
            f"{reader}: column {field.name!r} is {_describe_type(field.dataType)}, expected vectors: array<float>, "
            "array<double>, or another type that InstructorEmbeddings.setOutputType gives" + _advise(field)
        )
    return output_type if output_type in candidates else candidates[0]


def check_new_columns(dataset: DataFrame, names: Iterable[str], writer: str) -> None:
    """Raise ValueError if an output column exists already or is named twice."""
    taken = list(dataset.columns)
    for name in names:
        matches = match_names(taken, name, dataset.sparkSession)
        if matches:
            spelling = "" if name in matches else f" as {matches[0]!r}, and Spark ignores case"
            raise ValueError(
                f"{writer}: the output column {name!r} exists already{spelling}; drop it or choose another name"
            )
        taken.append(name)


def add_columns(dataset: DataFrame, added: dict[str, tuple[Column, dict[str, Any]]]) -> DataFrame:
    """Append columns, each with its metadata.

    This uses `select` because Spark Connect loses the metadata of an alias in `withColumn`, and `withMetadata`
    fails on names with dots.
    """
    new = [expression.alias(name, metadata=metadata) for name, (expression, metadata) in added.items()]
    return dataset.select("*", *new)


def _is_case_sensitive(spark: SparkSession | None) -> bool:
    try:
        return spark is not None and str(spark.conf.get("spark.sql.caseSensitive")).lower() == "true"
    except PySparkException:  # serverless compute of Databricks hides most settings and leaves them at their defaults
        return False


def _advise(field: StructField) -> str:
    """Return how to get vectors out of a column that holds several per row; "" for other columns."""
    element = field.dataType.elementType if isinstance(field.dataType, ArrayType) else None
    name = quote_name(field.name)
    if isinstance(element, StructType):
        return f". Take the vector of one annotation: F.col({name!r})[0]['embeddings']"
    return f". Make a row of each vector: F.explode({name!r})" if isinstance(element, ArrayType) else ""


def _describe_type(type_: DataType) -> str:
    """Return a type as in SQL; annotations, whose SQL type is long, by their name."""
    element = type_.elementType if isinstance(type_, ArrayType) else None
    if isinstance(element, StructType) and "annotatorType" in element.names:
        return "array of annotations"
    return type_.simpleString()
