"""The main job from end to end: embed passages with a Pipeline, write Parquet, and answer questions from it.

Then embed the same sentences under two instructions: the instruction decides which sentences are near.

make demo
make demo ARGS="--model hkunlp/instructor-base"   # a larger model; needs a network once
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from pyspark.ml import Pipeline
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings

HERE = Path(__file__).parent
DOCUMENT_INSTRUCTION = "Represent the document for retrieval: "
QUESTION_INSTRUCTION = "Represent the question for retrieving supporting documents: "
# Each instruction asks for one of the labels in utterances.jsonl.
UTTERANCE_INSTRUCTIONS = {
    "service": "Represent the utterance for classifying the service it is about: ",
    "act": "Represent the utterance for classifying its dialogue act: ",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="instructor_tiny", help="known name, hub id or folder (%(default)s)")
    parser.add_argument("--output", default="output/demo.parquet", help="where the embedded passages go (%(default)s)")
    arguments = parser.parse_args()

    os.environ["PYSPARK_PYTHON"] = sys.executable  # executors use this Python, even if its environment is not activated
    print("Starting Spark ...", flush=True)
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("spark_instructor demo")
        .config("spark.python.daemon.module", "spark_instructor.daemon")  # imports torch once for all Python workers
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "true")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    embed_passages(spark, arguments.model, arguments.output)
    answer_questions(spark, arguments.model, arguments.output)
    change_instructions(spark, arguments.model)
    spark.stop()


def embed_passages(spark: SparkSession, model: str, output: str) -> None:
    """Embed the passages as documents and write them with their vectors."""
    passages = spark.read.schema("id string, text string, source string").json(str(HERE / "passages.jsonl"))
    pipeline = Pipeline(
        stages=[
            DocumentAssembler().setInputCol("text").setOutputCol("documents"),
            InstructorEmbeddings.pretrained(model, "en")
            .setInstruction(DOCUMENT_INSTRUCTION)
            .setInputCols(["documents"])
            .setOutputCol("instructor"),
        ]
    )
    print(f"Embedding the passages of {HERE.name}/passages.jsonl with {model} ...", flush=True)
    start = time.perf_counter()
    embedded = pipeline.fit(passages).transform(passages.repartition(8))
    embedded.write.mode("overwrite").parquet(output)
    seconds = time.perf_counter() - start

    metadata = F.col("instructor.metadata")
    row = (
        spark.read.parquet(output)
        .select(
            F.aggregate(metadata, F.lit(0), lambda total, one: total + one["tokens"].cast("int")).alias("tokens"),
            F.exists(metadata, lambda one: F.coalesce(one["truncated"], F.lit("false")) == "true").alias("truncated"),
        )
        .agg(F.count("*").alias("rows"), F.sum("tokens").alias("tokens"), F.count_if("truncated").alias("truncated"))
        .first()
    )
    print(f"Wrote {output}")
    print(f"  rows             {row.rows:>8,}")
    print(f"  tokens           {row.tokens:>8,}")
    print(f"  truncated texts  {row.truncated:>8,}")
    print(f"  seconds          {seconds:>8.1f}   (starting the Python workers included)")
    print(f"  rate             {row.rows / seconds:>8,.0f} texts/s, {row.tokens / seconds:,.0f} tokens/s")


def answer_questions(spark: SparkSession, model: str, output: str) -> None:
    """Embed the questions with their own instruction, and print the passage nearest to each."""
    questions = spark.read.schema("id string, text string, answer string").json(str(HERE / "questions.jsonl"))
    asked = embed(questions, model, QUESTION_INSTRUCTION)
    passages = spark.read.parquet(output).select(
        F.col("id").alias("passage"), F.col("text").alias("passage_text"), F.col("instructor")[0].embeddings.alias("v")
    )
    ranked = nearest(asked, passages).orderBy("id", "rank").collect()
    questions_asked = {row.id for row in ranked}
    print("\nNearest passages:")
    for row in ranked:
        if row.rank == 1:
            mark = "right" if row.passage == row.answer else "wrong"
            print(f"\n  {row.text}\n    {row.similarity:.3f} {row.passage} ({mark}): {row.passage_text[:90]}...")
    found = {k: sum(row.passage == row.answer and row.rank <= k for row in ranked) for k in (1, 3)}
    print(
        f"\nThe right passage came first for {found[1]}, and among the first three for {found[3]}, of "
        f"{len(questions_asked)} questions."
    )


def embed(texts: DataFrame, model: str, instruction: str) -> DataFrame:
    """Return the texts with their vectors, as plain arrays of floats."""
    return (
        InstructorEmbeddings.pretrained(model, "en")
        .setInstruction(instruction)
        .setInputCols("text")
        .setOutputCol("vector")
        .transform(texts)
    )


def nearest(asked: DataFrame, passages: DataFrame, count: int = 3) -> DataFrame:
    """Return the passages most similar to each question. For unit vectors the dot product is the cosine."""
    products = F.zip_with("vector", "v", lambda x, y: (x * y).cast("double"))
    similar = asked.crossJoin(passages).withColumn(
        "similarity", F.aggregate(products, F.lit(0.0), lambda total, one: total + one)
    )
    by_similarity = Window.partitionBy("id").orderBy(F.desc("similarity"))
    return similar.withColumn("rank", F.row_number().over(by_similarity)).where(F.col("rank") <= count)


def change_instructions(spark: SparkSession, model: str) -> None:
    """Embed the same utterances under two instructions, and print how the neighbors of an utterance change."""
    utterances = spark.read.schema("text string, service string, act string").json(str(HERE / "utterances.jsonl"))
    print("\nThe same sentences under two instructions:")
    for label, instruction in UTTERANCE_INSTRUCTIONS.items():
        rows = embed(utterances, model, instruction).collect()
        vectors = np.array([row.vector for row in rows])
        similarities = vectors @ vectors.T
        np.fill_diagonal(similarities, -1)  # an utterance is not its own neighbor
        print(f'\n  "{instruction}"\n    {rows[0].text}')
        for i in similarities[0].argsort()[:-4:-1]:
            print(f"      {similarities[0, i]:.3f} {rows[i].text}")
        same = sum(row[label] == rows[i][label] for row, i in zip(rows, similarities.argmax(1), strict=True))
        print(f"    The nearest sentence has the same {label} for {same} of {len(rows)}.")


if __name__ == "__main__":
    main()
