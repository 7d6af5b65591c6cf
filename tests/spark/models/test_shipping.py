"""How a prepared model reaches the executors, also those that cannot read the files of the driver."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from checkpoints import copy_tiny
from processes import run_python
from session_kinds import needs_connect
from vectors import assert_embedded

from spark_instructor import InstructorEmbeddings
from spark_instructor.encoder import prepare, prepare_model
from spark_instructor.models import shipping
from spark_instructor.models.prepared import read_prepared
from spark_instructor.models.shipping import ship_model

JOB = Path(__file__).parent / "shipping_job.py"


def ship(spark, model, shared=False):
    return ship_model(spark, model, prepare=prepare_model, shared=shared)


@pytest.mark.exhaustive
@pytest.mark.one_kind
@pytest.mark.parametrize("kind", ["classic", pytest.param("connect", marks=needs_connect)])
def test_executors_of_other_hosts(tiny_model, tmp_path, kind):
    """The executors have their own HOME and TMPDIR, and the driver's files are gone before the first action."""
    driver, executors = tmp_path / "driver", tmp_path / "executors"
    checkpoint = copy_tiny(tmp_path / "checkpoint")
    homes = {"HOME": driver, "HF_HOME": driver / "hf", "SPARK_WORKER_DIR": tmp_path / "work"}
    run_python(JOB, kind, checkpoint, executors, cwd=tmp_path, **homes)
    found = json.loads((executors / "findings.json").read_text())

    assert found["shipped"].keys() == found["shared"].keys()
    for how in ("shipped", "shared"):
        assert_embedded(tiny_model, "", found[how], found[how].values())

    # The workers of both executors load the same folder in the cache of the host, not what Spark unpacked.
    (cache,) = (executors / "tmp").glob("spark_instructor-*")
    (model,) = (path for path in cache.iterdir() if path.is_dir())
    of_executors = {executor for executor, _ in found["models"]}
    assert len(of_executors) == 2
    shipped = {(executor, folder) for executor, folder in found["models"] if "/shared/" not in folder}
    assert shipped == {(executor, str(model)) for executor in of_executors}
    assert not (executors / "hf").exists()

    gone = executors / "shared" / model.name
    assert f"this host cannot read the model 'checkpoint' at {gone}" in found["error"]


@pytest.fixture
def model(tiny):
    return read_prepared(prepare(tiny))


def test_path_or_archive(spark, session_kind, model, monkeypatch):
    on_volume = dataclasses.replace(model, path=Path("/Volumes/catalog/schema/volume/model"))
    assert ship(spark, on_volume).path == str(on_volume.path)
    assert ship(spark, model, shared=True).path == str(model.path)
    with monkeypatch.context() as patch:
        patch.setattr("sys.platform", "darwin")
        assert not shipping._is_in_volume(on_volume.path)  # an external disk of a Mac
    location = ship(spark, model)
    in_place, archive = (str(model.path), None), (None, f"{model.folder_name}.zip")
    assert (location.path, location.archive) == (in_place if session_kind.in_driver else archive)


@pytest.fixture
def sent(spark, session_kind, monkeypatch):
    """Return the list of the names of archives that go to Spark, which then includes local masters."""
    names = []
    owner, method = (spark, "addArtifacts") if session_kind.connect else (spark.sparkContext, "addArchive")
    add = getattr(owner, method)

    def record(path, **options):
        add(path, **options)
        names.append(Path(path).name)

    monkeypatch.setattr(owner, method, record)
    monkeypatch.setattr(shipping, "is_local", lambda spark: False)
    return names


def test_sent_once(spark, model, sent):
    again = dataclasses.replace(model, max_length=11)
    other = dataclasses.replace(model, max_length=12)
    for one in (again, other, again):
        ship(spark, one)
    assert sent == [f"{again.folder_name}.zip", f"{other.folder_name}.zip"]


def test_a_failed_sending_is_tried_again(spark, model, sent, monkeypatch):
    def full(model, archive):
        raise OSError("No space left on device")

    one = dataclasses.replace(model, max_length=13)
    with monkeypatch.context() as patch:
        patch.setattr(shipping, "_zip", full)
        with pytest.raises(OSError, match="No space left"):
            ship(spark, one)
    assert ship(spark, one).archive == sent[0]


def test_another_process_has_sent_the_model(spark, model, sent, tmp_path):
    one = dataclasses.replace(model, max_length=14)
    ship(spark, one)
    shipping._sent_archives.clear()
    prepared_later = shutil.copytree(model.path, tmp_path / "again", copy_function=shutil.copyfile)
    ship(spark, dataclasses.replace(one, path=prepared_later))


def test_serverless_compute(model, monkeypatch):
    """The driver says what works before it sends anything. The session is a stand-in."""
    events = []

    class Session:
        __module__ = "pyspark.sql.connect.session"

        def addArtifacts(self, path, archive):
            events.append(Path(path).name)

    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.5.1")
    with pytest.warns(UserWarning, match=r"serverless compute.*setSharedFolder\('/Volumes/.*as a wheel"):
        location = ship(Session(), model)
    assert events == [location.archive]


def test_another_process_has_sent_other_bytes(spark, session_kind, model, sent, tmp_path):
    if not session_kind.connect:
        pytest.skip("only a Connect server compares what it has with what comes")
    one = dataclasses.replace(model, max_length=15)
    with zipfile.ZipFile(tmp_path / f"{one.folder_name}.zip", "w") as archive:
        archive.writestr("a file", "of another release")
    spark.addArtifacts(str(archive.filename), archive=True)
    assert ship(spark, one).archive == Path(archive.filename).name


def test_an_archive_that_a_cleaner_removed(spark, session_kind, model, sent):
    if session_kind.connect:
        pytest.skip("the server keeps what was sent")
    one = dataclasses.replace(model, max_length=16)
    path = Path(spark.sparkContext._temp_dir).parent / f"{one.folder_name}.zip"
    ship(spark, one)
    path.unlink()
    ship(spark, one)
    assert sent == [path.name] and path.exists()


def test_zip_is_stored(model, tmp_path):
    """Weights do not compress, so executors should not spend time on it."""
    shipping._zip(model, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {one.filename: one.file_size for one in archive.infolist()} == {
            path.name: path.stat().st_size for path in model.path.iterdir()
        }


def test_zips_of_equal_models_are_equal(model, tmp_path):
    copy = shutil.copytree(model.path, tmp_path / "copy", copy_function=shutil.copyfile)
    zips = [tmp_path / "zip of the model", tmp_path / "zip of the copy"]
    shipping._zip(model, zips[0])
    shipping._zip(dataclasses.replace(model, path=copy), zips[1])
    assert zips[0].read_bytes() == zips[1].read_bytes()


def test_shared_folder(spark, tiny, tiny_model, tmp_path):
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("text").setOutputCol("vector")
    stage.setSharedFolder(str(tmp_path))
    (row,) = stage.transform(spark.createDataFrame([("a text",)], "text string")).collect()
    assert_embedded(tiny_model, "", ["a text"], [row.vector])
    assert [path.name for path in tmp_path.iterdir()] == [read_prepared(prepare(tiny)).folder_name]


@pytest.mark.one_kind
def test_a_uri_is_no_folder(spark, tiny, tmp_path, monkeypatch):
    """The driver refuses it, and creates no folder named s3: in its working directory."""
    monkeypatch.chdir(tmp_path)
    data = spark.createDataFrame([("a text",)], "text string")
    stages = [
        InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector", sharedFolder="s3://bucket/models"),
        InstructorEmbeddings(model="s3://bucket/models", inputCols="text", outputCol="vector"),
    ]
    for stage in stages:
        with pytest.raises(ValueError, match=r"^s3://bucket/models: .* s3: is not a local file system. Mount it, or"):
            stage.transform(data)
    assert list(tmp_path.iterdir()) == []
