"""SentenceDetector: the sentences, their places and metadata, what comes after it, saving, and its errors."""

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from spark_instructor import DocumentAssembler, InstructorEmbeddings, LightPipeline, SentenceDetector
from spark_instructor.stages.annotation import ANNOTATIONS

HARD = "Dr. Żółć saw 😀😀. Why?\r\n\r\n- One\u00a0item…\n- 漢字。かな！？ “No.” E\u0301\u200b. Mail a.b@c.org"
SENTENCES = [
    "Dr. Żółć saw 😀😀.",
    "Why?",
    "- One\u00a0item…",
    "- 漢字。",
    "かな！？",
    "“No.”",
    "E\u0301\u200b.",
    "Mail a.b@c.org",
]
TEXTS = [HARD, None, "", " \n ", "one"]


@pytest.fixture
def detector():
    return SentenceDetector(inputCols="text", outputCol="sentences")


@pytest.fixture(scope="module")
def texts(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string")


def read(text, begin, end):
    return text.encode("utf-16-le")[2 * begin : 2 * end + 2].decode("utf-16-le")


def test_pipeline(texts, detector, tiny, tmp_path):
    """The stage works after an assembler and before the embeddings, saved and loaded, and on the driver."""
    stages = [
        DocumentAssembler(inputCol="text", outputCol="document"),
        detector.setInputCols("document").setMaxLength(500).setCustomBounds(["(?i)never"]).setLazyAnnotator(True),
        InstructorEmbeddings(model=str(tiny), instruction="Represent: ", inputCols="sentences", outputCol="vectors"),
    ]
    Pipeline(stages=stages).fit(texts).write().overwrite().save(str(tmp_path / "model"))
    model = PipelineModel.load(str(tmp_path / "model"))
    assert model.stages[1].getMaxLength() == 500 and model.stages[1].getCustomBounds() == ["(?i)never"]
    output = model.transform(texts)
    assert output.schema["sentences"] == StructField("sentences", ANNOTATIONS, True, {"annotatorType": "document"})
    rows = sorted(output.collect())
    assert [[sentence.result for sentence in row.sentences] for row in rows] == [SENTENCES, [], [], [], ["one"]]
    for row in rows:
        assert [vector.result for vector in row.vectors] == [sentence.result for sentence in row.sentences]
        for number, sentence in enumerate(row.sentences):
            assert read(row.text, sentence.begin, sentence.end) == sentence.result
            assert sentence.metadata == {"document": "0", "sentence": str(number)}
    found = LightPipeline(model).fullAnnotate([text for text in TEXTS if text is not None])
    assert [row["sentences"] for row in found] == [row.sentences for row in rows if row.text is not None]
    assert [len(row["vectors"]) for row in found] == [len(SENTENCES), 0, 0, 1]
    (plain,) = LightPipeline(PipelineModel([model.stages[1].setInputCols("text")])).fullAnnotate([HARD])
    assert plain["sentences"] == rows[0].sentences


def test_every_kind_of_input_exploded(texts, detector):
    """A string, its document and an array of it have the same sentences, together or in rows of their own."""
    rows = DocumentAssembler(inputCol="text", outputCol="document").transform(texts)
    rows = rows.withColumn("texts", F.array("text"))
    for name in ("document", "texts"):
        rows = detector.copy().setInputCols(name).setOutputCol(f"of_{name}").transform(rows)
    exploded = detector.setExplodeSentences(True).transform(rows)
    assert exploded.schema["sentences"] == StructField("sentences", ANNOTATIONS, True, {"annotatorType": "document"})
    found = exploded.where(F.col("sentences")[0]["result"] != "Why?").collect()
    assert [row.sentences[0].result for row in found] == [*SENTENCES[:1], *SENTENCES[2:], "one"]
    for row in found:
        assert row.of_document == row.of_texts
        (sentence,) = row.sentences
        assert sentence == row.of_document[int(sentence.metadata["sentence"])]


def test_documents_of_a_row(spark, detector):
    """Sentences inherit the metadata of their document and count from its begin; a null column gives a null."""
    document = ("document", 10, 40, "One. Two.", {"sentence": "7", "id": "a"}, [])
    blank = ("document", 0, 0, " ", None, [])
    documents = [blank, document, document]
    rows = spark.createDataFrame([(documents,), (None,)], StructField("text", ANNOTATIONS).simpleString())
    (found, null) = detector.transform(rows).collect()
    assert null.sentences is None
    assert [(sentence.begin, sentence.end) for sentence in found.sentences] == [(10, 13), (15, 18)] * 2
    assert [sentence.metadata for sentence in found.sentences] == [
        {"id": "a", "document": str(1 + number // 2), "sentence": str(number)} for number in range(4)
    ]


@pytest.mark.one_kind
def test_params(detector):
    assert not detector.getUseCustomBoundsOnly() and detector.getUseAbbreviations() and detector.getDetectLists()
    assert detector.getSplitLength() is None and (detector.getMinLength(), detector.getMaxLength()) == (0, 99999)
    detector.setCustomBounds("\n").setUseCustomBoundsOnly(True).setCustomBoundsStrategy("append")
    detector.setUseAbbreviations(False).setDetectLists(False).setSplitLength(9).setMinLength(2).setMaxLength(8)
    copied = detector.copy({detector.explodeSentences: True})
    assert (copied.getCustomBounds(), copied.getCustomBoundsStrategy()) == (["\n"], "append")
    assert copied.getUseCustomBoundsOnly() and not copied.getUseAbbreviations() and not copied.getDetectLists()
    assert (copied.getSplitLength(), copied.getMinLength(), copied.getMaxLength()) == (9, 2, 8)
    assert copied.getExplodeSentences() and not detector.getExplodeSentences()
    assert copied.setSplitLength(None).getSplitLength() is None


@pytest.mark.one_kind
def test_errors(texts, detector):
    with pytest.raises(ValueError, match=r"customBounds has '\(', which is not a regular expression .* pass '\\\\\('"):
        detector.setCustomBounds(["\n", "("])
    with pytest.raises(ValueError, match=r"customBounds has 'x\*', which matches an empty text"):
        SentenceDetector(customBounds=["x*"])
    with pytest.raises(ValueError, match="customBoundsStrategy is 'keep', expected one of none, prepend, append"):
        detector.setCustomBoundsStrategy("keep")
    with pytest.raises(ValueError, match="splitLength is 0, expected at least 1"):
        detector.setSplitLength(0)
    with pytest.raises(ValueError, match="minLength is -1, expected at least 0"):
        detector.setMinLength(-1)
    with pytest.raises(ValueError, match="maxLength is 0, expected at least 1"):
        detector.setMaxLength(0)
    with pytest.raises(ValueError, match="useCustomBoundsOnly is True, but customBounds is empty"):
        detector.copy().setUseCustomBoundsOnly(True).transform(texts)
    with pytest.raises(ValueError, match="minLength is 9, but maxLength is 8, so every sentence would be left out"):
        detector.copy().setMinLength(9).setMaxLength(8).transform(texts)
    with pytest.raises(ValueError, match=r"minLength is 9, but splitLength is 8.* Set a minLength of at most 8"):
        LightPipeline(PipelineModel([detector.copy().setMinLength(9).setSplitLength(8)])).annotate("One.")
    with pytest.raises(ValueError, match=r"SentenceDetector reads one column, but inputCols is \['a', 'b'\]"):
        detector.copy().setInputCols("a", "b").transform(texts)
    with pytest.raises(ValueError, match="column 'id' is int, expected array of annotations or string"):
        detector.copy().setInputCols("id").transform(texts)
