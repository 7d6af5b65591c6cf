"""Vectors in each output type: what a stage returns, and everything that reads them."""

import numpy as np
import pytest
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.clustering import KMeans
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, ByteType, FloatType

from spark_instructor import (
    DocumentAssembler,
    InstructorEmbeddings,
    convert_vectors,
    cosine_similarity,
    embed_changes,
    instructor_embed,
    near_duplicates,
    nearest,
)
from spark_instructor.columns import is_same_type
from spark_instructor.search import find_nearest, open_parquet
from spark_instructor.vectors import OUTPUT_TYPES

TEXTS = ["prices rise", "cells divide", "water boils", None, "prices rise", ""]
SQL_TYPES = {
    "float": ArrayType(FloatType(), False),
    "vector": VectorUDT(),
    "half": BinaryType(),
    "int8": ArrayType(ByteType(), False),
    "binary": BinaryType(),
}
TOLERANCES = {"float": 1e-6, "vector": 1e-6, "half": 1e-3, "int8": 0.02, "binary": 0.5}


@pytest.fixture(scope="module")
def texts(spark):
    rows = [(i, text, [text, None]) for i, text in enumerate(TEXTS)]
    return spark.createDataFrame(rows, "id int, text string, texts array<string>").coalesce(1).persist()


@pytest.fixture(scope="module")
def similarities(tiny_model):
    """Return the similarity of each text to the first one, and None for the null."""
    first, *_ = vectors = tiny_model.encode("", [text or "" for text in TEXTS])
    return [None if text is None else float(first @ vector) for text, vector in zip(TEXTS, vectors, strict=True)]


def embed(tiny, texts, output_type, column="text", output="v"):
    stage = InstructorEmbeddings(model=str(tiny), inputCols=column, outputCol=output, outputType=output_type)
    return stage.transform(texts)


@pytest.fixture(scope="module")
def stored(spark, tiny, texts, tmp_path_factory):
    """Return a folder with the stage's vectors of each output type, and a DataFrame with a column of each."""
    folder = tmp_path_factory.mktemp("vectors")
    joined = texts.select("id", "text")
    for name in OUTPUT_TYPES:
        embedded = embed(tiny, texts, name, output=name).select("id", name)
        embedded.write.parquet(f"file://{folder}/{name}")  # one after the other, so that one worker serves all
        read = spark.read.parquet(f"file://{folder}/{name}")
        assert embedded.schema[name].dataType == SQL_TYPES[name]
        assert read.schema[name].metadata == embedded.schema[name].metadata
        assert read.schema[name].metadata.get("outputType", "float") == name
        joined = joined.join(read, "id")
    return folder, joined.persist()


def test_readers(tiny, texts, stored, similarities):
    """Whatever reads vectors understands every output type, also after Parquet."""
    folder, stored = stored
    first = embed(tiny, texts.where("id = 0").select("text"), "float", output="first").select("first").persist()
    pairs = first.crossJoin(stored)
    compared = pairs.select("id", *(cosine_similarity("first", name, df=pairs).alias(name) for name in OUTPUT_TYPES))
    expected = [-2 if similarity is None else similarity for similarity in similarities]
    scores = compared.orderBy("id").fillna(-2).collect()
    for name in OUTPUT_TYPES:
        assert [row[name] for row in scores] == pytest.approx(expected, abs=TOLERANCES[name])

    hits = {row.id: row["binary"] for row in scores if row["binary"] != -2}
    found = nearest(first, stored, 9, query_vector="first", passage_vector="binary")
    assert {row.id: row.score for row in found.collect()} == pytest.approx(hits, abs=1e-5)
    found = nearest(stored.where("id = 0").select("vector"), stored, 2, passage_vector="half").collect()
    assert {row.id for row in found} == {0, 4}
    (pair,) = near_duplicates(stored, 0.999, key="id", vector="int8").collect()
    assert {pair.left, pair.right} == {0, 4}

    query = np.array(first.first().first, np.float32)
    for name in OUTPUT_TYPES:
        found = find_nearest(open_parquet(str(folder / name), name), name, query, 9)
        scores_by_id = {row.id: row[name] for row in scores if row[name] != -2}
        assert {hit.row["id"]: hit.similarity for hit in found} == pytest.approx(scores_by_id, abs=1e-5)


def test_arrays_of_texts(tiny, texts):
    for output_type in ("vector", "half"):
        embedded = embed(tiny, texts, output_type, "texts")
        assert embedded.schema["v"].dataType == ArrayType(SQL_TYPES[output_type])
        for row in embedded.select("texts", "v").collect():
            assert [vector is None for vector in row.v] == [text is None for text in row.texts]


def test_conversions(texts, stored):
    """A conversion from floats gives what the stage gives; one to floats gives what the readers see."""
    _, stored = stored
    for name in OUTPUT_TYPES:
        converted = convert_vectors(stored.select("id", "float"), name, vector="float")
        expected = stored.select("id", F.col(name).alias("float"))
        assert is_same_type(converted.schema["float"].dataType, SQL_TYPES[name])
        assert converted.schema["float"].metadata == expected.schema["float"].metadata
        assert sorted(converted.collect()) == sorted(expected.collect())
        back = convert_vectors(stored, "float", vector=name)
        assert back.columns == stored.columns and back.schema[name].metadata == stored.schema["float"].metadata
        for row in back.where("id < 3").collect():
            assert row[name] == pytest.approx(row.float, abs=TOLERANCES[name])
    doubles = texts.select(F.array(F.lit(3.0), F.lit(-4.0)).alias("v")).limit(1)
    assert convert_vectors(convert_vectors(doubles, "int8", vector="v"), "vector", vector="v").first().v[1] < -0.79


@pytest.mark.one_kind
def test_conversions_of_what_no_integer_can_represent(spark):
    for name, numbers in {"NaN": "double('nan')", "infinity": "double('inf')", "null": "null"}.items():
        vectors = spark.sql(f"SELECT array(2D, {numbers}) AS v").select(
            F.col("v").alias("v", metadata={"dimension": 2})
        )
        for output_type in ("int8", "binary"):
            with pytest.raises(PySparkException, match="column 'v' has a vector that contains NaN, infinity or null"):
                convert_vectors(vectors, output_type, vector="v").collect()
        assert convert_vectors(vectors, "float", vector="v").first().v[0] == 2, name


@pytest.mark.exhaustive
def test_clusters(spark, tiny, texts, tmp_path):
    """A pipeline of the stage and KMeans needs no conversion, and neither does KMeans on stored vectors."""
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="v", outputType="vector")
    complete = texts.where("text IS NOT NULL")
    fitted = Pipeline(stages=[stage, KMeans(k=2, seed=1, maxIter=2, featuresCol="v")]).fit(complete)
    fitted.write().overwrite().save(f"file://{tmp_path}/model")
    loaded = PipelineModel.load(f"file://{tmp_path}/model")
    assert loaded.stages[0].getOutputType() == "vector"
    loaded.transform(complete).write.parquet(f"file://{tmp_path}/clusters")
    stored = spark.read.parquet(f"file://{tmp_path}/clusters")
    again = KMeans(k=2, seed=1, maxIter=2, featuresCol="v", predictionCol="again").fit(stored).transform(stored)
    assert again.select("prediction").distinct().count() == again.select("again").distinct().count() == 2


def test_output_types_of_a_folder_of_changes(tiny, texts, tmp_path):
    """embed_changes keeps the output type, and refuses to mix two that have the same SQL type."""
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="v", outputType="half")
    target = f"file://{tmp_path}/target"
    source = texts.select("id", "text")
    assert embed_changes(source, target, "id", stage, parts=1).new == len(TEXTS)
    assert embed_changes(source, target, "id", stage, parts=1).unchanged == len(TEXTS)
    with pytest.raises(
        ValueError, match=r"does not have the columns that the source and the stage produce; these differ: v\."
    ):
        embed_changes(source, target, "id", stage.setOutputType("binary"), parts=1)


@pytest.mark.one_kind
def test_errors(spark, tiny, texts):
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="v", outputType="half")
    embedded = stage.transform(texts)
    documents = DocumentAssembler(inputCol="text").transform(texts)
    with pytest.raises(ValueError, match=r"'document' holds annotations, .*outputType 'half' needs a string column"):
        stage.setInputCols("document").transform(documents)
    dropped = embedded.select(F.col("v").alias("v", metadata={"other": 1}))
    lists = spark.sql("SELECT array(array(1F)) AS v")
    with pytest.raises(ValueError, match=r"gives\. Make a row of each vector: F\.explode\('`v`'\)"):
        convert_vectors(lists, "half", vector="v")
    with pytest.raises(ValueError, match="column 'id' is ambiguous"):
        convert_vectors(embedded.select("*", "id"), "float", vector="v")
    says = r"column 'v' is binary, and its metadata does not say whether .*df\.withMetadata\('v'"
    with pytest.raises(ValueError, match=says):
        near_duplicates(dropped, 0.9, key="v", vector="v")
    with pytest.raises(ValueError, match=says):
        convert_vectors(dropped, "float", vector="v")
    with pytest.raises(ValueError, match="output_type is 'int4', expected one of float, vector, half, int8, binary"):
        convert_vectors(embedded, "int4", vector="v")
    foreign = spark.sql("SELECT array(1f, 2f) AS v")
    with pytest.raises(ValueError, match=r"does not say how many floats a vector has; add it with df\.withMetadata"):
        convert_vectors(foreign, "binary", vector="v")
    with pytest.raises(TypeError, match="outputType is 'half', but a function returns nothing but the vector"):
        instructor_embed("text", model=str(tiny), outputType="half")
