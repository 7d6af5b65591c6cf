"""A job whose driver and executors share nothing but Spark; test_shipping.py runs it and reads its findings.

Usage: shipping_job.py KIND CHECKPOINT FOLDER. KIND is classic or connect. FOLDER becomes the HOME of the executors and
contains their TMPDIR; the job writes findings.json there. The environment must give the driver a HOME and an HF_HOME of
its own.
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
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings

TEXTS = [f"text number {i}" for i in range(16)]


def list_models(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Return which models this Python worker has loaded, and the executor that it belongs to."""
    from pyspark import SparkFiles

    from spark_instructor import worker

    for _ in frames:
        time.sleep(0.5)  # so that no executor takes all partitions
        folders = [model.folder for model, _ in worker._models]
        yield pd.DataFrame({"executor": os.path.realpath(SparkFiles.getRootDirectory()), "folder": folders})


def main(kind, checkpoint, folder):
    builder = SparkSession.builder
    cluster = "local-cluster[2,1,1024]"
    builder = builder.remote(cluster) if kind == "connect" else builder.master(cluster)
    spark = isolate_executors(builder, folder).getOrCreate()
    texts = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(4)
    saved = folder / "saved"
    InstructorEmbeddings.loadSavedModel(str(checkpoint)).setInputCols("text").setOutputCol("vector").save(str(saved))
    stage = InstructorEmbeddings.load(str(saved))
    shipped = stage.transform(texts)
    shared = stage.copy().setSharedFolder(str(folder / "shared")).transform(texts)

    # Everything that the driver had is gone before the first action; the executors have what Spark sent to them.
    for gone in (checkpoint, saved, Path(os.environ["HF_HOME"])):
        shutil.rmtree(gone)
    findings = {"shipped": collect_vectors(shipped), "shared": collect_vectors(shared)}
    models = shipped.select("text").mapInPandas(list_models, "executor string, folder string")
    findings["models"] = [list(row) for row in models.distinct().collect()]

    shutil.rmtree(folder / "shared")
    try:
        shared.select(F.size("vector")).collect()
    except Exception as error:  # its class depends on the kind of session, its message does not
        findings["error"] = str(error)
    (folder / "findings.json").write_text(json.dumps(findings))
    spark.stop()


def collect_vectors(embedded):
    return {row.text: row.vector for row in embedded.collect()}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
