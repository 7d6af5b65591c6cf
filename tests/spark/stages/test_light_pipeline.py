"""LightPipeline gives what `transform` gives, on every kind of session."""

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
    """Annotations, a plain vector column and finished embeddings, in a pipeline inside a pipeline."""
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
    for found, row in zip(light, rows, strict=True):
        assert list(found) == ["documents", "instructor", "vector", "vectors"]
        for name in ("documents", "instructor"):
            assert len(found[name]) == len(row[name])
            for one, annotation in zip(found[name], row[name], strict=True):
                *values, embeddings = annotation
                assert [one.annotator_type, one.begin, one.end, one.result, one.metadata] == values
                np.testing.assert_allclose(one.embeddings, embeddings, atol=TOLERANCE)
        np.testing.assert_allclose(found["vector"], row.vector, atol=TOLERANCE)
        assert [type(one) for one in found["vectors"]] == [type(one) for one in row.vectors]
        for one, vector in zip(found["vectors"], row.vectors, strict=True):
            np.testing.assert_allclose(one.toArray(), vector.toArray(), atol=TOLERANCE)


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
    kept = [name for name in model.transform(texts).columns if name not in texts.columns]
    assert kept == ["finished_instructor"]
    assert list(LightPipeline(model).annotate("")) == kept
