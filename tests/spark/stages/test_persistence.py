"""Saving and loading: alone and in pipelines, elsewhere and later, and saves that went wrong."""

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

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings
from spark_instructor.encoder import prepare
from spark_instructor.models.prepared import MANIFEST

SAVED_V1 = Path(__file__).parents[2] / "data" / "saved_pipeline_v1"

# Runs where nothing is but what was saved: no checkpoint, no cache, and the hub's client must not even be imported.
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
    """Where a test saves, as every session kind takes it."""
    return f"file://{tmp_path}/saved"


def embedder(model, output="vector"):
    return InstructorEmbeddings.loadSavedModel(str(model)).setInputCols("text").setOutputCol(output)


def files_of(path):
    return Path(path.removeprefix("file://"))


def edit_metadata(path, **changes):
    """Rewrite a saved stage's metadata, and drop Hadoop's checksum of it."""
    (part,) = files_of(path).glob("metadata/part-*")
    (part.parent / f".{part.name}.crc").unlink(missing_ok=True)
    metadata = json.loads(part.read_text())
    metadata["sparkInstructor"].update(changes)
    part.write_text(json.dumps(metadata) + "\n")


def edit_files(path, edit):
    """Rewrite a saved stage's files: `edit` gets and gives rows of piece, file and content."""
    (part,) = files_of(path).glob("files/00000/part-*")
    (part.parent / f".{part.name}.crc").unlink(missing_ok=True)
    table = pq.read_table(part)
    pq.write_table(type(table).from_pylist([edit(row) for row in table.to_pylist()], table.schema), part)


def without_path(schema):
    """A schema without the path of the model, which differs between a saved stage and a loaded one."""
    fields = schema.jsonValue()["fields"]
    for field in fields:
        field["metadata"].get("spark_instructor", {}).pop("model", None)
    return fields


def test_pipelines(spark, tiny, path):
    """A Pipeline and what it fits give the same saved and loaded, the columns' metadata too."""
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
    wanted = fitted.transform(data)
    rows = wanted.collect()
    assert wanted.schema["vector"].metadata["dimension"] == 64
    for loaded in (Pipeline.load(f"{path}/pipeline").fit(data), PipelineModel.load(f"{path}/model")):
        found = loaded.transform(data)
        assert without_path(found.schema) == without_path(wanted.schema)
        assert found.collect() == rows


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
    wanted = [row.vector for row in stage.transform(data).collect()]

    shutil.rmtree(checkpoint)
    arguments = ("-c", ELSEWHERE, tmp_path / "saved", json.dumps(texts))
    run_python(*arguments, cwd=tmp_path, HF_HOME=tmp_path / "empty", TMPDIR=tmp_path)
    found = json.loads((tmp_path / "saved" / "vectors.json").read_text())
    assert found.keys() == {"stage", "model", "pipeline"}
    for name, vectors in found.items():
        np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.one_kind
def test_version_1_still_loads(spark, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    wanted = json.loads((SAVED_V1 / "vectors.json").read_text())
    model = PipelineModel.load(f"file://{SAVED_V1 / 'pipeline'}")
    assert [type(stage) for stage in model.stages] == [DocumentAssembler, InstructorEmbeddings, EmbeddingsFinisher]
    assembler, embeddings, _ = model.stages
    assert assembler.getCleanupMode() == "shrink"
    assert (embeddings.getStorageRef(), embeddings.getPrecision()) == ("v1", "float32")
    data = spark.createDataFrame([(text,) for text in wanted], "text string")
    found = {row.text: row.vectors for row in model.transform(data).collect()}
    assert found.keys() == wanted.keys()
    for text, (vector,) in found.items():
        np.testing.assert_allclose(vector, wanted[text], atol=TOLERANCE, rtol=0)


def test_params(spark, tiny, path):
    stage = embedder(tiny).setBatchSize(3).setLongText("average").setPrecision("bfloat16").setInstructionCol("why")
    stage.save(path)
    loaded = InstructorEmbeddings.load(path)
    assert loaded.uid == stage.uid

    def values(one):
        return {param.name: one._get(param) for param in one.params if param.name != "model"}

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
    """What was saved under a name is loaded from it, even if the name as a pattern matches another folder."""
    DocumentAssembler(outputCol="other" * 1000).save(f"{path}/run1")  # of two files, Spark reads the larger one first
    embedder(tiny, "wanted").save(f"{path}/{name}")
    assert InstructorEmbeddings.load(f"{path}/{name}").getOutputCol() == "wanted"


def test_overwrite(spark, tiny, path):
    embedder(tiny, "first").save(path)
    with pytest.raises(AnalysisException, match=r"(?i)already exists"):
        embedder(tiny, "second").save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "first"
    InstructorEmbeddings.load(path).setOutputCol("second").write().overwrite().save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "second"
    # What stood there before is gone, files of a model included.
    DocumentAssembler().write().overwrite().save(path)
    assert {one.name for one in files_of(path).iterdir() if one.is_dir()} == {"metadata"}


@pytest.mark.one_kind
def test_a_save_that_fails_clears_nothing(spark, tiny, path, tmp_path):
    embedder(tiny).save(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint folder"):
        embedder(tmp_path / "gone").write().overwrite().save(path)
    assert InstructorEmbeddings.load(path).getOutputCol() == "vector"


@pytest.mark.one_kind
@pytest.mark.parametrize("saved_to", ["", "/models/my%20own"])  # Spark does not decode a file: URI
def test_no_save_over_its_own_model(spark, tmp_path, saved_to):
    checkpoint = copy_tiny(tmp_path / "models" / "my%20own")
    target = f"file://{tmp_path}{saved_to}"
    with pytest.raises(ValueError, match=f"{target} holds the model of this stage .*save the stage to another path"):
        embedder(checkpoint).write().overwrite().save(target)
    assert (checkpoint / "modules.json").is_file()


@pytest.mark.one_kind
def test_overwrite_on_a_file_system_of_spark(spark):
    """It is Spark that has to know the file system, not Python."""
    with pytest.raises(Exception, match='No FileSystem for scheme "s3"'):
        DocumentAssembler().write().overwrite().save("s3://bucket/stage")


@pytest.mark.one_kind
def test_two_models_of_one_name(spark, tmp_path):
    """They are told apart by their content, whatever their folders are called, and so is what else lies there."""
    data = spark.createDataFrame([("some text",)], "text string").coalesce(1)
    wanted, found = [], []
    for seed in (0, 1):
        checkpoint = write_checkpoint(tmp_path / "model", seed=seed)
        mine = prepare(checkpoint, into=tmp_path / f"team {seed}" / "modèle")
        (mine / ".DS_Store").write_bytes(b"Finder")
        (mine / "notes").mkdir()
        shutil.rmtree(checkpoint)
        wanted.append(embedder(mine).transform(data).collect())
        embedder(mine).save(f"file://{tmp_path}/saved {seed}")
    for seed in (0, 1):
        found.append(InstructorEmbeddings.load(f"file://{tmp_path}/saved {seed}").transform(data).collect())
    assert found == wanted and wanted[0] != wanted[1]


def test_pieces_and_batches(spark, tiny, path, tmp_path, monkeypatch):
    """A model of several batches of several pieces comes back byte for byte."""
    monkeypatch.setattr("spark_instructor.stages.persistence._PIECE_BYTES", 1 << 16)
    monkeypatch.setattr("spark_instructor.stages.persistence._PIECES_PER_BATCH", 5)
    stage = embedder(tiny)
    stage.save(path)
    assert len([one for one in files_of(path).glob("files/*") if one.is_dir()]) > 1
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
    assert list(cache.iterdir()) == [], "what was refused left something behind"

    # A stranger's model, under the name that one's own has in the cache.
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
