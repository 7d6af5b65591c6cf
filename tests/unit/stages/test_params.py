"""The Params of all stages: defaults, setters, getters, keyword constructors, and the values that they refuse."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from checkpoints import copy_tiny, edit_json

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings
from spark_instructor.encoder import prepare

STAGES = [DocumentAssembler, InstructorEmbeddings, EmbeddingsFinisher]
REQUIRED, FROM_CHECKPOINT = object(), object()

# The stage, the Param, its default, and another valid value.
PARAMS = [
    (DocumentAssembler, "inputCol", REQUIRED, "text"),
    (DocumentAssembler, "outputCol", "document", "documents"),
    (DocumentAssembler, "idCol", None, "id"),
    (DocumentAssembler, "metadataCol", None, "metadata"),
    (DocumentAssembler, "cleanupMode", "disabled", "shrink_full"),
    (InstructorEmbeddings, "inputCols", REQUIRED, ["title", "body"]),
    (InstructorEmbeddings, "outputCol", REQUIRED, "instructor"),
    (InstructorEmbeddings, "outputCols", REQUIRED, ["title_vector", "body_vector"]),
    (InstructorEmbeddings, "model", "instructor_base", "hkunlp/instructor-xl"),
    (InstructorEmbeddings, "revision", None, "0123abc"),
    (InstructorEmbeddings, "instruction", "", "Represent the title: "),
    (InstructorEmbeddings, "instructionCol", None, "instruction"),
    (InstructorEmbeddings, "batchSize", None, 32),
    (InstructorEmbeddings, "maxSentenceLength", FROM_CHECKPOINT, 128),
    (InstructorEmbeddings, "precision", FROM_CHECKPOINT, "bfloat16"),
    (InstructorEmbeddings, "device", "auto", "cuda"),
    (InstructorEmbeddings, "longText", "truncate", "average"),
    (InstructorEmbeddings, "outputType", "float", "half"),
    (InstructorEmbeddings, "errorCol", None, "error"),
    (InstructorEmbeddings, "distinct", False, True),
    (InstructorEmbeddings, "sharedFolder", None, "/mnt/models"),
    (InstructorEmbeddings, "dimension", FROM_CHECKPOINT, 768),
    (InstructorEmbeddings, "storageRef", FROM_CHECKPOINT, "titles"),
    (InstructorEmbeddings, "caseSensitive", False, True),
    (InstructorEmbeddings, "lazyAnnotator", False, True),
    (EmbeddingsFinisher, "inputCols", REQUIRED, ["instructor"]),
    (EmbeddingsFinisher, "outputCols", REQUIRED, ["vectors"]),
    (EmbeddingsFinisher, "outputAsVector", False, True),
    (EmbeddingsFinisher, "cleanAnnotations", False, True),
]

# The stage, the Param, a bad value, and the type and text of the error.
BAD = [
    (DocumentAssembler, "cleanupMode", "tidy", ValueError, "cleanupMode is 'tidy', expected one of disabled, inplace"),
    (InstructorEmbeddings, "precision", "float16", ValueError, "precision is 'float16', expected one of float32, bf"),
    (InstructorEmbeddings, "device", "tpu", ValueError, "device is 'tpu', expected one of auto, cpu, cuda"),
    (InstructorEmbeddings, "longText", ["average"], ValueError, "longText is .*, expected one of truncate, average"),
    (
        InstructorEmbeddings,
        "outputType",
        "int4",
        ValueError,
        "outputType is 'int4', expected one of float, vector",
    ),
    (InstructorEmbeddings, "batchSize", 0, ValueError, "batchSize is 0, expected at least 1"),
    (InstructorEmbeddings, "batchSize", 1.5, TypeError, "batchSize"),
    (InstructorEmbeddings, "batchSize", "8", TypeError, "batchSize"),
    (InstructorEmbeddings, "maxSentenceLength", 1, ValueError, "maxSentenceLength is 1, expected at least 2"),
    (InstructorEmbeddings, "inputCols", 1, TypeError, "inputCols"),
    (InstructorEmbeddings, "caseSensitive", "no", TypeError, "caseSensitive"),
    (EmbeddingsFinisher, "cleanAnnotations", 1, TypeError, "cleanAnnotations"),
]

each_param = pytest.mark.parametrize(
    ("stage", "name", "default", "value"), PARAMS, ids=[f"{stage.__name__}.{name}" for stage, name, *_ in PARAMS]
)


def setter(stage, name):
    return getattr(stage, f"set{name[0].upper()}{name[1:]}")


def getter(stage, name):
    return getattr(stage, f"get{name[0].upper()}{name[1:]}")


@pytest.mark.parametrize("stage", STAGES)
def test_every_param_is_in_the_table(stage):
    assert {param.name for param in stage().params} == {name for owner, name, *_ in PARAMS if owner is stage}


@each_param
def test_default(stage, name, default, value):
    new = stage()
    if default is REQUIRED:
        with pytest.raises(ValueError, match=rf"{stage.__name__} needs \w+: call set\w+\("):
            getter(new, name)()
    elif default is FROM_CHECKPOINT:
        assert not new.isDefined(name)
    else:
        assert getter(new, name)() == default


def test_defaults_from_the_checkpoint(tiny):
    stage = InstructorEmbeddings.loadSavedModel(str(tiny))
    assert (stage.getMaxSentenceLength(), stage.getPrecision(), stage.getDimension()) == (512, "float32", 64)


def test_the_checkpoint_names_the_embeddings(tiny, tmp_path):
    """A classifier that was trained on these embeddings accepts them in every session, and no others."""
    first, second = (InstructorEmbeddings.loadSavedModel(str(tiny)) for _ in range(2))
    assert first.uid != second.uid
    assert re.fullmatch("tiny-[0-9a-f]{16}", first.getStorageRef())
    assert second.setInstruction("Represent: ").getStorageRef() == first.getStorageRef()
    assert first.copy().setPrecision("int8").getStorageRef() != first.getStorageRef()
    other = copy_tiny(tmp_path / "tiny")
    edit_json(other / "sentence_bert_config.json", max_seq_length=128)
    assert InstructorEmbeddings.loadSavedModel(str(other)).getStorageRef() != first.getStorageRef()


def test_setters_refuse_what_a_known_checkpoint_does_not_do(tiny, tmp_path):
    """A prepared folder or a known name tells the limits; of other checkpoints `transform` finds them out."""
    prepared = str(prepare(tiny, into=tmp_path / "prepared"))
    for model, name, dimension in [(prepared, "tiny", 64), ("instructor_base", "instructor_base", 768)]:
        stage = InstructorEmbeddings(model=model)
        with pytest.raises(ValueError, match=f"maxSentenceLength is 5000, but '{name}' reads at most 512 tokens"):
            stage.setMaxSentenceLength(5000)
        with pytest.raises(ValueError, match=f"dimension is 5, but the vectors of '{name}' have {dimension} floats"):
            stage.setDimension(5)
        assert not stage.isSet("maxSentenceLength") and not stage.isSet("dimension")
        assert stage.setMaxSentenceLength(512).setDimension(dimension).getDimension() == dimension
    for settings in ({"model": "owner/model"}, {"revision": "main"}, {}):  # without a model, its setter may follow
        stage = InstructorEmbeddings(**settings)
        assert stage.setMaxSentenceLength(5000).setDimension(5).getMaxSentenceLength() == 5000


def test_spark_nlps_signatures(tiny):
    assert InstructorEmbeddings.pretrained("instructor_base", "en", None, "onnx").getModel() == "instructor_base"
    assert InstructorEmbeddings.loadSavedModel(str(tiny), spark_session=None).getModel() == str(tiny)


@pytest.mark.parametrize("number", [np.int64(32), np.int32(32), np.uint8(32), np.float64(32)])
def test_numbers_of_numpy(number):
    assert type(InstructorEmbeddings(batchSize=number).getBatchSize()) is int
    assert InstructorEmbeddings().setMaxSentenceLength(number).getMaxSentenceLength() == 32


def test_strings_and_booleans_of_numpy():
    """What is set can be saved, as JSON."""
    stage = InstructorEmbeddings(instruction=np.str_("a"), inputCols=np.array(["b", "c"]), precision=np.str_("int8"))
    stage.setOutputCol(np.str_("d")).setCaseSensitive(np.bool_(True))
    stage.setOutputCols(pd.Index(["d"]))
    values = [stage.getInstruction(), *stage.getInputCols(), stage.getPrecision(), *stage.getOutputCols()]
    assert type(stage.getInstruction()) is str
    assert json.loads(json.dumps([*values, stage.getCaseSensitive()])) == ["a", "b", "c", "int8", "d", True]


@each_param
def test_set_and_get(stage, name, default, value):
    new = stage()
    from_map = new.copy({getattr(new, name): value})
    assert setter(new, name)(value) is new
    for instance in (new, new.copy(), from_map, stage(**{name: value})):
        assert getter(instance, name)() == value


@each_param
def test_none_is_not_set(stage, name, default, value):
    assert not stage(**{name: None}).isSet(name)
    assert not setter(stage(**{name: value}), name)(None).isSet(name)


@pytest.mark.parametrize(("stage", "name", "value", "error", "text"), BAD)
def test_bad_values(stage, name, value, error, text):
    new = stage()
    for attempt in (
        lambda: stage(**{name: value}),
        lambda: setter(new, name)(value),
        lambda: new.copy({getattr(new, name): value}),
    ):
        with pytest.raises(error, match=text):
            attempt()
    assert not new.isSet(name)


@pytest.mark.parametrize("stage", [InstructorEmbeddings, EmbeddingsFinisher])
@pytest.mark.parametrize("name", ["inputCols", "outputCols"])
def test_column_names_as_str_varargs_or_list(stage, name):
    for arguments in [("a",), (["a"],), (("a",),)]:
        assert getter(setter(stage(), name)(*arguments), name)() == ["a"]
    for arguments in [("a", "b"), (["a", "b"],)]:
        assert getter(setter(stage(), name)(*arguments), name)() == ["a", "b"]
    assert getter(stage(**{name: "a"}), name)() == ["a"]


def test_no_column_names():
    with pytest.raises(ValueError, match=r"EmbeddingsFinisher needs inputCols: call setInputCols\("):
        EmbeddingsFinisher(inputCols=[]).getInputCols()


def test_finished_columns_have_default_names():
    assert EmbeddingsFinisher(inputCols=["a", "b"]).getOutputCols() == ["finished_a", "finished_b"]


@pytest.mark.parametrize("stage", STAGES)
def test_explain_params(stage):
    text = stage().explainParams()
    assert all(f"{name}: " in text for owner, name, *_ in PARAMS if owner is stage)
    assert "device: auto, cpu or cuda; the executor resolves auto (default: auto, current: cpu)" in (
        InstructorEmbeddings(device="cpu").explainParams()
    )


@pytest.mark.parametrize("stage", STAGES)
def test_pickle(stage):
    original = stage()
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is stage
    assert copy.explainParams() == original.explainParams()


class OwnEmbeddings(InstructorEmbeddings):
    """A stage that a user derived."""


def test_a_derived_class_stays_in_its_module():
    """Spark ML saves the path of a class in a pipeline, and pickle looks it up."""
    assert OwnEmbeddings.__module__ == __name__ != InstructorEmbeddings.__module__
    assert isinstance(pickle.loads(pickle.dumps(OwnEmbeddings())), OwnEmbeddings)


def test_copies_are_apart():
    stage = InstructorEmbeddings(instruction="one")
    copy = stage.copy().setInstruction("two")
    assert (stage.getInstruction(), copy.getInstruction()) == ("one", "two")
    assert copy.uid == stage.uid


def test_a_known_name_is_no_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tiny, "int8", into="instructor_base")
    assert InstructorEmbeddings.pretrained("instructor_base").getPrecision() == "float32"
    assert InstructorEmbeddings.loadSavedModel("./instructor_base").getPrecision() == "int8"


def test_precision_asks_no_hub(tiny, tmp_path):
    assert InstructorEmbeddings.pretrained("owner/not-downloaded").getPrecision() == "float32"
    prepared = prepare(tiny, "bfloat16", into=tmp_path / "prepared")
    stage = InstructorEmbeddings.loadSavedModel(str(prepared))
    assert (stage.getPrecision(), stage.getDimension()) == ("bfloat16", 64)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: InstructorEmbeddings(inputCol="text"), TypeError, "no parameter 'inputCol'; did you mean 'inputCols'"),
        (lambda: InstructorEmbeddings().setInputCol, AttributeError, "'setInputCol'; did you mean 'setInputCols'"),
        (lambda: DocumentAssembler().setInputCols, AttributeError, "'setInputCols'; did you mean 'setInputCol'"),
        (lambda: InstructorEmbeddings().compute, AttributeError, "no attribute 'compute'$"),
        (lambda: InstructorEmbeddings().transform(["a text"]), TypeError, "takes a Spark DataFrame, got a list"),
        (
            lambda: EmbeddingsFinisher().transform(pd.DataFrame()),
            TypeError,
            "got a DataFrame. Convert a DataFrame of pandas",
        ),
        (
            lambda: InstructorEmbeddings.loadSavedModel("models/x"),
            FileNotFoundError,
            "no checkpoint folder /.*models/x",
        ),
    ],
)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
