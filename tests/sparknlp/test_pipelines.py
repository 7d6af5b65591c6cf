"""Pipelines that mix the stages of Spark NLP and of this package, and what both make of the same rows."""

import inspect
import random

import pytest
import sparknlp.annotator
import sparknlp.base
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import functions as F
from sparknlp.annotation import Annotation as TheirAnnotation
from vectors import assert_embedded

import spark_instructor
from spark_instructor import Annotation, InstructorEmbeddings, LightPipeline, SentenceDetector
from spark_instructor.stages.assembler import CLEANUPS

LIBRARIES = (sparknlp.base, spark_instructor)
INSTRUCTION = "Represent: "
TEXTS = ["Paris is in France. It is large.", "", " \n", None, "One. Two. Three.", "Zażółć 😀 gęślą."]
PIECES = [" ", "\t", "\n", "\r", "\x0b", "\x00", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff", "e\u0301", "😀"]
PIECES += ["\\", "n", "t", "r", r"\n", r"\t", r"\r\n", r"\r\r", r"\n\n", "a", "B", "é", "<br>", "  ", "İ", "ß", "."]


@pytest.fixture(scope="module")
def texts(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string").repartition(2)


@pytest.fixture
def embedder(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInstruction(INSTRUCTION).setOutputCol("instructor")


def assembler(library, **params):
    stage = library.DocumentAssembler().setInputCol("text").setOutputCol("documents")
    return stage._set(**params)


def finisher(library):
    return library.EmbeddingsFinisher().setInputCols(["instructor"]).setOutputCols(["vectors"])


def sentence_detector():
    return sparknlp.annotator.SentenceDetector().setInputCols(["documents"]).setOutputCol("sentences")


@pytest.mark.parametrize("splits", [False, True], ids=["documents", "sentences"])
@pytest.mark.parametrize("last", [spark_instructor, sparknlp.base], ids=["our finisher", "their finisher"])
@pytest.mark.parametrize("first", [spark_instructor, sparknlp.base], ids=["our assembler", "their assembler"])
def test_mixed_pipelines(texts, embedder, tiny_model, tmp_path, first, last, splits):
    """They can be fitted, saved and loaded, and each text gets its own vectors."""
    middle = [sentence_detector()] if splits else []
    column = "sentences" if splits else "documents"
    stages = [assembler(first), *middle, embedder.setInputCols([column]), finisher(last)]
    Pipeline(stages=stages).fit(texts).write().overwrite().save(str(tmp_path / "model"))
    model = PipelineModel.load(str(tmp_path / "model"))
    for row in model.transform(texts).collect():
        results = [annotation.result for annotation in row[column] if annotation.result]
        assert [annotation.result for annotation in row.instructor] == results
        assert_embedded(tiny_model, INSTRUCTION, results, row.vectors)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("DocumentNormalizer", {"action": "clean", "patterns": ["<[^>]*>"]}),
        ("DocumentCharacterTextSplitter", {"chunkSize": 12}),
        ("DocumentTokenSplitter", {"numTokens": 3}),
    ],
)
def test_their_stages_in_front_of_ours(texts, embedder, tiny_model, name, params):
    stage = getattr(sparknlp.annotator, name)().setInputCols(["documents"]).setOutputCol("pieces")._set(**params)
    stages = [assembler(spark_instructor), stage, embedder.setInputCols("pieces"), finisher(spark_instructor)]
    for row in Pipeline(stages=stages).fit(texts).transform(texts).collect():
        results = [annotation.result for annotation in row.pieces if annotation.result]
        assert_embedded(tiny_model, INSTRUCTION, results, row.vectors)


def test_our_sentence_detector(texts, embedder, tiny_model, tmp_path):
    """It has the schema of theirs, finds the same, and stands between their stages, saved and loaded."""
    ours = SentenceDetector(inputCols="documents", outputCol="ours")
    tokenizer = sparknlp.annotator.Tokenizer().setInputCols(["ours"]).setOutputCol("tokens")
    before = [assembler(sparknlp.base), sentence_detector(), ours, tokenizer]
    stages = [*before, embedder.setInputCols("ours"), finisher(sparknlp.base)]
    Pipeline(stages=stages).fit(texts).write().overwrite().save(str(tmp_path / "model"))
    output = PipelineModel.load(str(tmp_path / "model")).transform(texts)
    our_field, their_field = output.schema["ours"], output.schema["sentences"]
    assert (our_field.dataType, our_field.metadata) == (their_field.dataType, their_field.metadata)
    for row in output.collect():
        theirs = [(*sentence[:4], {**sentence.metadata, "document": "0"}) for sentence in row.sentences]
        assert [tuple(sentence[:5]) for sentence in row.ours] == theirs
        assert {token.metadata["sentence"] for token in row.tokens} == {each.metadata["sentence"] for each in row.ours}
        assert_embedded(tiny_model, INSTRUCTION, [sentence.result for sentence in row.ours], row.vectors)


def test_their_multi_document_assembler(spark, embedder, tiny_model):
    frame = spark.createDataFrame([("One.", "Two.")], "a string, b string")
    assembler = sparknlp.base.MultiDocumentAssembler().setInputCols(["a", "b"]).setOutputCols(["c", "d"])
    (row,) = embedder.setInputCols("c", "d").setOutputCols("v", "w").transform(assembler.transform(frame)).collect()
    assert_embedded(tiny_model, INSTRUCTION, ["One.", "Two."], [row.v[0].embeddings, row.w[0].embeddings])


def test_their_embeddings_between_our_stages(spark, texts, onnx_folder, tmp_path):
    theirs = sparknlp.annotator.InstructorEmbeddings.loadSavedModel(onnx_folder, spark).setInputCols(["documents"])
    theirs = theirs.setOutputCol("instructor").setDimension(64)
    stages = [assembler(spark_instructor), theirs, finisher(spark_instructor)]
    Pipeline(stages=stages).fit(texts).write().overwrite().save(str(tmp_path / "model"))
    rows = PipelineModel.load(str(tmp_path / "model")).transform(texts.where("length(trim(text)) > 2")).collect()
    assert len(rows) == 3
    assert all(len(vector) > 32 for row in rows for vector in row.vectors)


@pytest.mark.parametrize("stage", ["DocumentAssembler", "InstructorEmbeddings", "EmbeddingsFinisher"])
def test_schemas_are_equal(spark, texts, embedder, onnx_folder, stage):
    """Names, types, nullability and metadata are those of Spark NLP, so its stages accept our columns."""
    if stage == "InstructorEmbeddings":
        theirs = sparknlp.annotator.InstructorEmbeddings.loadSavedModel(onnx_folder, spark).setInputCols(["documents"])
        theirs = theirs.setOutputCol("instructor").setDimension(64).setStorageRef("ref")
        stages = [theirs, embedder.setInputCols("documents").setStorageRef("ref")]
        documents = assembler(spark_instructor).transform(texts)
        fields = [each.transform(documents).schema["instructor"] for each in stages]
        fields[1].metadata.pop("spark_instructor")
    elif stage == "DocumentAssembler":
        fields = [
            assembler(library).transform(texts).schema["documents"] for library in (sparknlp.base, spark_instructor)
        ]
    else:
        embedded = embedder.setInputCols("documents").transform(assembler(spark_instructor).transform(texts))
        fields = [
            finisher(library).transform(embedded).schema["vectors"] for library in (sparknlp.base, spark_instructor)
        ]
    assert fields[0] == fields[1]


def test_documents_are_equal(spark):
    """Both assemblers make the same documents of hard texts, in every cleanup mode."""
    generator = random.Random(0)
    hard = ["".join(generator.choices(PIECES, k=generator.randrange(14))) for _ in range(500)]
    frame = spark.createDataFrame([(text,) for text in [*hard, None, ""]], "text string").coalesce(2)
    for library, prefix in ((sparknlp.base, "theirs"), (spark_instructor, "ours")):
        for mode in CLEANUPS:
            frame = assembler(library, cleanupMode=mode, outputCol=f"{prefix}_{mode}").transform(frame)
    for row in frame.collect():
        for mode in CLEANUPS:
            assert row[f"ours_{mode}"] == row[f"theirs_{mode}"], (mode, row.text)


def test_rows_never_shift(spark, embedder, tiny_model):
    """A row without sentences leaves the rows beside it alone, which it does not in Spark NLP."""
    rows = [(i, "  " if i % 60 == 7 else f"Row {i} is here. It has a second sentence.") for i in range(1000)]
    frame = spark.createDataFrame(rows, "id int, text string").coalesce(2)
    stages = [assembler(sparknlp.base), sentence_detector(), embedder.setInputCols("sentences")]
    output = Pipeline(stages=stages).fit(frame).transform(frame).collect()
    annotations = [annotation for row in output for annotation in row.instructor]
    for row in output:
        assert [annotation.result for annotation in row.instructor] == [sentence.result for sentence in row.sentences]
        assert all(annotation.result in row.text for annotation in row.instructor)
        assert bool(row.instructor) == bool(row.text.strip())
    results, vectors = zip(*((annotation.result, annotation.embeddings) for annotation in annotations), strict=True)
    assert_embedded(tiny_model, INSTRUCTION, results, vectors)


def test_their_stages_accept_the_same_model_in_another_session(spark, texts, embedder, tiny, tmp_path):
    """A classifier of Spark NLP remembers the `ref` of the embeddings that it was trained on, and checks it."""

    def check(stage):
        documents = assembler(spark_instructor).transform(texts)
        embedded = stage.setInputCols("documents").setOutputCol("instructor").transform(documents)
        columns = spark.sparkContext._gateway.new_array(spark._jvm.java.lang.String, 1)
        columns[0] = "instructor"
        classifier.validateStorageRef(embedded._jdf, columns, "sentence_embeddings")

    classifier = spark._jvm.com.johnsnowlabs.nlp.annotators.classifier.dl.ClassifierDLModel()
    classifier.setStorageRef(embedder.getStorageRef())
    check(InstructorEmbeddings.loadSavedModel(str(tiny)))
    check(InstructorEmbeddings.loadSavedModel(str(tiny)).setInstruction("Another: "))
    embedder.save(str(tmp_path / "stage"))
    check(InstructorEmbeddings.load(str(tmp_path / "stage")))
    with pytest.raises(Exception, match=r"(?i)storage.?ref|embeddings"):
        check(InstructorEmbeddings.pretrained("instructor_tiny"))


def test_light_pipeline_over_their_stages(texts, embedder, tiny_model, tmp_path):
    stages = [assembler(sparknlp.base, cleanupMode="shrink"), embedder.setInputCols("documents")]
    fitted = Pipeline(stages=[*stages, finisher(sparknlp.base)]).fit(texts)
    fitted.write().overwrite().save(str(tmp_path / "model"))
    for model in (fitted, PipelineModel.load(str(tmp_path / "model"))):
        row = LightPipeline(model).annotate(" One \n text ")
        assert (row["documents"], row["instructor"]) == (["One text"], ["One text"])
        assert_embedded(tiny_model, INSTRUCTION, ["One text"], row["vectors"])
    mixed = Pipeline(stages=[stages[0], sentence_detector().setInputCols(["documents"]), stages[1]]).fit(texts)
    with pytest.raises(TypeError, match="cannot run SentenceDetector, a stage of Spark NLP"):
        LightPipeline(mixed).annotate("One. Two.")
    assert LightPipeline(mixed).setIgnoreUnsupported(True).annotate("One. Two.")["instructor"] == ["One. Two."]


def test_annotations_compare_and_print_alike(spark):
    values = ("document", 0, 2, "One", {"sentence": "0"}, [0.5])
    ours, theirs = Annotation(*values), TheirAnnotation(*values)
    assert ours == theirs and theirs == ours and str(ours) == str(theirs)
    assert ours.copy("Two") == theirs.copy("Two") != ours
    assert TheirAnnotation.fromRow(Annotation.toRow(ours)) == ours
    row = assembler(sparknlp.base).transform(spark.createDataFrame([("One",)], "text string")).first()
    assert Annotation.fromRow(row.documents[0]) == TheirAnnotation.fromRow(row.documents[0])


@pytest.mark.parametrize("name", ["pretrained", "loadSavedModel"])
def test_signatures(name):
    theirs = inspect.signature(getattr(sparknlp.annotator.InstructorEmbeddings, name)).parameters
    assert list(inspect.signature(getattr(InstructorEmbeddings, name)).parameters)[: len(theirs)] == list(theirs)


def test_their_setters_and_getters():
    """All of them are here, except what concerns TensorFlow and their own base class."""
    base = {"setParamValue", "getParamValue", "setParams", "setConfigProtoBytes", "getConfigProtoBytes", "getEngine"}
    for stage in ("DocumentAssembler", "InstructorEmbeddings", "EmbeddingsFinisher", "LightPipeline"):
        theirs = getattr(sparknlp.annotator, stage, None) or getattr(sparknlp.base, stage)
        names = {name for name in dir(theirs) if name.startswith(("set", "get")) and name[3:4].isupper()}
        missing = {name for name in names - base if not hasattr(getattr(spark_instructor, stage), name)}
        assert not missing, stage


def test_columns_of_the_finishers_are_equal(texts, embedder):
    embedded = embedder.setInputCols("documents").transform(assembler(spark_instructor).transform(texts))
    for as_vector in (False, True):
        for clean in (False, True):
            frames = [
                finisher(library).setOutputAsVector(as_vector).setCleanAnnotations(clean).transform(embedded)
                for library in LIBRARIES
            ]
            assert frames[0].schema == frames[1].schema
            vectors = [frame.orderBy("id").select(F.col("vectors").cast("string")).collect() for frame in frames]
            assert vectors[0] == vectors[1]
