"""The prepared folder: how it is read, checked, listed and named."""

import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from checkpoints import edit_json, write_checkpoint

from spark_instructor import list_prepared
from spark_instructor.encoder import preparation, prepare
from spark_instructor.models.prepared import get_cache_dir, read_prepared
from spark_instructor.models.publishing import publish_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "model", num_layers=1)


@pytest.fixture
def prepared(checkpoint, tmp_path):
    return prepare(checkpoint, into=tmp_path / "prepared")


class TestRead:
    def test_what_it_says(self, prepared):
        model = read_prepared(prepared)
        assert (model.path, model.name, model.precision, model.dimension) == (prepared, "model", "float32", 24)
        assert model.architecture.num_layers == 1
        assert model.folder_name == f"model-float32-{model.content_hash[:16]}"

    def test_key_is_of_the_content(self, prepared):
        """The hash that a manifest claims has no effect on the name, so a folder cannot pretend to be another model."""
        model = read_prepared(prepared)
        assert dataclasses.replace(model, hash="0" * 64).folder_name == model.folder_name
        assert dataclasses.replace(model, max_length=99).folder_name != model.folder_name
        assert (
            dataclasses.replace(model, file_hashes={**model.file_hashes, "tokenizer.json": "0" * 64}).folder_name
            != model.folder_name
        )

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "prepared.json"])
    def test_missing_file(self, prepared, name):
        (prepared / name).unlink()
        with pytest.raises(FileNotFoundError, match=name) as raised:
            read_prepared(prepared)
        assert str(prepared) in str(raised.value)

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
    def test_cut_file(self, prepared, name):
        os.truncate(prepared / name, 100)
        with pytest.raises(ValueError, match=rf"{name} has 100 bytes, expected .* Delete the folder"):
            read_prepared(prepared)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere is not a prepared model"):
            read_prepared(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "content", [b"", b"[]", b"null", b"{}", b'{"format_version": 1}', b'{"format_version": 1', b"\xff\xfe"]
    )
    def test_damaged_manifest(self, prepared, content):
        (prepared / "prepared.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"prepared\.json is damaged .* prepare it again"):
            read_prepared(prepared)

    @pytest.mark.parametrize(
        "changes", [{"architecture": {"d_model": 1}}, {"architecture": 3}, {"max_length": 2**27}], ids=str
    )
    def test_wrong_kind_in_manifest(self, prepared, changes):
        edit_json(prepared / "prepared.json", **changes)
        with pytest.raises(ValueError, match=r"prepared\.json is damaged"):
            read_prepared(prepared)

    def test_another_format_version(self, prepared):
        edit_json(prepared / "prepared.json", format_version=99)
        with pytest.raises(ValueError, match=r"format version 99; .* reads version 1\. Install the same version"):
            read_prepared(prepared)

    def test_later_fields_are_ignored(self, prepared):
        before = read_prepared(prepared)
        edit_json(prepared / "prepared.json", a_later_field=1)
        assert read_prepared(prepared) == before

    def test_verify(self, prepared):
        """`read_prepared` checks the sizes of the files, and `verify` their contents."""
        read_prepared(prepared).verify()
        with (prepared / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        with pytest.raises(ValueError, match=r"model\.safetensors was changed after it was prepared"):
            read_prepared(prepared).verify()


class TestList:
    def test_by_name(self, checkpoint, tmp_path):
        for name, precision in (("b", "float32"), ("a", "bfloat16")):
            prepare(checkpoint, precision, into=tmp_path / name)
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        assert [(model.path.name, model.precision) for model in list_prepared(tmp_path)] == [
            ("a", "bfloat16"),
            ("b", "float32"),
        ]

    def test_cache(self, monkeypatch, checkpoint, tmp_path):
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        assert list_prepared() == []
        path = prepare(checkpoint)
        assert [model.path for model in list_prepared()] == [path]

    def test_half_written_is_not_listed(self, prepared):
        with publish_folder(prepared.parent / "new") as new:
            for file in prepared.iterdir():
                (new / file.name).write_bytes(file.read_bytes())
            assert [model.path for model in list_prepared(prepared.parent)] == [prepared]
        assert len(list_prepared(prepared.parent)) == 2

    def test_one_bad_folder(self, prepared, checkpoint):
        """The other folders are listed, and a warning names the damaged one."""
        bad = prepare(checkpoint, into=prepared.parent / "bad")
        edit_json(bad / "prepared.json", format_version=99)
        with pytest.warns(UserWarning, match=r"bad has format version 99"):
            assert [model.path for model in list_prepared(prepared.parent)] == [prepared]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (bad / "prepared.json").unlink()
            list_prepared(prepared.parent)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HOME": "/models"}, "/models/spark_instructor"),
        ({"HF_HOME": "~/models"}, "~/models/spark_instructor"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/huggingface/spark_instructor"),
        ({"HF_HOME": "$HOME/models"}, "~/models/spark_instructor"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": ""}, "~/.cache/huggingface/spark_instructor"),
        ({"HF_HOME": "models"}, "~/here/models/spark_instructor"),
        ({}, "~/.cache/huggingface/spark_instructor"),
    ],
    ids=str,
)
def test_cache_dir(monkeypatch, tmp_path, variables, folder):
    """The cache is beside the one of huggingface_hub, whatever the environment says about that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert get_cache_dir() == Path(folder).expanduser()


class TestNoCache:
    """The cache cannot be written, as in containers whose user has no home folder."""

    @pytest.fixture
    def fallback(self, tmp_path, monkeypatch):
        for name in ("HF_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        return tmp_path / "tmp" / f"spark_instructor-prepared-{os.getuid()}"

    def test_no_home(self, fallback, monkeypatch):
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        with pytest.warns(UserWarning, match="the home folder cannot be written.*Set HF_HOME"):
            assert get_cache_dir() == fallback

    def test_home_is_no_folder(self, fallback, monkeypatch, tiny):
        monkeypatch.setenv("HF_HOME", "/dev/null")
        with pytest.warns(UserWarning, match="/dev/null/spark_instructor cannot be written"):
            assert prepare(tiny).parent == fallback
        with pytest.warns(UserWarning, match="cannot be written"):
            assert [model.path.parent for model in list_prepared()] == [fallback]

    def test_a_cache_that_can_only_be_read(self, fallback, monkeypatch, tiny, tmp_path):
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        prepared = prepare(tiny)
        preparation._prepared_models.clear()  # as in another process
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root can write everywhere
        assert prepare(tiny) == prepared
        with pytest.warns(UserWarning, match="cannot be written"):
            other = prepare(tiny, precision="bfloat16")
        assert other.parent == fallback
        with pytest.warns(UserWarning, match="cannot be written"):
            assert {model.path for model in list_prepared()} == {prepared, other}


def test_needs_no_torch(prepared):
    """Drivers read manifests and should not have to import torch for that."""
    code = "import sys; from spark_instructor.models.prepared import read_prepared; read_prepared(sys.argv[1]); "
    code += "assert not {'torch', 'numpy', 'pyspark'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, prepared], check=True)
