"""Compare the stage with Spark NLP's: the speed of a Spark job, and the rows that get the vectors of other rows.

.venvsparknlp/bin/pip install -c constraints.txt transformers onnx && .venvsparknlp/bin/python benchmarks/spark_nlp.py

`make .venvsparknlp/ready` makes the environment. If SPARK_NLP_JARS names a folder with the jars of Spark NLP, they come
from there, and otherwise from Maven.

Both embed the same texts with the same encoder on local[2], one job at a time: short texts with instructor_tiny, and
long ones with random weights of instructor-base's shape. Spark NLP gets the ONNX export that it loads, without the
Dense layer, and this package the same weights without it. The time of a job starts when the model is loaded.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sparknlp
from common import run_apart, say, table
from inputs import SHAPES
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession
from sparknlp.annotator import InstructorEmbeddings as TheirEmbeddings
from sparknlp.annotator import SentenceDetector
from sparknlp.base import DocumentAssembler

from spark_instructor import InstructorEmbeddings
from spark_instructor.models.installed import PACKAGED
from spark_instructor.models.prepared import PRECISIONS

INSTRUCTION = "Represent the document for retrieval: "
WORDS = ["the", "market", "opened", "with", "higher", "prices", "after", "a", "long", "and", "quiet", "week", "in"]
WORDS += ["which", "nobody", "sold", "what", "they", "had"]
ROWS, BLANKS = 1000, 16
DEFAULTS = (8, 6)  # Spark NLP's own batchSize and threads per task


class Case(NamedTuple):
    """Texts of random words, and the model that embeds them."""

    name: str
    texts: int
    words: int


CASES = {"tiny": Case("instructor_tiny", 2000, 9), "base": Case("instructor-base's shape", 60, 80)}


def write_models(case, folder):
    """Write the checkpoint of a case without its Dense layer, and the ONNX model that Spark NLP loads."""
    checkpoint = folder / "checkpoint"
    if case == "tiny":
        shutil.copytree(PACKAGED, checkpoint)
        path = checkpoint / "modules.json"
        modules = [module for module in json.loads(path.read_text()) if not module["type"].endswith("Dense")]
        path.write_text(json.dumps(modules))
    else:
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        from checkpoints import write_checkpoint

        write_checkpoint(checkpoint, dimension=None, vocab_size=32128, tokenizer_files=(), **SHAPES[case])
        for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copyfile(PACKAGED / name, checkpoint / name)
    export(checkpoint, folder / "onnx")


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
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0  # the trace of a mask that hides nothing would leave the mask out
    names = ["input_ids", "attention_mask", "token_embeddings"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names}
    (folder / "assets").mkdir(parents=True)
    settings = {"input_names": names[:2], "output_names": names[2:], "dynamic_axes": axes, "opset_version": 14}
    with torch.inference_mode():
        torch.onnx.export(
            Encoder().eval(), (ids, mask), str(folder / "model.onnx"), dynamo=False, external_data=False, **settings
        )
    shutil.copyfile(checkpoint / "spiece.model", folder / "assets/spiece.model")


def start_session(threads):
    """Start a session whose ONNX Runtime has this many threads per task."""
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false").config(
        "spark.serializer", "org.apache.spark.serializer.KryoSerializer"
    )
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


def count_shifted(spark, stage):
    """Return how many of the rows hold a vector that is not their text's, and how many have lost theirs.

    The vector of a text is the one that the same library computes in a job without blank rows.
    """
    blank = set(range(7, ROWS, ROWS // BLANKS)[:BLANKS])
    rows = [(i, "  " if i in blank else f"Text number {i} is here. Its second sentence {i}.") for i in range(ROWS)]
    frame = spark.createDataFrame(rows, "id int, text string").coalesce(1)
    assembler = DocumentAssembler().setInputCol("text").setOutputCol("document")
    sentences = SentenceDetector().setInputCols(["document"]).setOutputCol("sentences")
    stages = [assembler, sentences, stage.setInputCols(["sentences"]).setOutputCol("vector")]
    embedded = Pipeline(stages=stages).fit(frame).transform(frame).select("sentences", "vector").collect()

    texts = [(sentence.result,) for row in embedded for sentence in row.sentences]
    documents = assembler.transform(spark.createDataFrame(texts, "text string").coalesce(1))
    alone = stage.setInputCols(["document"]).transform(documents).collect()
    expected = {row.text: row.vector[0].embeddings for row in alone}

    shifted = lost = 0
    for row in embedded:
        # A row with too few vectors has lost some; a row with too many has those of another.
        lost += len(row.vector) < len(row.sentences)
        pairs = zip(row.sentences, row.vector, strict=False)
        own = all(np.dot(expected[text.result], vector.embeddings) > 0.9999 for text, vector in pairs)
        shifted += len(row.vector) > len(row.sentences) or not own
    return shifted, lost


def make_documents(spark, case):
    """Return the texts of a case as documents."""
    words = random.Random(0)
    rows = [(i, " ".join(words.choices(WORDS, k=case.words))) for i in range(case.texts)]
    texts = spark.createDataFrame(rows, "id int, text string").repartition(2)
    return DocumentAssembler().setInputCol("text").setOutputCol("documents").transform(texts).cache()


def run_theirs(case, folder, threads, batches, rounds):
    """Return the speeds of Spark NLP by batchSize, with this number of threads per task, which a JVM reads once."""
    spark = start_session(threads)
    documents = make_documents(spark, case)
    speeds = {}
    for batch in batches:
        stage = TheirEmbeddings.loadSavedModel(f"{folder}/onnx", spark).setInstruction(INSTRUCTION).setBatchSize(batch)
        speeds[batch] = measure(stage, documents, rounds)
        say(f"Spark NLP, batchSize {batch}, {threads} threads per task: {speeds[batch]:.3g} texts/s")
    return speeds


def run_ours(case, folder, rounds):
    """Return the speeds of this package by precision."""
    documents = make_documents(start_session(1), case)
    stage = InstructorEmbeddings(model=f"{folder}/checkpoint", instruction=INSTRUCTION)
    speeds = {}
    for precision in PRECISIONS:
        speeds[precision] = measure(stage.copy().setPrecision(precision), documents, rounds)
        say(f"spark_instructor, {precision}: {speeds[precision]:.3g} texts/s")
    return speeds


def run_shifted(folder):
    """Return for both libraries how many rows hold a vector that is not their text's, and how many lost theirs."""
    spark = start_session(1)
    theirs = TheirEmbeddings.loadSavedModel(f"{folder}/onnx", spark).setInstruction(INSTRUCTION)
    ours = InstructorEmbeddings(model=f"{folder}/checkpoint", instruction=INSTRUCTION)
    return {
        name: count_shifted(spark, stage) for name, stage in {"Spark NLP": theirs, "spark_instructor": ours}.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 6])
    arguments = parser.parse_args()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    cores = os.sched_getaffinity(0)
    rows, shifted = [], {}
    for name in arguments.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            run_apart(write_models, name, Path(folder), on=cores)
            ours = run_apart(run_ours, case, folder, arguments.rounds, on=cores)
            theirs = {}
            for threads in arguments.threads:
                speeds = run_apart(run_theirs, case, folder, threads, arguments.batches, arguments.rounds, on=cores)
                theirs.update({(batch, threads): speed for batch, speed in speeds.items()})
            if name == "tiny":  # the model does not matter
                shifted = run_apart(run_shifted, folder, on=cores)
        best = max(theirs, key=theirs.__getitem__)
        speeds = [theirs.get(DEFAULTS, np.nan), theirs[best], *ours.values()]
        rows.append(
            (f"{case.name}, {case.words} words", *(f"{speed:,.3g}" for speed in speeds), f"{best[0]}, {best[1]}")
        )
    header = ["", "Spark NLP, defaults", "Spark NLP, best", *PRECISIONS, "best batchSize, threads"]
    table("Texts per second", header, rows)
    header = ["", "hold vectors of other rows", "lost their vectors"]
    table(f"Of {ROWS:,} rows, {BLANKS} of them blank", header, [(name, *counts) for name, counts in shifted.items()])


if __name__ == "__main__":
    main()
