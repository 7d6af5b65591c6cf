"""Saving and loading stages, alone and in pipelines, also in another process or version, and saves that fail."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from checkpoints import copy_tiny, write_checkpoint
from processes import run_python
from pyspark.errors import AnalysisException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import functions as F
from vectors import TOLERANCE

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings, save_pipeline
from spark_instructor.encoder import prepare
from spark_instructor.models.prepared import MANIFEST

SAVED_V1 = Path(__file__).parents[2] / "data" / "saved_pipeline_v1"

# Runs with nothing but the saved files: there is no checkpoint and no cache, and huggingface_hub must not be imported.
ELSEWHERE = """
import json, sys
from pathlib import Path
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import SparkSession
from spark_instructor import InstructorEmbeddings

spark = SparkSession.builder.master("local[1]").getOrCreate()
saved, texts = sys.argv[1], json.loads(sys.argv[2])
data = spark.createDataFrame([(text,) for text in texts], "text string").coalesce(1)
stages = {
    "stage": InstructorEmbeddings.load(f"{saved}/stage"),
    "model": PipelineModel.load(f"{saved}/model"),
    "pipeline": Pipeline.load(f"{saved}/pipeline").fit(data),
}
vectors = {name: [row.vector for row in stage.transform(data).collect()] for name, stage in stages.items()}
assert "huggingface_hub" not in sys.modules
Path(saved, "vectors.json").write_text(json.dumps(vectors))
"""


@pytest.fixture
def path(tmp_path):
    """Return the URI that a test saves to; every kind of session accepts it."""
    return f"file://{tmp_path}/saved"


def embedder(model, output="vector"):
    return InstructorEmbeddings.loadSavedModel(str(model)).setInputCols("text").setOutputCol(output)


def files_of(path):
    return Path(path.removeprefix("file://"))


def edit_metadata(path, **changes):
    """Change the metadata of a saved stage, and delete Hadoop's checksum of the old metadata."""
    (part,) = files_of(path).glob("metadata/part-*")
    (part.parent / f".{part.name}.crc").unlink(missing_ok=True)
    metadata = json.loads(part.read_text())
    metadata["sparkInstructor"].update(changes)
    part.write_text(json.dumps(metadata) + "\n")


def edit_files(path, edit):
    """Change the files of a saved stage: `edit` takes and returns a row with the piece, the file and its content."""
    (part,) = files_of(path).glob("files/00000/part-*")
    (part.parent / f".{part.name}.crc").unlink(missing_ok=True)
    table = pq.read_table(part)
    pq.write_table(type(table).from_pylist([edit(row) for row in table.to_pylist()], table.schema), part)


def without_path(schema):
    """Return a schema's fields without the path of the model, which differs between a saved and a loaded stage."""
    fields = schema.jsonValue()["fields"]
    for field in fields:
        field["metadata"].get("spark_instructor", {}).pop("model", None)
    return fields


def test_pipelines(spark, tiny, path):
    """A Pipeline and a PipelineModel give the same rows and column metadata after they are saved and loaded."""
    data = spark.createDataFrame([("some text",), ("",), (None,)], "text string").coalesce(1)
    pipeline = Pipeline(
        stages=[
            DocumentAssembler(inputCol="text", outputCol="documents"),
            embedder(tiny).setInputCols("documents"),
        ]
    )
    fitted = pipeline.fit(data)
    pipeline.save(f"{path}/pipeline")
    fitted.save(f"{path}/model")
    expected = fitted.transform(data)
    rows = expected.collect()
    assert expected.schema["vector"].metadata["dimension"] == 64
    for loaded in (Pipeline.load(f"{path}/pipeline").fit(data), PipelineModel.load(f"{path}/model")):
        actual = loaded.transform(data)
        assert without_path(actual.schema) == without_path(expected.schema)
        assert actual.collect() == rows


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_elsewhere(spark, tmp_path):
    checkpoint = copy_tiny(tmp_path / "checkpoint")
    texts = ["some text", "", "another"]
    data = spark.createDataFrame([(text,) for text in texts], "text string").coalesce(1)
    stage = embedder(checkpoint).setInstruction("Represent: ")
    pipeline = Pipeline(stages=[stage])
    saved = f"file://{tmp_path}/saved"
    stage.save(f"{saved}/stage")
    pipeline.fit(data).save(f"{saved}/model")
    pipeline.save(f"{saved}/pipeline")
    expected = [row.vector for row in stage.transform(data).collect()]

    shutil.rmtree(checkpoint)
    arguments = ("-c", ELSEWHERE, tmp_path / "saved", json.dumps(texts))
    run_python(*arguments, cwd=tmp_path, HF_HOME=tmp_path / "empty", TMPDIR=tmp_path)
    actual = json.loads((tmp_path / "saved" / "vectors.json").read_text())
    assert actual.keys() == {"stage", "model", "pipeline"}
    for name, vectors in actual.items():
        np.testing.assert_allclose(vectors, expected, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.one_kind
def test_version_1_still_loads(spark, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    expected = json.loads((SAVED_V1 / "vectors.json").read_text())
    model = PipelineModel.load(f"file://{SAVED_V1 / 'pipeline'}")
    assert [type(stage) for stage in model.stages] == [DocumentAssembler, InstructorEmbeddings, EmbeddingsFinisher]
    assembler, embeddings, _ = model.stages
    assert assembler.getCleanupMode() == "shrink"
    assert (embeddings.getStorageRef(), embeddings.getPrecision()) == ("v1", "float32")
    data = spark.createDataFrame([(text,) for text in expected], "text string")
    actual = {row.text: row.vectors for row in model.transform(data).collect()}
    assert actual.keys() == expected.keys()
    for text, (vector,) in actual.items():
        np.testing.assert_allclose(vector, expected[text], atol=TOLERANCE, rtol=0)


def test_params(spark, tiny, path):
    stage = embedder(tiny).setBatchSize(3).setLongText("average").setPrecision("bfloat16").setInstructionCol("why")
    stage.save(path)
    loaded = InstructorEmbeddings.load(path)
    assert loaded.uid == stage.uid

    def values(instance):
        return {param.name: instance._get(param) for param in instance.params if param.name != "model"}

    assert values(loaded) == values(stage)


@pytest.mark.parametrize("stage", [DocumentAssembler(idCol="id"), EmbeddingsFinisher(outputAsVector=True)])
def test_stages_without_files(spark, stage, path):
    stage.save(path)
    loaded = type(stage).load(path)
    assert {param.name: value for param, value in loaded.extractParamMap().items()} == {
        param.name: value for param, value in stage.extractParamMap().items()
    }


@pytest.mark.parametrize("name", ["run[1]", "run{1,2}", "run*", "run?", "run\\1"])
def test_a_name_that_reads_as_a_pattern(spark, tiny, path, name):
    """A stage is loaded from the folder with its exact name, even if the name is a pattern that matches another one."""
    DocumentAssembler(outputCol="other" * 1000).save(f"{path}/run1")  # Spark reads larger files first
    embedder(tiny, "wanted").save(f"{path}/{name}")
    assert InstructorEmbeddings.load(f"{path}/{name}").getOutputCol() == "wanted"


def test_overwrite(spark, tiny, path):
    embedder(tiny, "first").save(path)
    with pytest.raises(AnalysisException, match=r"(?i)already exists"):
        embedder(tiny, "second").save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "first"
    InstructorEmbeddings.load(path).setOutputCol("second").write().overwrite().save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "second"
    # The old files, including those of the model, are deleted.
    DocumentAssembler().write().overwrite().save(path)
    assert {child.name for child in files_of(path).iterdir() if child.is_dir()} == {"metadata"}


def test_no_save_into_a_folder_of_others(spark, tiny, path):
    spark.range(2).write.parquet(path)
    stage = embedder(tiny)
    for save in (stage.save, lambda path: save_pipeline(Pipeline(stages=[stage]), path)):
        with pytest.raises(AnalysisException, match=r"(?i)already exists"):
            save(path)
    assert spark.read.parquet(path).count() == 2


@pytest.mark.one_kind
def test_a_save_that_fails_clears_nothing(spark, tiny, path, tmp_path):
    embedder(tiny).save(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint folder"):
        embedder(tmp_path / "gone").write().overwrite().save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "vector"


@pytest.mark.one_kind
@pytest.mark.parametrize("saved_to", ["", "/models/my%20own"])  # Spark does not decode file: URIs
def test_no_save_over_its_own_model(spark, tmp_path, saved_to):
    checkpoint = copy_tiny(tmp_path / "models" / "my%20own")
    target = f"file://{tmp_path}{saved_to}"
    with pytest.raises(ValueError, match=f"{target} holds the model of this stage .*save the stage to another path"):
        embedder(checkpoint).write().overwrite().save(target)
    assert (checkpoint / "modules.json").is_file()


@pytest.mark.one_kind
def test_overwrite_on_a_file_system_of_spark(spark):
    """Spark accesses the path, not Python, so the error for an unknown file system comes from Spark."""
    with pytest.raises(Exception, match='No FileSystem for scheme "s3"'):
        DocumentAssembler().write().overwrite().save("s3://bucket/stage")


@pytest.mark.one_kind
def test_two_models_of_one_name(spark, tmp_path):
    """Models are distinguished by their content, not by the names of their folders; other files there do not matter."""
    data = spark.createDataFrame([("some text",)], "text string").coalesce(1)
    expected, actual = [], []
    for seed in (0, 1):
        checkpoint = write_checkpoint(tmp_path / "model", seed=seed)
        prepared = prepare(checkpoint, into=tmp_path / f"team {seed}" / "modèle")
        (prepared / ".DS_Store").write_bytes(b"Finder")
        (prepared / "notes").mkdir()
        shutil.rmtree(checkpoint)
        expected.append(embedder(prepared).transform(data).collect())
        embedder(prepared).save(f"file://{tmp_path}/saved {seed}")
    for seed in (0, 1):
        actual.append(InstructorEmbeddings.load(f"file://{tmp_path}/saved {seed}").transform(data).collect())
    assert actual == expected and expected[0] != expected[1]


def test_pieces_and_batches(spark, tiny, path, tmp_path, monkeypatch):
    """A model that is saved in several batches of several pieces is loaded byte for byte."""
    monkeypatch.setattr("spark_instructor.stages.persistence._PIECE_BYTES", 1 << 16)
    monkeypatch.setattr("spark_instructor.stages.persistence._PIECES_PER_BATCH", 5)
    stage = embedder(tiny)
    stage.save(path)
    assert len([child for child in files_of(path).glob("files/*") if child.is_dir()]) > 1
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    loaded = InstructorEmbeddings.load(path)
    assert loaded.getModel().startswith(str(tmp_path))
    assert loaded.prepare_model().file_hashes == stage.prepare_model().file_hashes
    loaded.prepare_model().verify()


def test_interrupted(spark, tiny, path):
    embedder(tiny).save(path)
    shutil.rmtree(files_of(path) / "files" / "00000")
    with pytest.raises(ValueError, match=f"{path} is incomplete: {path}/files/00000 is missing"):
        InstructorEmbeddings.load(path)
    for part in files_of(path).glob("metadata/part-*"):
        part.unlink()
    with pytest.raises(ValueError, match=f"{path} is incomplete: its metadata is empty"):
        InstructorEmbeddings.load(path)


@pytest.mark.one_kind
def test_what_load_refuses(spark, tiny, path, tmp_path, monkeypatch):
    stage = embedder(tiny)
    stage.save(path)
    with pytest.raises(ValueError, match=r"holds a spark_instructor.InstructorEmbeddings, expected a .*Finisher"):
        EmbeddingsFinisher.load(path)

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cold"))
    edit_files(path, lambda row: {**row, "content": row["content"][:-1] + b"?"})
    with pytest.raises(ValueError, match=r"was changed after it was prepared|is damaged"):
        InstructorEmbeddings.load(path)
    edit_files(path, lambda row: {**row, "file": "../outside"})
    with pytest.raises(ValueError, match=r"names a file '\.\./outside', which no stage saves"):
        InstructorEmbeddings.load(path)
    cache = tmp_path / "cold" / "spark_instructor"
    assert list(cache.iterdir()) == [], "a refused load left files in the cache"

    # The saved folder contains another model, under the name of a model that the cache could contain.
    own = prepare(tiny)
    stranger = prepare(write_checkpoint(tmp_path / "tiny", seed=1), into=tmp_path / "stranger")
    manifest = json.loads((stranger / MANIFEST).read_text())
    (stranger / MANIFEST).write_text(json.dumps({**manifest, "hash": stage.prepare_model().hash}))
    embedder(stranger).write().overwrite().save(path)
    edit_metadata(path, files={"folder": own.name, "batches": 1})
    shutil.rmtree(own)
    with pytest.raises(ValueError, match=f"the saved model {own.name} is not what was saved: .* holds "):
        InstructorEmbeddings.load(path)
    assert not own.exists()

    edit_metadata(path, formatVersion=2)
    with pytest.raises(ValueError, match=r"format version 2; this spark_instructor reads versions up to 1\. Update"):
        InstructorEmbeddings.load(path)


@pytest.mark.one_kind
def test_bfloat16_cannot_be_widened(spark, tiny, path):
    embedder(tiny).setPrecision("bfloat16").save(path)
    loaded = InstructorEmbeddings.load(path)
    data = spark.createDataFrame([("some text",)], "text string")
    assert loaded.getPrecision() == "bfloat16"
    assert loaded.transform(data).select(F.size("vector").alias("n")).collect()[0].n == 64
    with pytest.raises(ValueError, match=r"'tiny' .* was prepared in bfloat16; float32 cannot be recovered"):
        loaded.setPrecision("float32").transform(data)
