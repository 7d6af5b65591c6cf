"""LightPipeline gives the same results as `transform`, on every kind of session."""

import dataclasses

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from vectors import TOLERANCE

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings, LightPipeline

TEXTS = ["Paris is in France.", " a \n", "What eats the fox, and when? " * 20, "", "  ", "Zażółć 😀"]


@pytest.fixture(scope="module")
def texts(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string")


@pytest.fixture(scope="module")
def model(texts, tiny):
    """Fit a nested pipeline that creates annotations, a plain vector column and finished embeddings."""
    embedder = InstructorEmbeddings(
        model=str(tiny), instruction="Represent: ", maxSentenceLength=64, longText="average", batchSize=2
    )
    inner = Pipeline(
        stages=[
            DocumentAssembler(inputCol="text", outputCol="documents", cleanupMode="each"),
            embedder.copy().setInputCols("documents").setOutputCol("instructor"),
        ]
    )
    plain = embedder.copy().setInputCols("text").setOutputCol("vector")
    finisher = EmbeddingsFinisher(inputCols="instructor", outputCols="vectors", outputAsVector=True)
    return Pipeline(stages=[inner, plain, finisher]).fit(texts)


@pytest.fixture(scope="module")
def rows(model, texts):
    return sorted(model.transform(texts).collect())


def test_full_annotate_is_transform(model, rows):
    light = LightPipeline(model).fullAnnotate(TEXTS)
    assert len(light) == len(rows)
    for light_row, row in zip(light, rows, strict=True):
        assert list(light_row) == ["documents", "instructor", "vector", "vectors"]
        for name in ("documents", "instructor"):
            assert len(light_row[name]) == len(row[name])
            for light_annotation, annotation in zip(light_row[name], row[name], strict=True):
                *light_values, light_embeddings = dataclasses.astuple(light_annotation)
                *values, embeddings = annotation
                assert light_values == values
                np.testing.assert_allclose(light_embeddings, embeddings, atol=TOLERANCE)
        np.testing.assert_allclose(light_row["vector"], row.vector, atol=TOLERANCE)
        assert list(map(type, light_row["vectors"])) == list(map(type, row.vectors))
        for light_vector, vector in zip(light_row["vectors"], row.vectors, strict=True):
            np.testing.assert_allclose(light_vector.toArray(), vector.toArray(), atol=TOLERANCE)


def test_transform_is_the_models(model, texts):
    light = LightPipeline(model)
    assert light.transform(texts).schema == model.transform(texts).schema


def test_cleaning_drops_the_columns_that_transform_drops(texts, tiny):
    model = PipelineModel(
        [
            DocumentAssembler(inputCol="text"),
            InstructorEmbeddings(model=str(tiny), inputCols="document", outputCol="instructor"),
            EmbeddingsFinisher(inputCols="instructor", cleanAnnotations=True),
        ]
    )
    columns = [name for name in model.transform(texts).columns if name not in texts.columns]
    assert columns == ["finished_instructor"]
    assert list(LightPipeline(model).annotate("")) == columns
