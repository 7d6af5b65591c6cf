"""The annotation column: its SQL type and its metadata, both exactly as in Spark NLP.

Source: ``Annotation.dataType`` in Spark NLP, and the column metadata that its stages write and check.
"""

from __future__ import annotations

import dataclasses

from pyspark.sql import Row
from pyspark.sql.types import ArrayType, IntegerType, MapType, StringType, StructField, StructType

from ..columns import VECTOR, is_same_type

DOCUMENT = "document"
SENTENCE_EMBEDDINGS = "sentence_embeddings"
EMBEDDINGS = (SENTENCE_EMBEDDINGS, "word_embeddings")

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


@dataclasses.dataclass(eq=False)
class Annotation:
    """One annotation in Python, as `LightPipeline.fullAnnotate` returns it, with the interface of Spark NLP's class.

    An annotation equals one of Spark NLP's that has the same values.
    """

    annotatorType: str
    begin: int
    """Index of the first character in the document, in UTF-16 units as Java counts."""
    end: int
    """Index of the last character in the document, in UTF-16 units."""
    result: str
    """The text."""
    metadata: dict[str, str | None]
    embeddings: list[float]
    """The vector; empty if this is not an embeddings annotation."""

    def copy(self, result: str) -> Annotation:
        """Return an annotation that differs from this one only by its result."""
        return dataclasses.replace(self, result=result)

    @staticmethod
    def dataType() -> StructType:
        """Return the SQL type of an annotation."""
        return ANNOTATION

    @staticmethod
    def arrayType() -> ArrayType:
        """Return the SQL type of a column of annotations."""
        return ANNOTATIONS

    @staticmethod
    def fromRow(row: Row) -> Annotation:
        """Return the annotation that a row holds."""
        return Annotation(*(row[name] for name in ANNOTATION.names))

    @staticmethod
    def toRow(annotation: Annotation) -> Row:
        """Return an annotation as a row."""
        return Row(**{name: getattr(annotation, name) for name in ANNOTATION.names})

    def __eq__(self, other: object) -> bool:
        if not all(hasattr(other, name) for name in ANNOTATION.names):
            return NotImplemented
        # Spark NLP's class may hold the map and the list of a JVM.
        return (
            all(getattr(self, name) == getattr(other, name) for name in ANNOTATION.names[:4])
            and dict(self.metadata) == dict(other.metadata)  # type: ignore[attr-defined]
            and list(self.embeddings) == list(other.embeddings)  # type: ignore[attr-defined]
        )

    def __str__(self) -> str:
        return f"Annotation({', '.join(str(getattr(self, name)) for name in ANNOTATION.names)})"

    def __repr__(self) -> str:
        values = {field.name: repr(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(self.embeddings) > 3:
            first = ", ".join(f"{value:.4g}" for value in self.embeddings[:3])
            values["embeddings"] = f"[{first}, ... {len(self.embeddings)} floats]"
        return f"Annotation({', '.join(f'{name}={value}' for name, value in values.items())})"


def is_annotations(field: StructField) -> bool:
    """Return whether a column holds annotations of any annotatorType."""
    return is_same_type(field.dataType, ANNOTATIONS)


def check_annotator_type(field: StructField, expected: tuple[str, ...], reader: str) -> None:
    """Raise ValueError if the metadata of a column names another annotatorType.

    A column without this metadata is accepted, since some file formats do not keep it.
    """
    found = (field.metadata or {}).get("annotatorType")
    if found is not None and found not in expected:
        raise ValueError(
            f"{reader}: column {field.name!r} has the annotatorType {found!r}, expected {' or '.join(expected)}"
        )
