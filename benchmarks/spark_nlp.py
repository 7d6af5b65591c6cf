"""Compare the stage with Spark NLP's: the speed of a Spark job, and the rows that get the vectors of other rows.

.venvsparknlp/bin/pip install -c constraints.txt transformers onnx
SPARK_NLP_JARS=FOLDER .venvsparknlp/bin/python benchmarks/spark_nlp.py

Both embed the same texts with the same encoder on local[2], one job at a time. Spark NLP gets the ONNX
export that it loads, without the Dense layer, and this package the same weights without it. The time of a job starts
when the model is loaded. SPARK_NLP_JARS names a folder with the jars of Spark NLP; without it, Spark asks Maven.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import sparknlp
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from sparknlp.annotator import InstructorEmbeddings as TheirEmbeddings
from sparknlp.annotator import SentenceDetector
from sparknlp.base import DocumentAssembler

from spark_instructor import InstructorEmbeddings, InstructorModel
from spark_instructor.models.installed import PACKAGED
from spark_instructor.models.prepared import PRECISIONS

INSTRUCTION = "Represent the document for retrieval: "
WORDS = [
    "the",
    "market",
    "opened",
    "with",
    "higher",
    "prices",
    "after",
    "a",
    "long",
    "and",
    "quiet",
    "week",
    "in",
    "which",
    "nobody",
    "sold",
    "what",
    "they",
    "had",
]
ROWS, BLANKS = 1000, 16


def export(checkpoint, folder):
    """Write an ONNX model as Spark NLP's loadSavedModel reads it; its Scala code names the inputs and the output."""
    import torch
    from transformers import T5EncoderModel

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = T5EncoderModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
            self.encoder.config.use_cache = False

        def forward(self, input_ids, attention_mask):
            outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
            return outputs.last_hidden_state

    ids = torch.randint(3, 900, (2, 9))
    names = ["input_ids", "attention_mask", "token_embeddings"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names}
    (folder / "assets").mkdir(parents=True)
    settings = {"input_names": names[:2], "output_names": names[2:], "dynamic_axes": axes, "opset_version": 14}
    example = (ids, torch.ones_like(ids))
    with torch.inference_mode():
        torch.onnx.export(Encoder().eval(), example, str(folder / "model.onnx"), dynamo=False, **settings)
    shutil.copyfile(checkpoint / "spiece.model", folder / "assets/spiece.model")


def drop_dense(checkpoint, folder):
    """Copy a checkpoint without its Dense layer."""
    shutil.copytree(checkpoint, folder)
    path = folder / "modules.json"
    modules = [module for module in json.loads(path.read_text()) if not module["type"].endswith("Dense")]
    path.write_text(json.dumps(modules))


def start_session(threads):
    """Start a session whose ONNX Runtime has this many threads per task."""
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.serializer", "org.apache.spark.serializer.KryoSerializer")
    builder = builder.config("spark.kryoserializer.buffer.max", "2000M").config("spark.driver.memory", "4g")
    builder = builder.config("spark.jsl.settings.onnx.intraOpNumThreads", str(threads))
    jars = os.environ.get("SPARK_NLP_JARS")
    if jars:
        builder = builder.config("spark.jars", ",".join(map(str, Path(jars).glob("*.jar"))))
    else:
        builder = builder.config("spark.jars.packages", f"com.johnsnowlabs.nlp:spark-nlp_2.12:{sparknlp.version()}")
    return builder.getOrCreate()


def measure(stage, documents, rounds):
    """Return the texts per second of a job, the median of some rounds."""
    rows = documents.count()
    embedded = stage.setInputCols(["documents"]).setOutputCol("vector").transform(documents)
    embedded.limit(8).write.format("noop").mode("overwrite").save()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        embedded.write.format("noop").mode("overwrite").save()
        seconds.append(time.perf_counter() - start)
    return rows / statistics.median(seconds)


def count_shifted(spark, stage, folder):
    """Return how many of the rows hold a vector that is not their text's, and how many have lost theirs."""
    blank = set(range(7, ROWS, ROWS // BLANKS)[:BLANKS])
    rows = [(i, "  " if i in blank else f"Text number {i} is here. Its second sentence {i}.") for i in range(ROWS)]
    frame = spark.createDataFrame(rows, "id int, text string").coalesce(1)
    assembler = DocumentAssembler().setInputCol("text").setOutputCol("document")
    sentences = SentenceDetector().setInputCols(["document"]).setOutputCol("sentences")
    stages = [assembler, sentences, stage.setInputCols(["sentences"]).setOutputCol("vector")]
    shifted = lost = 0
    texts, vectors = [], []
    for row in Pipeline(stages=stages).fit(frame).transform(frame).select("sentences", "vector").collect():
        # What a row has too little is lost; what it has too much is another row's.
        lost += len(row.vector) < len(row.sentences)
        shifted += len(row.vector) > len(row.sentences)
        if len(row.vector) == len(row.sentences):
            texts.append([sentence.result for sentence in row.sentences])
            vectors.append([annotation.embeddings for annotation in row.vector])
    flat = [text for group in texts for text in group]
    expected = iter(InstructorModel.from_pretrained(folder).encode(stage.getInstruction(), flat))
    for group in vectors:
        own = [np.dot(next(expected), vector) for vector in group]
        shifted += bool(own) and min(own) < 0.999
    return shifted, lost


def make_documents(spark, arguments):
    """Return documents of random words."""
    words = [F.element_at(F.shuffle(F.array(*map(F.lit, WORDS))), 1) for _ in range(arguments.words)]
    text = F.concat_ws(" ", *words)
    texts = spark.range(arguments.texts).coalesce(2).select("id", text.alias("text"))
    return DocumentAssembler().setInputCol("text").setOutputCol("documents").transform(texts).cache()


def run_theirs(threads, onnx, checkpoint, arguments):
    """Print the figures of Spark NLP with this number of threads per task, which a JVM reads once."""
    spark = start_session(threads)
    documents = make_documents(spark, arguments)
    for batch in arguments.batches:
        stage = TheirEmbeddings.loadSavedModel(onnx, spark).setInstruction(INSTRUCTION).setBatchSize(batch)
        speed = measure(stage, documents, arguments.rounds)
        print(f"Spark NLP, batchSize {batch}, {threads} threads per task: {speed:,.0f} texts/s", flush=True)
    stage = TheirEmbeddings.loadSavedModel(onnx, spark).setInstruction(INSTRUCTION)
    print_shifted("Spark NLP", *count_shifted(spark, stage, checkpoint))


def run_ours(onnx, checkpoint, arguments):
    """Print the figures of this package."""
    spark = start_session(1)
    documents = make_documents(spark, arguments)
    stage = InstructorEmbeddings(model=checkpoint, instruction=INSTRUCTION)
    for precision in PRECISIONS:
        speed = measure(stage.copy().setPrecision(precision), documents, arguments.rounds)
        print(f"spark_instructor, {precision}: {speed:,.0f} texts/s", flush=True)
    print_shifted("spark_instructor", *count_shifted(spark, stage, checkpoint))


def print_shifted(library, shifted, lost):
    print(f"{library}: of {ROWS} rows {shifted} hold another row's vectors and {lost} lost theirs", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=PACKAGED, help="checkpoint (default: instructor_tiny)")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=9, help="words per text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 6])
    arguments = parser.parse_args()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with tempfile.TemporaryDirectory() as name:
        checkpoint, onnx = Path(name, "checkpoint"), Path(name, "onnx")
        drop_dense(arguments.model, checkpoint)
        export(arguments.model, onnx)
        for run in (run_ours, *(partial(run_theirs, threads) for threads in arguments.threads)):
            process = multiprocessing.get_context("spawn").Process(
                target=run, args=(str(onnx), str(checkpoint), arguments)
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
