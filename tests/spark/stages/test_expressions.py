"""Long texts are cut before Spark sends them to Python, and nobody notices."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings
from spark_instructor.stages.expressions import cut_text

MAX_LENGTH = 8
# What the tokenizer removes, joins or divides: blanks, characters without a width, accents, an unknown script, and long
# words.
PIECES = [
    " ",
    "\t",
    "\n",
    "word ",
    "a ",
    "\u200b",
    "\u200b ",
    "e\u0301 ",
    "漢字",
    "漢字 ",
    "é\n",
    "x" * 30,
    "</s> ",
    "7 ",
    "。 ",
]


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    mixed = ["".join(random.choice(PIECES, size)) for size in random.integers(1, 120, 200)]
    return [*mixed, *(piece * 200 for piece in PIECES), "", None]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("word " * 9, 45),
        ("word " * 1000, 96),
        ("a\n" * 1000, 96),
        ("words" * 1000, 5000),
        (" " * 1000 + "word " * 1000, 6000),
        ("\u200b " * 1000, 2000),
        ("漢字 " * 1000, 3000),
    ],
)
def test_cut_text(spark, text, left):
    row = (
        spark.createDataFrame([(text,)], "text string").select(cut_text(F.col("text"), MAX_LENGTH).alias("cut")).first()
    )
    assert row.cut == text[:left]


@pytest.mark.parametrize("long_text", ["truncate", "average"])
def test_vectors_of_cut_texts(spark, tiny, tiny_model, texts, long_text):
    """The vectors, the number of tokens and what is truncated are those of the full texts, and the texts stay whole."""
    factor = 40 if long_text == "average" else 1
    texts = [text and text * factor for text in texts]
    stage = InstructorEmbeddings(model=str(tiny), maxSentenceLength=MAX_LENGTH, longText=long_text)
    stage.setInputCols(["document", "list"]).setOutputCols(["annotations", "vectors"])
    frame = DocumentAssembler(inputCol="text", outputCol="document").transform(
        spark.createDataFrame([(text, [text]) for text in texts], "text string, list array<string>").coalesce(1)
    )
    rows = stage.transform(frame).collect()
    expected = tiny_model.encode_counted(
        "", [text for text in texts if text], max_length=MAX_LENGTH, long_text=long_text
    )
    annotations = [annotation for row in rows for annotation in row.annotations]
    assert [annotation.result for annotation in annotations] == [text for text in texts if text]
    np.testing.assert_allclose([annotation.embeddings for annotation in annotations], expected.vectors, atol=1e-5)
    assert [int(annotation.metadata["tokens"]) for annotation in annotations] == expected.tokens.tolist()
    assert ["truncated" in annotation.metadata for annotation in annotations] == expected.truncated.tolist()
    assert expected.truncated.any() and not expected.truncated.all()
    full = [text for text in texts if text is not None]
    vectors = [row.vectors[0] for row in rows if row.vectors[0] is not None]
    np.testing.assert_allclose(
        vectors, tiny_model.encode("", full, max_length=MAX_LENGTH, long_text=long_text), atol=1e-5
    )
