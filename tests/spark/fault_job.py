"""A Spark job for test_faults.py, which runs it, kills its processes and checks the output.

Usage: fault_job.py KIND MASTER CHECKPOINT FOLDER

The job embeds the texts in FOLDER/texts into FOLDER/embedded. KIND says how: "write" in one batch job, "stream" as a
stream with a checkpoint and one file per batch, "update" with embed_changes. "save" saves the stage in FOLDER/saved.
The environment variable DAEMON may name the module of the daemon of Spark's Python workers.
"""

import json
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from spark_instructor import InstructorEmbeddings
from spark_instructor.incremental import embed_changes

SCHEMA = "id int, text string"


def write(spark, stage, folder):
    embedded = stage.transform(spark.read.schema(SCHEMA).json(f"{folder}/texts").repartition(4, "id"))
    embedded.write.parquet(f"{folder}/embedded")


def stream(spark, stage, folder):
    texts = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).json(f"{folder}/texts")
    query = stage.transform(texts).writeStream.format("parquet").option("checkpointLocation", f"{folder}/checkpoint")
    query.option("path", f"{folder}/embedded").trigger(availableNow=True).start().awaitTermination()


def update(spark, stage, folder):
    texts = spark.read.schema(SCHEMA).json(f"{folder}/texts")
    changes = embed_changes(texts, f"{folder}/embedded", "id", stage, parts=3)
    (folder / "changes.json").write_text(json.dumps(vars(changes)))


def save(spark, stage, folder):
    stage.write().overwrite().save(f"{folder}/saved")


def main(kind, master, checkpoint, folder):
    daemon = os.environ.get("DAEMON", "pyspark.daemon")
    spark = SparkSession.builder.master(master).config("spark.python.daemon.module", daemon).getOrCreate()
    stage = InstructorEmbeddings(model=checkpoint, inputCols="text", outputCol="vector", batchSize=8)
    {"write": write, "stream": stream, "update": update, "save": save}[kind](spark, stage, folder)
    print("done", flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]))
