"""EmbeddingsFinisher extracts vectors from annotation columns."""

import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StructField, StructType

from spark_instructor import DocumentAssembler, EmbeddingsFinisher
from spark_instructor.columns import VECTOR
from spark_instructor.stages.annotation import ANNOTATIONS, SENTENCE_EMBEDDINGS


def make_annotations(*vectors):
    return [(SENTENCE_EMBEDDINGS, 0, 0, "a", {}, vector) for vector in vectors]


@pytest.fixture(scope="module")
def annotated(spark):
    """Return two columns of embeddings and one of documents, with null rows, empty rows and a null vector."""
    rows = [
        (0, make_annotations([1.0, 2.0], [3.0, 4.0]), make_annotations([0.5])),
        (1, [], make_annotations(None, [0.25])),
        (2, None, None),
    ]
    types = {"id": IntegerType(), "title": ANNOTATIONS, "my.body": ANNOTATIONS}
    raw = spark.createDataFrame(rows, StructType([StructField(name, type_) for name, type_ in types.items()]))
    kind = {"annotatorType": SENTENCE_EMBEDDINGS}
    marked = raw.select(
        "id", F.col("title").alias("title", metadata=kind), F.col("`my.body`").alias("my.body", metadata=kind)
    )
    texts = marked.withColumn("text", F.lit("a"))
    return DocumentAssembler(inputCol="text").transform(texts)


def columns(dataset, *names):
    rows = sorted(dataset.select("id", *[f"`{name}`" for name in names]).collect())
    return [[row[name] for row in rows] for name in names]


def test_arrays(annotated):
    finished = EmbeddingsFinisher(inputCols="title", outputCols="vectors").transform(annotated)
    assert finished.columns == [*annotated.columns, "vectors"]
    assert finished.schema["vectors"] == StructField("vectors", ArrayType(VECTOR), True)
    assert columns(finished, "vectors") == [[[[1.0, 2.0], [3.0, 4.0]], [], None]]


def test_several_columns_with_default_names(annotated):
    finished = EmbeddingsFinisher(inputCols=["title", "my.body"]).transform(annotated)
    assert columns(finished, "finished_title", "finished_my.body") == [
        [[[1.0, 2.0], [3.0, 4.0]], [], None],
        [[[0.5]], [None, [0.25]], None],
    ]


def test_vectors(annotated):
    finished = EmbeddingsFinisher(inputCols=["title", "my.body"], outputAsVector=True).transform(annotated)
    assert finished.schema["finished_title"].dataType.simpleString() == "array<vector>"
    assert columns(finished, "finished_title", "finished_my.body") == [
        [[Vectors.dense(1.0, 2.0), Vectors.dense(3.0, 4.0)], [], None],
        [[Vectors.dense(0.5)], [None, Vectors.dense(0.25)], None],
    ]


@pytest.mark.parametrize("as_vector", [False, True])
def test_cleaning_drops_every_annotation_column(annotated, as_vector):
    stage = EmbeddingsFinisher(inputCols="my.body", outputCols="a b.c", outputAsVector=as_vector, cleanAnnotations=True)
    assert stage.transform(annotated).columns == ["id", "text", "a b.c"]


def test_after_parquet(annotated, tmp_path):
    path = str(tmp_path / "annotated")
    annotated.write.parquet(path)
    stored = annotated.sparkSession.read.parquet(path)
    # Other writers drop the column metadata, which says what kind of annotations a column contains.
    unmarked = stored.select("id", F.col("title").alias("title", metadata={}), "document")
    finished = EmbeddingsFinisher(inputCols="title", cleanAnnotations=True).transform(unmarked)
    assert finished.columns == ["id", "finished_title"]
    assert columns(finished, "finished_title") == [[[[1.0, 2.0], [3.0, 4.0]], [], None]]


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"EmbeddingsFinisher needs inputCols: call setInputCols\("),
        ({"inputCols": ["title"], "outputCols": ["a", "b"]}, r"1 inputCols \['title'\] but 2 outputCols \['a', 'b'\]"),
        (
            {"inputCols": ["body"]},
            "EmbeddingsFinisher: there is no column 'body'; the columns are 'id', 'title', 'my.body'",
        ),
        ({"inputCols": ["text"]}, "EmbeddingsFinisher: column 'text' is string, expected array of annotations"),
        ({"inputCols": ["document"]}, "'document' has the annotatorType 'document', expected sentence_embeddings or"),
        ({"inputCols": ["title"], "outputCols": ["id"]}, "the output column 'id' exists already"),
        ({"inputCols": ["title", "my.body"], "outputCols": ["a", "a"]}, "the output column 'a' exists already"),
    ],
)
def test_bad_input(annotated, params, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingsFinisher(**params).transform(annotated)


@pytest.mark.one_kind
def test_clean_annotations_beside_equal_names(annotated):
    stage = EmbeddingsFinisher(inputCols=["title"], outputCols=["a"], cleanAnnotations=True)
    assert stage.transform(annotated.select("*", "id")).columns == ["id", "text", "id", "a"]


def test_save_and_load(annotated, tmp_path):
    stage = EmbeddingsFinisher(inputCols=["title", "my.body"], outputCols=["a", "b"], cleanAnnotations=True)
    path = str(tmp_path / "finisher")
    EmbeddingsFinisher(inputCols="other").save(path)
    stage.write().overwrite().save(path)
    loaded = EmbeddingsFinisher.load(path)
    assert (loaded.uid, loaded.explainParams()) == (stage.uid, stage.explainParams())
    assert loaded.transform(annotated).columns == ["id", "text", "a", "b"]
    with pytest.raises(ValueError, match=r"holds a spark_instructor\.EmbeddingsFinisher, expected a .*DocumentAss"):
        DocumentAssembler.load(path)
