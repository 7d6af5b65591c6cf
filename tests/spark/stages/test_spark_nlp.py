"""What Spark NLP's stages did, recorded in tests/data/sparknlp, compared with the stages of this package."""

import json
from pathlib import Path

import pytest
from pyspark.sql.types import StructField

import spark_instructor
from spark_instructor import Annotation, DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings
from spark_instructor.stages.assembler import CLEANUPS

pytestmark = pytest.mark.one_kind

DATA = Path(__file__).parents[2] / "data/sparknlp"


def read_lines(name):
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def read_field(name):
    return StructField.fromJson(json.loads((DATA / "schemas.json").read_text("utf-8"))[name])


def to_dicts(documents):
    names = ("annotatorType", "begin", "end", "result", "metadata")
    return [{name: document[name] for name in names} for document in documents]


def test_documents(spark):
    lines = read_lines("document_assembler.jsonl")
    expected = {(line["text"], line["cleanupMode"]): line["document"] for line in lines}
    frame = spark.createDataFrame([(text,) for text in dict.fromkeys(line["text"] for line in lines)], "text string")
    for mode in CLEANUPS:
        frame = DocumentAssembler(inputCol="text", outputCol=mode, cleanupMode=mode).transform(frame)
    rows = frame.collect()
    assert len(rows) * len(CLEANUPS) == len(expected) > 400
    for row in rows:
        for mode in CLEANUPS:
            assert to_dicts(row[mode]) == expected[row.text, mode], (mode, row.text)


def test_ids_and_metadata(spark):
    for line in read_lines("document_assembler_metadata.jsonl"):
        values = [(line["text"], line["i"], line["m"])]
        frame = spark.createDataFrame(values, "text string, i string, m map<string,string>")
        columns = {name: line[name] for name in ("idCol", "metadataCol") if name in line}
        (row,) = DocumentAssembler(inputCol="text", **columns).transform(frame).collect()
        assert to_dicts(row.document) == line["document"]


def test_schemas(spark, tiny):
    texts = spark.createDataFrame([], "text string")
    documents = DocumentAssembler(inputCol="text", outputCol="document").transform(texts)
    embedder = InstructorEmbeddings(model=str(tiny), inputCols="document", outputCol="embeddings")
    embedded = embedder.setStorageRef("some_ref").transform(documents)
    assert documents.schema["document"] == read_field("DocumentAssembler")
    ours, theirs = embedded.schema["embeddings"], read_field("InstructorEmbeddings")
    assert (ours.dataType, ours.nullable) == (theirs.dataType, theirs.nullable)
    assert {**theirs.metadata, "dimension": 64} == {k: v for k, v in ours.metadata.items() if k != "spark_instructor"}
    for line in read_lines("embeddings_finisher.jsonl"):
        params = {name: line[name] for name in ("outputAsVector", "cleanAnnotations")}
        finished = EmbeddingsFinisher(inputCols="embeddings", outputCols="finished", **params).transform(embedded)
        assert finished.schema["finished"] == StructField.fromJson(line["finished"])
        assert finished.columns == [name for name in line["columns"] if name not in ("id", "sentence")]


@pytest.mark.parametrize(
    "stage", ["DocumentAssembler", "SentenceDetector", "InstructorEmbeddings", "EmbeddingsFinisher"]
)
def test_params(stage):
    """Every Param, setter and getter of Spark NLP is here, except those of TensorFlow and of its own base class."""
    theirs = json.loads((DATA / "params.json").read_text("utf-8"))[stage]
    ours = getattr(spark_instructor, stage)()
    absent = {"configProtoBytes", "engine", "setConfigProtoBytes", "getConfigProtoBytes"}
    of_base = {"setParams", "setParamValue", "getParamValue", "getter_attrs"}
    methods = set(theirs.pop("#setters")) - absent - of_base
    assert {name for name in methods if not hasattr(ours, name)} == set()
    assert {name for name in theirs if name not in absent and not ours.hasParam(name)} == set()


def test_annotations():
    recorded = json.loads((DATA / "light_pipeline.json").read_text("utf-8"))
    assert all(hasattr(Annotation, name) for name in recorded["Annotation"]["methods"])
    (row,) = recorded["fullAnnotate parse_embeddings=False"]
    for values in (annotation for column in row.values() for annotation in column):
        expected = values.pop("str")
        del values["n_embeddings"]
        annotation = Annotation(**values, embeddings=[])
        assert str(annotation) == expected
        assert sorted(vars(annotation)) == recorded["Annotation"]["attributes"]
