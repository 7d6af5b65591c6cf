"""DocumentTokenSplitter: the chunks, their places and metadata, what comes after it, and its errors."""

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from spark_instructor import DocumentAssembler, DocumentTokenSplitter, InstructorEmbeddings, LightPipeline
from spark_instructor.stages.annotation import ANNOTATIONS

INSTRUCTION = "Represent the document for retrieval: "
LONG = "The cat sat on a mat. 😀 Żółć!\n\n" * 30
TEXTS = [LONG, None, "", " \n ", "one", "long" * 300 + " word"]


@pytest.fixture(scope="module")
def embeddings(tiny):
    return InstructorEmbeddings(
        model=str(tiny), instruction=INSTRUCTION, maxSentenceLength=64, inputCols="chunks", outputCol="vectors"
    )


@pytest.fixture
def splitter(embeddings):
    return DocumentTokenSplitter.from_embeddings(embeddings).setInputCols("text").setOutputCol("chunks")


@pytest.fixture(scope="module")
def texts(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string")


def read(text, begin, end):
    return text.encode("utf-16-le")[2 * begin : 2 * end + 2].decode("utf-16-le")


def test_chunks_are_embedded_whole(texts, splitter, embeddings):
    output = embeddings.transform(splitter.setTokenOverlap(5).transform(texts))
    assert output.schema["chunks"] == StructField("chunks", ANNOTATIONS, True, {"annotatorType": "document"})
    rows = sorted(output.collect())
    assert [len(row.vectors) for row in rows] == [len(row.chunks) for row in rows]
    assert [len(row.chunks) for row in rows[1:5]] == [0, 0, 0, 1]
    for row in (rows[0], rows[5]):
        assert len(row.chunks) > 5
        for number, (chunk, vector) in enumerate(zip(row.chunks, row.vectors, strict=True)):
            assert read(row.text, chunk.begin, chunk.end) == chunk.result
            tokens = int(chunk.metadata.pop("numTokens"))
            assert chunk.metadata == {
                "sentence": "0", "document": "0", "chunk": str(number), "chunks": str(len(row.chunks))
            }  # fmt: skip
            assert "truncated" not in vector.metadata and int(vector.metadata["tokens"]) <= 64
            assert 0 < tokens <= splitter.getNumTokens()


def test_every_kind_of_input(texts, splitter):
    """A string, the document that is made of it, and an array that holds it have the same chunks."""
    rows = DocumentAssembler(inputCol="text", outputCol="document").transform(texts)
    rows = rows.withColumn("texts", F.array("text"))
    for name in ("text", "document", "texts"):
        rows = splitter.copy().setInputCols([name]).setOutputCol(f"of_{name}").transform(rows)
    for row in rows.collect():
        assert row.of_text == row.of_document == row.of_texts


def test_documents_of_a_row(spark, splitter):
    """Chunks inherit the metadata of their document and count from its begin; a null column gives a null."""
    document = ("document", 10, 40, LONG, {"sentence": "7", "id": "a", "chunk": "old"}, [])
    blank = ("document", 0, 0, " ", None, [])
    rows = spark.createDataFrame([([blank, document],), (None,)], StructField("text", ANNOTATIONS).simpleString())
    (found, null) = splitter.transform(rows).collect()
    assert null.chunks is None
    for number, chunk in enumerate(found.chunks):
        assert read(LONG, chunk.begin - 10, chunk.end - 10) == chunk.result
        assert chunk.metadata.items() >= {"sentence": "7", "id": "a", "document": "1", "chunk": str(number)}.items()


def test_explode(texts, splitter):
    together = {row.id: row.chunks for row in splitter.transform(texts).collect()}
    exploded = splitter.setExplodeSplits(True).transform(texts)
    assert exploded.schema["chunks"] == StructField("chunks", ANNOTATIONS, True, {"annotatorType": "document"})
    rows = exploded.collect()
    assert [row.id for row in rows] == [id_ for id_, chunks in together.items() for _ in chunks]
    for row in rows:
        (chunk,) = row.chunks
        assert chunk == together[row.id][int(chunk.metadata["chunk"])]


def test_untrimmed_chunks_add_up(texts, splitter):
    for row in splitter.setTrimWhitespace(False).setNumTokens(16).transform(texts).collect():
        assert "".join(chunk.result for chunk in row.chunks) == (row.text or "").replace(" \n ", "")


def test_light_pipeline_and_saving(texts, splitter, embeddings, tmp_path):
    stages = [
        DocumentAssembler(inputCol="text", outputCol="document"),
        splitter.setInputCols("document").setNumTokens(20).setTokenOverlap(4).setLazyAnnotator(True),
        embeddings,
    ]
    model = Pipeline(stages=stages).fit(texts)
    model.write().overwrite().save(str(tmp_path / "model"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    saved = loaded.stages[1]
    assert saved.getNumTokens() == 20 and saved.getTokenOverlap() == 4 and saved.getInstruction() == INSTRUCTION
    expected = [row.chunks for row in sorted(loaded.transform(texts.dropna()).collect())]
    (*found,) = LightPipeline(model).fullAnnotate([text for text in TEXTS if text is not None])
    assert [row["chunks"] for row in found] == expected
    assert [len(row["vectors"]) for row in found] == [len(chunks) for chunks in expected]
    (plain,) = LightPipeline(PipelineModel([saved.setInputCols("text")])).fullAnnotate([LONG])
    assert plain["chunks"] == expected[0]


def test_a_filter_does_not_split_twice(texts, splitter):
    chunked = splitter.transform(texts).where(F.size("chunks") > 1)
    plan = chunked._jdf.queryExecution().executedPlan().toString() if hasattr(chunked, "_jdf") else ""
    assert plan.count("EvalPython") <= 1
    assert chunked.count() == 2


@pytest.mark.one_kind
def test_errors(texts, splitter, embeddings):
    with pytest.raises(ValueError, match="numTokens is 15, expected at least 16"):
        splitter.setNumTokens(15)
    with pytest.raises(ValueError, match="tokenOverlap is -1, expected at least 0"):
        splitter.setTokenOverlap(-1)
    with pytest.raises(ValueError, match="tokenOverlap is 20, expected less than numTokens, which is 20"):
        splitter.copy().setNumTokens(20).setTokenOverlap(20).transform(texts)
    with pytest.raises(
        ValueError, match=r"numTokens is 64, but .* can read only \d+ tokens of a chunk. Set a smaller numTokens"
    ):
        splitter.copy().setNumTokens(64).transform(texts)
    with pytest.raises(ValueError, match=r"numTokens is 16, but .* can read only 2 tokens of a chunk"):
        splitter.copy().setInstruction("").setMaxSentenceLength(3).transform(texts)
    with pytest.raises(ValueError, match=r"DocumentTokenSplitter reads one column, but inputCols is \['a', 'b'\]"):
        splitter.copy().setInputCols("a", "b").transform(texts)
    with pytest.raises(ValueError, match="column 'id' is int, expected array of annotations or string"):
        splitter.copy().setInputCols("id").transform(texts)
    with pytest.raises(ValueError, match="DocumentTokenSplitter needs inputCols: call setInputCols"):
        DocumentTokenSplitter.from_embeddings(embeddings).transform(texts)
    with pytest.raises(ValueError, match="instructions from the column 'own', so its rows leave different room"):
        DocumentTokenSplitter.from_embeddings(embeddings.copy().setInstructionCol("own"))
