"""Spark gives the golden vectors: from string columns, from annotation columns and with LightPipeline."""

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.sql import functions as F
from vectors import TOLERANCE

from spark_instructor import DocumentAssembler, InstructorEmbeddings, LightPipeline


@pytest.fixture(scope="module")
def golden_rows(spark, cases):
    rows = [(case["id"], case["instruction"], case["text"]) for case in cases]
    return spark.createDataFrame(rows, "id string, instruction string, text string")


def embedder(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInstructionCol("instruction").setOutputCol("instructor")


def assert_golden(rows, cases, tolerance=TOLERANCE):
    expected = {case["id"]: np.array(case["vector"], np.float32) for case in cases}
    actual = {row.id: np.array(row.vector, np.float32) for row in rows}
    assert actual.keys() == expected.keys()
    for id_, vector in expected.items():
        np.testing.assert_allclose(actual[id_], vector, atol=tolerance, rtol=0, err_msg=id_)


@pytest.mark.parametrize("partitions", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_string_column(golden_rows, tiny, cases, partitions, batch_size):
    stage = embedder(tiny).setInputCols("text").setBatchSize(batch_size)
    shuffled = golden_rows.orderBy(F.hash("id")).repartition(partitions)
    assert_golden(stage.transform(shuffled).select("id", F.col("instructor").alias("vector")).collect(), cases)


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_annotation_column(golden_rows, tiny, cases, partitions):
    documents = DocumentAssembler(inputCol="text", outputCol="documents").transform(golden_rows.repartition(partitions))
    embedded = embedder(tiny).setInputCols("documents").transform(documents)
    rows = embedded.select("id", F.explode("instructor").alias("one")).select(
        "id", "one.metadata", F.col("one.embeddings").alias("vector")
    )
    with_text = [case for case in cases if case["text"]]
    collected = rows.collect()
    assert_golden(collected, with_text)
    tokens = {row.id: int(row.metadata["tokens"]) for row in collected}
    assert tokens == {case["id"]: case["n_tokens"] for case in with_text}


def test_light_pipeline(spark, tiny, cases):
    by_instruction = {}
    for case in cases:
        # A stage refuses an instruction that fills the limit; the tests above pass such instructions in a column.
        if case["text"] and case["masked"] < 511:
            by_instruction.setdefault(case["instruction"], []).append(case)
    assembler = DocumentAssembler(inputCol="text", outputCol="documents")
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("documents").setOutputCol("instructor")
    empty = spark.createDataFrame([], "text string")
    for instruction, group in by_instruction.items():
        model = Pipeline(stages=[assembler, stage.copy().setInstruction(instruction)]).fit(empty)
        rows = LightPipeline(model).fullAnnotate([case["text"] for case in group])
        for case, row in zip(group, rows, strict=True):
            (annotation,) = row["instructor"]
            np.testing.assert_allclose(annotation.embeddings, case["vector"], atol=TOLERANCE, err_msg=case["id"])
            assert annotation.metadata["tokens"] == str(case["n_tokens"])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_narrow_precisions(golden_rows, tiny, cases, precision):
    stage = embedder(tiny).setInputCols("text").setPrecision(precision)
    vectors = {case["id"]: np.array(case["vector"]) for case in cases}
    for row in stage.transform(golden_rows).collect():
        expected = vectors[row.id]
        if expected.any():
            assert np.dot(row.instructor, expected) >= 0.999, row.id
        else:
            assert not np.any(row.instructor), row.id
