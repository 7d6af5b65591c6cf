"""The annotation column: its SQL type and metadata, Spark NLP's to the letter, and the checks on input columns.

Source: Spark NLP's ``Annotation.dataType`` and the column metadata that its stages write and ask for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    IntegerType,
    MapType,
    StringType,
    StructField,
    StructType,
)

DOCUMENT = "document"
SENTENCE_EMBEDDINGS = "sentence_embeddings"
EMBEDDINGS = (SENTENCE_EMBEDDINGS, "word_embeddings")

VECTOR = ArrayType(FloatType(), containsNull=False)
METADATA = MapType(StringType(), StringType(), valueContainsNull=True)
ANNOTATION = StructType(
    [
        StructField("annotatorType", StringType(), True),
        StructField("begin", IntegerType(), False),
        StructField("end", IntegerType(), False),
        StructField("result", StringType(), True),
        StructField("metadata", METADATA, True),
        StructField("embeddings", VECTOR, True),
    ]
)
ANNOTATIONS = ArrayType(ANNOTATION, containsNull=True)


@dataclasses.dataclass
class Annotation:
    """One annotation in Python, as `LightPipeline.fullAnnotate` gives it; fields as in Spark NLP's class."""

    annotator_type: str
    begin: int
    end: int
    """Index of the last character, in UTF-16 units as Java counts."""
    result: str
    metadata: dict[str, str | None]
    embeddings: list[float]

    def __repr__(self) -> str:
        shown = {field.name: repr(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(self.embeddings) > 3:
            first = ", ".join(f"{value:.4g}" for value in self.embeddings[:3])
            shown["embeddings"] = f"[{first}, ... {len(self.embeddings)} floats]"
        return f"Annotation({', '.join(f'{name}={value}' for name, value in shown.items())})"


def quoted(name: str) -> str:
    """A column name as Spark's expressions want it, dots and spaces allowed."""
    return "`" + name.replace("`", "``") + "`"


def column(name: str) -> Column:
    """The top-level column of this very name."""
    return F.col(quoted(name))


def utf16_length(text: Column) -> Column:
    """Length of a string column in UTF-16 units, as Java counts."""
    return (F.octet_length(F.encode(text, "UTF-16BE")) / 2).cast("int")


def same_type(found: DataType, expected: DataType) -> bool:
    """Whether two types are equal but for nullability, which Parquet drops."""
    if isinstance(found, ArrayType) and isinstance(expected, ArrayType):
        return same_type(found.elementType, expected.elementType)
    if isinstance(found, MapType) and isinstance(expected, MapType):
        return same_type(found.keyType, expected.keyType) and same_type(found.valueType, expected.valueType)
    if isinstance(found, StructType) and isinstance(expected, StructType):
        return found.names == expected.names and all(
            same_type(one.dataType, other.dataType) for one, other in zip(found, expected, strict=True)
        )
    return found == expected


def is_annotations(field: StructField) -> bool:
    """Whether a column holds annotations, of whatever annotatorType."""
    return same_type(field.dataType, ANNOTATIONS)


def input_field(dataset: DataFrame, name: str, stage: str) -> StructField:
    """The schema's field of an input column; ValueError where there is none."""
    for field in dataset.schema.fields:
        if field.name == name:
            return field
    raise ValueError(f"{stage}: there is no column {name!r}; the columns are {', '.join(dataset.columns)}")


def check_type(field: StructField, expected: Iterable[DataType], stage: str) -> None:
    """ValueError, naming the column, where its type is none of the expected ones (nullability apart)."""
    types = list(expected)
    if not any(same_type(field.dataType, one) for one in types):
        wanted = " or ".join(_short(one) for one in types)
        raise ValueError(f"{stage}: column {field.name!r} is {_short(field.dataType)}, expected {wanted}")


def check_annotator_type(field: StructField, expected: tuple[str, ...], stage: str) -> None:
    """ValueError where a column's metadata names another annotatorType; none at all is accepted (Parquet)."""
    found = (field.metadata or {}).get("annotatorType")
    if found is not None and found not in expected:
        raise ValueError(
            f"{stage}: column {field.name!r} has the annotatorType {found!r}, expected {' or '.join(expected)}"
        )


def check_new(dataset: DataFrame, names: Iterable[str], stage: str) -> None:
    """ValueError where an output column would come twice."""
    taken = list(dataset.columns)
    for name in names:
        if name in taken:
            raise ValueError(f"{stage}: the output column {name!r} is there already; drop it or name another")
        taken.append(name)


def with_columns(dataset: DataFrame, added: dict[str, tuple[Column, dict[str, Any]]]) -> DataFrame:
    """Append columns with their metadata.

    By `select`: Spark Connect loses an alias's metadata in `withColumn`, and `withMetadata` fails on dots.
    """
    new = [expression.alias(name, metadata=metadata) for name, (expression, metadata) in added.items()]
    return dataset.select("*", *new)


def _short(type_: DataType) -> str:
    return "array of annotations" if same_type(type_, ANNOTATIONS) else type_.simpleString()
