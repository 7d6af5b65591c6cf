"""A job with installed models, on executors that share only the Python environment with the driver.

Usage: installed_job.py MODEL FOLDER. MODEL is the name of a model that is installed as a wheel. FOLDER becomes the HOME
of the executors and contains their TMPDIR; the job writes findings.json there. The environment must give the driver a
HOME and an HF_HOME of its own.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from isolated_executors import isolate_executors
from pyspark.sql import SparkSession

from spark_instructor import InstructorEmbeddings

sys.path.append(str(Path(__file__).parents[3] / "examples"))
import demo

TEXTS = [f"text number {i}" for i in range(16)]


def look(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Return what this executor has loaded, and what Spark sent to it."""
    from pyspark import SparkFiles

    from spark_instructor import worker

    for _ in frames:
        time.sleep(0.5)  # so that no executor takes all partitions
        root = os.path.realpath(SparkFiles.getRootDirectory())
        models = sorted(folder for (folder, _), _ in worker._models)
        yield pd.DataFrame({"executor": [root], "models": [models], "files": [sorted(os.listdir(root))]})


def main(model, folder):
    spark = isolate_executors(SparkSession.builder.master("local-cluster[2,1,1024]"), folder).getOrCreate()
    demo.embed_passages(spark, "instructor_tiny", str(folder / "demo.parquet"))
    texts = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(4)
    InstructorEmbeddings(model="instructor_tiny", precision="bfloat16").save(str(folder / "saved"))
    saved = InstructorEmbeddings.load(str(folder / "saved")).setInputCols("text").setOutputCol("vector")
    installed = InstructorEmbeddings.pretrained(model).setInputCols("text").setOutputCol("vector")
    embedded = {"saved": saved.transform(texts), "installed": installed.transform(texts)}
    shutil.rmtree(os.environ["HF_HOME"])  # the driver's files are gone before the action
    findings = {name: {row.text: row.vector for row in frame.collect()} for name, frame in embedded.items()}
    seen = texts.mapInPandas(look, "executor string, models array<string>, files array<string>").distinct().collect()
    findings["executors"] = [row.asDict() for row in seen]
    findings["archives"] = spark.sparkContext.listArchives
    (folder / "findings.json").write_text(json.dumps(findings))
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
