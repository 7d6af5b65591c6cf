"""instructor_embed as a column function and in SQL, and cosine_similarity with and without Spark's own function."""

import math

import numpy as np
import pytest
from pyspark.sql import functions as F
from vectors import TOLERANCE

from spark_instructor import InstructorEmbeddings
from spark_instructor.functions import cosine_similarity, instructor_embed, register_instructor_embed

ROWS = [("one text", "Represent it: "), ("another", None), (None, "Represent it: "), ("", "Represent it: ")]


@pytest.fixture(scope="module")
def texts(spark):
    df = spark.createDataFrame(ROWS, "text string, instruction string").repartition(2)
    df.createOrReplaceTempView("texts")
    return df


@pytest.fixture(scope="module")
def expected(texts, tiny):
    """Return the annotator's vectors by text: one for a fixed instruction, and one for the row's own instruction."""
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("text")
    embedded = stage.copy().setInstruction("Represent it: ").setOutputCol("v").transform(texts)
    embedded = stage.copy().setInstructionCol("instruction").setOutputCol("w").transform(embedded)
    return {row.text: (row.v, row.w) for row in embedded.collect()}


def assert_same(rows, expected):
    assert len(rows) == len(expected)
    for row in rows:
        for actual, vector in zip((row.v, row.w), expected[row.text], strict=True):
            assert (actual is None) == (vector is None)
            if actual is not None:
                np.testing.assert_allclose(actual, vector, atol=TOLERANCE, rtol=0)


def test_column_function(texts, tiny, expected):
    model = str(tiny)
    embedded = texts.select(
        "text",
        instructor_embed("text", "Represent it: ", model).alias("v"),
        instructor_embed(F.col("text"), F.col("instruction"), model).alias("w"),
    )
    assert embedded.schema["v"].dataType.simpleString() == "array<float>"
    assert_same(embedded.collect(), expected)


def test_sql(spark, texts, tiny, expected):
    register_instructor_embed(spark, "embed_text", instruction="Represent it: ", model=str(tiny))
    embedded = spark.sql("SELECT text, embed_text(text) AS v, embed_text(text, instruction) AS w FROM texts")
    assert_same(embedded.collect(), expected)


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_arguments_that_are_no_texts(spark, texts, tiny, subtests):
    register_instructor_embed(spark, "embed_text", model=str(tiny))
    for arguments, says in [
        ("text, text, text", "expected a text and optionally an instruction, got 3 arguments"),
        ("", "expected a text and optionally an instruction, got 0 arguments"),
        ("array(text, 'b')", "expected a column of texts, got an array: explode it, or use InstructorEmbeddings"),
        ("text, array('a')", "expected a column of texts, got an array"),
        ("length(text)", r"expected a column of texts, got one of \w+: cast it to string"),
        ("text, 5", r"expected a column of texts, got one of \w+: cast it to string"),
        ("encode(text, 'UTF-8')", "expected a column of texts, got one of binary: cast it to string"),
    ]:
        if not arguments and spark.version.startswith("3.5"):
            continue  # pyspark itself fails there, before it calls the function
        with subtests.test(arguments), pytest.raises(Exception, match=says):
            spark.sql(f"SELECT embed_text({arguments}) FROM texts").collect()


def test_a_column_of_nulls_alone(spark, tiny):
    register_instructor_embed(spark, "embed_text", model=str(tiny))
    assert spark.sql("SELECT embed_text(NULL) AS v, embed_text('a', NULL) AS w").first().v is None


@pytest.mark.one_kind
def test_settings_are_the_annotators(texts, tiny):
    with pytest.raises(TypeError, match="InstructorEmbeddings has no parameter 'max_length'"):
        instructor_embed("text", model=str(tiny), max_length=9)
    with pytest.raises(ValueError, match="maxSentenceLength is 9999, but"):
        instructor_embed("text", model=str(tiny), maxSentenceLength=9999)
    for name, setting in (("errorCol", "error"), ("distinct", True)):
        with pytest.raises(TypeError, match=f"{name} is .*{setting}.*, but .*; use InstructorEmbeddings"):
            instructor_embed("text", model=str(tiny), **{name: setting})
    long = instructor_embed(F.lit("word " * 50), model=str(tiny)).alias("v")
    cut = instructor_embed(F.lit("word " * 50), model=str(tiny), maxSentenceLength=9).alias("w")
    (row,) = texts.limit(1).select(long, cut).collect()
    assert not np.allclose(row.v, row.w, atol=1e-3)


@pytest.mark.one_kind
def test_columns_are_arguments(spark, texts, tiny):
    for name in ("inputCols", "outputCol", "outputCols", "instructionCol"):
        with pytest.raises(TypeError, match=f"{name} is 'instruction', but .* the instructions second"):
            instructor_embed("text", model=str(tiny), **{name: "instruction"})
    with pytest.raises(TypeError, match="instructionCol is 'instruction'"):
        register_instructor_embed(spark, "embed_text", model=str(tiny), instructionCol="instruction")
    with pytest.raises(Exception, match="expected a column of texts, got a struct of text, instruction"):
        texts.select(instructor_embed(F.struct("text", "instruction"), model=str(tiny))).collect()


@pytest.mark.parametrize("own", [True, False])
def test_cosine_similarity(spark, monkeypatch, own):
    if not own:
        monkeypatch.delattr(F, "vector_cosine_similarity", raising=False)
    elif not hasattr(F, "vector_cosine_similarity"):
        pytest.skip("this Spark has no vector functions")
    pairs = [([1.0, 2.0], [1.0, 2.0]), ([3.0, 0.0], [0.0, 1.0]), ([1.0, 1.0], [-2.0, 0.0]), ([0.0, 0.0], [1.0, 1.0])]
    df = spark.createDataFrame([*pairs, (None, [1.0, 1.0])], "a array<float>, b array<float>").coalesce(1)
    similarity = df.select(cosine_similarity("a", F.col("b")).alias("s"))
    assert similarity.schema["s"].dataType.simpleString() == "float"
    cosines = [row.s for row in similarity.collect()]
    assert cosines[:3] == pytest.approx([1, 0, -math.sqrt(0.5)], abs=1e-6)
    assert cosines[3:] == [None, None]
    with pytest.raises(Exception, match=r"(?i)dimension|width"):
        df.select(cosine_similarity("a", F.array(F.lit(1.0).cast("float")))).collect()


@pytest.mark.one_kind
def test_cosine_similarity_of_different_models(spark):
    def provenance(hash):
        return {"spark_instructor": {"model": "m" + hash, "precision": "int8", "hash": hash}}

    df = spark.sql("SELECT array(1f) AS a, array(1f) AS b, array(1f) AS c, array(1f) AS d").select(
        *(F.col(name).alias(name, metadata=provenance(hash)) for name, hash in ("a1", "b1", "c2")), "d"
    )
    for same in ("b", "d"):  # nobody knows what embedded d
        assert df.select(cosine_similarity("a", same, df=df)).first() == (1.0,)
    with pytest.raises(ValueError, match="column 'a' was embedded with m1 in int8, and column 'c' with m2 in int8"):
        cosine_similarity("a", "c", df=df)
    assert df.select(cosine_similarity("a", "c")).first() == (1.0,)
    with pytest.raises(ValueError, match="cosine_similarity: there is no column 'e'"):
        cosine_similarity("a", "e", df=df)
    with pytest.raises(TypeError, match="with df, name the columns"):
        cosine_similarity("a", F.col("c"), df=df)
