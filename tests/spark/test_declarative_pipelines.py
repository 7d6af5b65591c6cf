"""Declarative pipelines (Spark 4.1 and later): instructor_embed works in them, and a stage says so."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import changed_environment
from vectors import assert_embedded

from spark_instructor import InstructorModel

pytest.importorskip("pyspark.pipelines", reason="Spark 4.1 introduced declarative pipelines")
pytestmark = [pytest.mark.one_kind, pytest.mark.exhaustive]  # each runs spark-pipelines, which starts its own session

SPEC = """
name: test
storage: file://{folder}/storage
libraries: [{{glob: {{include: transformations/**}}}}]
"""
CODE = """
from pyspark import pipelines as dp
from pyspark.sql import SparkSession
from spark_instructor import InstructorEmbeddings, instructor_embed

spark = SparkSession.active()

@dp.materialized_view
def vectors():
    texts = spark.read.schema("text string").text("{texts}")
    return {expression}
"""


@pytest.fixture
def run_pipeline(tmp_path):
    def run(expression):
        texts = tmp_path / "texts.txt"
        texts.write_text("Inflation is a rise in prices.\nCells have organelles.\n")
        (tmp_path / "spark-pipeline.yml").write_text(SPEC.format(folder=tmp_path))
        (tmp_path / "transformations").mkdir()
        (tmp_path / "transformations/vectors.py").write_text(CODE.format(texts=texts, expression=expression))
        command = Path(sys.executable).with_name("spark-pipelines")
        environment = changed_environment(PATH=f"{command.parent}{os.pathsep}{os.environ['PATH']}")
        return subprocess.run([command, "run"], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_instructor_embed(run_pipeline, tmp_path):
    ran = run_pipeline("texts.withColumn('vector', instructor_embed('text', 'Represent: ', model='instructor_tiny'))")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = tmp_path.rglob("spark-warehouse/vectors")
    table = pq.read_table(folder).to_pydict()
    assert len(table["text"]) == 2
    assert_embedded(InstructorModel.from_pretrained("instructor_tiny"), "Represent: ", table["text"], table["vector"])


def test_stage(run_pipeline):
    ran = run_pipeline(
        "InstructorEmbeddings(model='instructor_tiny', inputCols='text', outputCol='v').transform(texts)"
    )
    assert ran.returncode != 0
    assert (
        "InstructorEmbeddings: a query function of a declarative pipeline cannot use a stage" in ran.stdout + ran.stderr
    )
