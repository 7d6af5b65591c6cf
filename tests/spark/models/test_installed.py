"""Spark does not send installed models, which are instructor_tiny and models that are installed as wheels."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkpoints import copy_tiny
from processes import run_python
from vectors import assert_embedded
from wheels import install_model

from spark_instructor import InstructorEmbeddings, InstructorModel
from spark_instructor.encoder import prepare_model
from spark_instructor.models import shipping
from spark_instructor.models.shipping import ship_model

JOB = Path(__file__).parent / "installed_job.py"


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_executors_of_other_hosts(tmp_path):
    checkpoint = copy_tiny(tmp_path / "my-model")
    wheel = install_model(checkpoint, "bfloat16", tmp_path / "site")
    driver, executors = tmp_path / "driver", tmp_path / "executors"
    run_python(
        *(JOB, "my_model", executors),
        cwd=tmp_path,
        HOME=driver,
        HF_HOME=driver / "hf",
        SPARK_WORKER_DIR=tmp_path / "work",
        PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    found = json.loads((executors / "findings.json").read_text())

    # Two executors loaded the saved instructor_tiny from the cache of their host, and the wheel in place.
    (cache,) = (executors / "tmp").glob("spark_instructor-*")
    prepared = {path.name.rsplit("-", 1)[0]: path for path in cache.iterdir() if path.is_dir()}
    assert prepared.keys() == {"instructor_tiny-float32", "instructor_tiny-bfloat16"}
    assert len({seen["executor"] for seen in found["executors"]}) == 2
    for seen in found["executors"]:
        assert seen["models"] == sorted([str(prepared["instructor_tiny-bfloat16"]), str(wheel)])
        assert not [file for file in seen["files"] if "instructor" in file or "my-model" in file]
    assert found["archives"] == []
    assert not (executors / "hf").exists()

    wheel_model = InstructorModel.from_pretrained(checkpoint, precision="bfloat16")
    assert_embedded(wheel_model, "", found["installed"], found["installed"].values())
    tiny = InstructorModel.from_pretrained("instructor_tiny", precision="bfloat16")
    assert_embedded(tiny, "", found["saved"], found["saved"].values())
    assert pq.read_table(executors / "demo.parquet").num_rows == 288


def test_no_kind_of_session_sends_it(spark, monkeypatch, tmp_path):
    """It does not matter how the driver got the model: a saved stage keeps instructor_tiny in its own folder."""
    monkeypatch.setattr(shipping, "is_local", lambda spark: False)
    monkeypatch.setattr(shipping, "_zip", None)
    stage = InstructorEmbeddings(model="instructor_tiny", inputCols="text", outputCol="vector", precision="int8")
    stage.save(str(tmp_path / "saved"))
    texts = spark.createDataFrame([("a text",)], "text string").coalesce(1)
    (row,) = InstructorEmbeddings.load(str(tmp_path / "saved")).transform(texts).collect()
    assert_embedded(InstructorModel.from_pretrained("instructor_tiny", precision="int8"), "", ["a text"], [row.vector])


def test_another_model_of_the_same_name_is_sent(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "is_local", lambda spark: False)
    other = prepare_model(copy_tiny(tmp_path / "instructor_tiny"))
    assert ship_model(spark, other, prepare=prepare_model).archive == f"{other.folder_name}.zip"
