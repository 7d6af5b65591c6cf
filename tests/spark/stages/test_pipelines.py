"""Saving and loading pipelines in pyspark's format, also on clients on which pyspark cannot save them."""

import shutil
from pathlib import Path

import pytest
from checkpoints import copy_tiny
from pyspark.errors import AnalysisException
from pyspark.ml import Pipeline, PipelineModel, Transformer
from pyspark.ml.feature import MinMaxScaler, VectorAssembler
from renamer import Renamer

from spark_instructor import (
    DocumentAssembler,
    EmbeddingsFinisher,
    InstructorEmbeddings,
    load_pipeline,
    save_pipeline,
)


@pytest.fixture
def path(tmp_path):
    """Return the URI that a test saves to; every kind of session accepts it."""
    return f"file://{tmp_path}/saved"


@pytest.fixture(scope="module")
def data(spark):
    return spark.createDataFrame([(1, "some text"), (3, ""), (2, None)], "number int, raw string").coalesce(1)


@pytest.fixture(scope="module")
def pipeline(tiny):
    """Build a pipeline of a user's stage, two JVM stages (one must be fitted) and a pipeline of this package."""
    embeddings = InstructorEmbeddings(model=str(tiny), inputCols="documents", outputCol="embeddings", storageRef="tiny")
    return Pipeline(
        stages=[
            Renamer()._set(inputCol="raw", outputCol="text"),
            VectorAssembler(inputCols=["number"], outputCol="features"),
            Pipeline(stages=[DocumentAssembler(inputCol="text", outputCol="documents"), embeddings]),
            MinMaxScaler(inputCol="features", outputCol="scaled"),
        ]
    )


@pytest.fixture(scope="module")
def fitted(pipeline, data):
    return pipeline.fit(data)


@pytest.fixture(scope="module")
def expected(fitted, data):
    return fitted.transform(data).collect()


def save_with_pyspark(pipeline, path):
    pipeline.save(path)


def uids(pipeline):
    """Return the uids of all stages, in lists that are nested like the pipelines."""
    if not isinstance(pipeline, Pipeline | PipelineModel):
        return pipeline.uid
    stages = pipeline.getStages() if isinstance(pipeline, Pipeline) else pipeline.stages
    return [pipeline.uid, *map(uids, stages)]


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (save_pipeline, load_pipeline),
        (save_pipeline, PipelineModel.load),
        (save_with_pyspark, load_pipeline),
    ],
    ids=["ours-ours", "ours-pyspark", "pyspark-ours"],
)
def test_fitted(data, fitted, expected, path, save, load):
    save(fitted, path)
    loaded = load(path)
    assert uids(loaded) == uids(fitted)
    assert loaded.transform(data).collect() == expected


def test_not_fitted(data, pipeline, expected, path):
    """A Pipeline that is not fitted can be saved, also under a name that Spark's readers interpret as a pattern."""
    save_pipeline(Pipeline(stages=[]), f"{path}/run1")
    save_pipeline(pipeline, f"{path}/run[1]")
    loaded = load_pipeline(f"{path}/run[1]")
    assert uids(loaded) == uids(pipeline)
    assert loaded.fit(data).transform(data).collect() == expected
    assert load_pipeline(f"{path}/run1").getStages() == []


@pytest.mark.one_kind
def test_a_pipeline_that_the_jvm_saved(data, path):
    """If all stages are JVM stages, the JVM also saves the pipeline, and its metadata names Scala classes."""
    pipeline = Pipeline(stages=[Pipeline(stages=[VectorAssembler(inputCols=["number"], outputCol="features")])])
    pipeline.save(path)
    loaded = load_pipeline(path)
    assert uids(loaded) == uids(pipeline)
    assert loaded.fit(data).transform(data).columns == ["number", "raw", "features"]


def test_a_client_without_a_jvm(data, tiny, path, monkeypatch):
    """The patched functions fail on the clients of Spark Connect 3.5 and of Databricks 15.4 and 16.4."""

    def refuse(*args, **kwargs):
        raise AssertionError("this client has no SparkContext and no JVM")

    monkeypatch.setattr("pyspark.ml.util.BaseReadWrite.sc", property(refuse))
    monkeypatch.setattr("pyspark.ml.util._jvm", refuse)
    monkeypatch.setattr("pyspark.ml.util.MLWriter._handleOverwrite", refuse, raising=False)
    monkeypatch.setattr("pyspark.ml.util.DefaultParamsWriter.saveImpl", refuse)
    monkeypatch.setattr("pyspark.ml.util.DefaultParamsReader.load", refuse)
    for cls in (Pipeline, PipelineModel):
        monkeypatch.setattr(cls, "write", refuse)
        monkeypatch.setattr(cls, "read", refuse)
    embeddings = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector")
    model = PipelineModel([Renamer()._set(inputCol="raw", outputCol="text"), PipelineModel([embeddings])])
    save_pipeline(PipelineModel([DocumentAssembler()]), path)
    save_pipeline(model, path, overwrite=True)
    loaded = load_pipeline(path)
    assert uids(loaded) == uids(model)
    assert loaded.transform(data).collect() == model.transform(data).collect()


def test_overwrite(spark, path):
    first, second = (PipelineModel([DocumentAssembler(outputCol=name)]) for name in ("first", "second"))
    save_pipeline(first, path)
    with pytest.raises(AnalysisException, match=r"(?i)already exists"):
        save_pipeline(second, path)
    assert load_pipeline(path).stages[0].getOutputCol() == "first"
    save_pipeline(second, path, overwrite=True)
    assert load_pipeline(path).stages[0].getOutputCol() == "second"
    folder = Path(path.removeprefix("file://"))
    assert [stage.name for stage in folder.glob("stages/*")] == [f"0_{second.stages[0].uid}"]


@pytest.mark.one_kind
def test_a_save_that_is_refused_deletes_nothing(spark, tmp_path):
    class Unsaved(Transformer):
        def _transform(self, dataset):
            return dataset

    path = f"file://{tmp_path}/models"
    save_pipeline(PipelineModel([DocumentAssembler()]), path)
    checkpoint = copy_tiny(tmp_path / "models" / "mine")
    embeddings = InstructorEmbeddings(model=str(checkpoint), inputCols="text")
    for stages, refusal in (
        ([PipelineModel([embeddings])], rf"{path} holds the model of this stage \({checkpoint}\)"),
        ([DocumentAssembler(), Unsaved()], r"^Unsaved \(Unsaved_\w+\) cannot be saved: it is not MLWritable"),
    ):
        with pytest.raises(ValueError, match=refusal):
            save_pipeline(PipelineModel(stages), path, overwrite=True)
    with pytest.raises(TypeError, match="expects a Pipeline or a PipelineModel, not a DocumentAssembler"):
        save_pipeline(DocumentAssembler(), path, overwrite=True)
    assert len(load_pipeline(path).stages) == 1


@pytest.mark.one_kind
def test_what_load_refuses(spark, path):
    assembler = DocumentAssembler()
    save_pipeline(PipelineModel([EmbeddingsFinisher(), PipelineModel([assembler])]), path)
    (inner,) = Path(path.removeprefix("file://")).glob("stages/1_*")
    with pytest.raises(
        ValueError, match=rf"{inner}/stages/0_{assembler.uid} holds a spark_instructor.DocumentAssembler"
    ):
        load_pipeline(f"{inner}/stages/0_{assembler.uid}")
    shutil.rmtree(inner / "stages")
    with pytest.raises(
        ValueError, match=rf"{inner} is incomplete: .*/stages/0_{assembler.uid} is missing. Was the save"
    ):
        load_pipeline(path)
