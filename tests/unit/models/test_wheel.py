"""Wheels of models: what they contain, and what pip installs from them."""

import base64
import hashlib
import zipfile
from importlib.metadata import distribution

import pytest
from checkpoints import write_checkpoint
from wheels import install_wheel

from spark_instructor.encoder import prepare_model
from spark_instructor.models.prepared import read_prepared
from spark_instructor.models.registry import find_checkpoint
from spark_instructor.models.wheel import build_wheel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "My.Model")


@pytest.fixture(scope="module")
def model(checkpoint, own_cache):
    return prepare_model(checkpoint, "bfloat16")


def test_pip_installs_it(checkpoint, model, tmp_path, monkeypatch):
    wheel = build_wheel(model, checkpoint, tmp_path / "new" / "dist")
    version = f"1+bfloat16.sha{model.content_hash[:12]}"
    assert wheel == tmp_path / "new" / "dist" / f"spark_instructor_my_model-{version}-py3-none-any.whl"
    assert list(wheel.parent.iterdir()) == [wheel]
    install_wheel(wheel, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed = distribution("spark-instructor-my-model")
    assert (installed.version, installed.requires) == (version, ["spark-instructor-embeddings"])
    folder = tmp_path / "site" / "spark_instructor_my_model"
    prepared = read_prepared(folder)
    prepared.verify()
    assert prepared.folder_name == model.folder_name


def test_record_is_right(checkpoint, model, tmp_path):
    """Some installers check RECORD, but pip does not."""
    with zipfile.ZipFile(build_wheel(model, checkpoint, tmp_path)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
        (record,) = (name for name in contents if name.endswith(".dist-info/RECORD"))
        expected = {f"{record},,"}
        for name in contents.keys() - {record}:
            digest = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).decode().rstrip("=")
            expected.add(f"{name},sha256={digest},{len(contents[name])}")
    assert set(contents[record].decode().splitlines()) == expected
    assert list(contents)[-1] == record


def test_model_card_and_license_travel_along(model, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "documented")
    texts = {"README.md": "a card", "LICENSE": "a license", "LICENCE.txt": "another", "NOTICE": "a notice"}
    for name, text in texts.items():
        (checkpoint / name).write_text(text)
    wheel = build_wheel(model, checkpoint, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        found = {name.rsplit("/", 1)[-1]: name for name in archive.namelist()}
        assert {name: archive.read(found[name]).decode() for name in texts} == texts
        assert found["README.md"] == "spark_instructor_my_model/README.md"
        licenses = set(texts) - {"README.md"}
        assert all(found[name].endswith(f".dist-info/licenses/{name}") for name in licenses)
        metadata = archive.read(found["METADATA"]).decode()
        assert all(f"\nLicense-File: {name}\n" in metadata for name in licenses)


def test_same_model_same_bytes(checkpoint, model, tmp_path):
    """Two machines that build a wheel of the same model get the same bytes; another precision gives another name."""
    first, second = (build_wheel(model, checkpoint, tmp_path / name) for name in ("first", "second"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    assert build_wheel(prepare_model(checkpoint), checkpoint, tmp_path).name != first.name


def test_the_packaged_model_needs_no_wheel(tmp_path):
    tiny = find_checkpoint("instructor_tiny")
    with pytest.raises(ValueError, match="instructor_tiny comes with spark-instructor-embeddings"):
        build_wheel(prepare_model(tiny), tiny, tmp_path)


def test_no_wheel_replaces_this_package(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "Embeddings")
    with pytest.raises(ValueError, match="a wheel of 'Embeddings' would replace spark-instructor-embeddings itself"):
        build_wheel(prepare_model(checkpoint), checkpoint, tmp_path)
