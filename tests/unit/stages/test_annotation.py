"""The Annotation class, the SQL type of annotations, and the checks of column types."""

import json

import pytest
from pyspark.sql import Row
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from spark_instructor import Annotation
from spark_instructor.stages.annotation import (
    ANNOTATION,
    ANNOTATIONS,
    DOCUMENT,
    EMBEDDINGS,
    check_annotator_type,
    is_annotations,
)

# The type of Spark NLP's annotations, as its JVM code serializes it.
SPARK_NLP_SCHEMA = """
{"type": "array", "containsNull": true, "elementType": {"type": "struct", "fields": [
  {"name": "annotatorType", "type": "string", "nullable": true, "metadata": {}},
  {"name": "begin", "type": "integer", "nullable": false, "metadata": {}},
  {"name": "end", "type": "integer", "nullable": false, "metadata": {}},
  {"name": "result", "type": "string", "nullable": true, "metadata": {}},
  {"name": "metadata", "type": {"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true},
   "nullable": true, "metadata": {}},
  {"name": "embeddings", "type": {"type": "array", "elementType": "float", "containsNull": false},
   "nullable": true, "metadata": {}}]}}
"""


def field(type_, **metadata):
    return StructField("column", type_, True, metadata)


def test_schema_is_spark_nlps():
    assert json.loads(ANNOTATIONS.json()) == json.loads(SPARK_NLP_SCHEMA)


def test_repr_shortens_the_embeddings():
    vector = [0.123456789, -0.5, 1e-9, 0.25]
    assert repr(Annotation("sentence_embeddings", 0, 1, "Hi", {"sentence": "0"}, vector * 192)) == (
        "Annotation(annotatorType='sentence_embeddings', begin=0, end=1, result='Hi', metadata={'sentence': '0'}, "
        "embeddings=[0.1235, -0.5, 1e-09, ... 768 floats])"
    )
    assert repr(Annotation("document", 0, -1, "", {}, [])).endswith("result='', metadata={}, embeddings=[])")


class TheirAnnotation:
    """What Spark NLP's class holds, and how it compares."""

    def __init__(self, *values):
        for name, value in zip(ANNOTATION.names, values, strict=True):
            setattr(self, name, value)

    def __eq__(self, other):
        return all(getattr(self, name) == getattr(other, name) for name in ANNOTATION.names)


@pytest.mark.parametrize("other", [Annotation, TheirAnnotation])
def test_annotations_are_equal_by_value(other):
    values = ["document", 0, 0, "a", {"sentence": "0"}, [1.0]]
    annotation = Annotation(*values)
    assert annotation == other(*values) and other(*values) == annotation
    for i, value in enumerate(["token", 1, 1, "b", {}, []]):
        different = other(*values[:i], value, *values[i + 1 :])
        assert annotation != different and different != annotation
    assert annotation != tuple(values) and annotation != "a"


def test_spark_nlps_names():
    """Its class has these, according to tests/data/sparknlp/light_pipeline.json."""
    annotation = Annotation(annotatorType="document", begin=0, end=0, result="a", metadata={"k": "v"}, embeddings=[])
    assert str(annotation) == "Annotation(document, 0, 0, a, {'k': 'v'}, [])"
    assert annotation.copy("b") == Annotation("document", 0, 0, "b", {"k": "v"}, [])
    assert annotation.result == "a"
    assert (Annotation.dataType(), Annotation.arrayType()) == (ANNOTATION, ANNOTATIONS)
    row = Annotation.toRow(annotation)
    assert row == Row("document", 0, 0, "a", {"k": "v"}, []) and row.annotatorType == "document"
    assert Annotation.fromRow(row) == annotation


def test_types_are_compared_without_nullability():
    nullable = StructType([StructField(member.name, member.dataType, True) for member in ANNOTATION])
    assert is_annotations(field(ArrayType(nullable, False)))
    renamed = StructType([StructField(f"{member.name}_", member.dataType) for member in ANNOTATION])
    for other in (ANNOTATION, ArrayType(renamed), ArrayType(StructType(ANNOTATION.fields[:5])), StringType()):
        assert not is_annotations(field(other))


def test_annotator_type_may_be_missing_but_not_wrong():
    check_annotator_type(field(ANNOTATIONS, annotatorType=DOCUMENT), (DOCUMENT,), "Stage")
    check_annotator_type(field(ANNOTATIONS), (DOCUMENT,), "Stage")
    message = "column 'column' has the annotatorType 'token', expected sentence_embeddings or word_embeddings"
    with pytest.raises(ValueError, match=message):
        check_annotator_type(field(ANNOTATIONS, annotatorType="token"), EMBEDDINGS, "Stage")
