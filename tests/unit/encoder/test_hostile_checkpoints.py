"""Malformed checkpoints: each has a clear error and leaves no trace, or is accepted on purpose.

The cases are made by tests/hostile.py.
"""

import json
import os
import shutil
import tempfile
from stat import S_ISDIR

import numpy as np
import pytest
from checkpoints import write_json
from hostile import BASES, SECRET, cases

from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.models.registry import checkpoint_folder

CASES = cases()
TEXTS = ["", "a text", "ﬁne ＡＢＣ ① ½ é, and another of some more words than that", "word " * 20]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A healthy checkpoint of each kind."""
    root = tmp_path_factory.mktemp("healthy")
    for base, write in BASES.items():
        write(root / base)
    return root


@pytest.fixture(scope="module")
def healthy_vectors(healthy):
    return vectors(prepare(healthy / "safetensors"))


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A folder with a cache and a place for temporary files of its own, and a secret."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "secret.txt").write_text(SECRET)
    write_json(tmp_path / "secret.json", {"password": SECRET})
    return tmp_path


def vectors(prepared):
    return InstructorModel.load(prepared).encode("Represent the text: ", TEXTS)


def everything(place):
    """All that lies there, outside the cache, with what would tell a change."""
    return {
        # A folder's times change with a temporary file in it, such as torch's own, that is gone again.
        path: (stat.st_ino, stat.st_mode, None if S_ISDIR(stat.st_mode) else (stat.st_size, stat.st_mtime_ns))
        for folder, folders, files in os.walk(place)
        for path in (os.path.join(folder, name) for name in (*folders, *files))
        if not path.startswith(str(place / "cache"))
        for stat in [os.lstat(path)]
    }


def in_cache(place):
    return [path.name for path in (place / "cache").rglob("*") if path != place / "cache" / "spark_instructor"]


def assert_refused(place, folder, names, precision="float32"):
    before = everything(place)
    with pytest.raises(BaseException) as raised:
        prepare(folder, precision)
    message = str(raised.value)
    assert type(raised.value) in (ValueError, FileNotFoundError), repr(raised.value)[:500]
    assert str(folder) in message and names in message, message[:500]
    assert len(message) < 1000 and SECRET not in message
    assert everything(place) == before
    assert in_cache(place) == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", [case for case in CASES if not case.harmless], ids=lambda case: ascii(case.id)[1:-1])
def test_refused(healthy, place, case):
    (place / "other").symlink_to(healthy / "safetensors")
    folder = shutil.copytree(healthy / case.base, place / "checkpoint")
    case.spoil(folder)
    assert_refused(place, folder, case.names)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", [case for case in CASES if case.harmless], ids=lambda case: ascii(case.id)[1:-1])
def test_accepted_on_purpose(healthy, healthy_vectors, place, case):
    (place / "other").symlink_to(healthy / "safetensors")
    folder = shutil.copytree(healthy / case.base, place / "checkpoint")
    case.spoil(folder)
    before = everything(place)
    prepared = prepare(folder)
    assert prepared.parent == place / "cache" / "spark_instructor"
    assert everything(place) == before
    assert np.array_equal(vectors(prepared), healthy_vectors)


NAMES = ["../evil", "../../evil", "/tmp/evil", ".hidden", "a/b", "", "a\0b", "x" * 300, "\ud800", 3, True, None, [], {}]
MANIFEST = {
    **{f"name {ascii(name)[:20]}": {"name": name} for name in NAMES},
    **{f"hash {value!r}": {"hash": value} for value in ("", "../" * 20, "g" * 64, 3, None, [])},
    **{f"precision {value!r}": {"precision": value} for value in ("float16", "", 3, None, [])},
    **{f"max_length {value!r}": {"max_length": value} for value in (True, 1, -1, 0.5, "512", None, [])},
    **{f"architecture {value!r}": {"architecture": value} for value in (None, 3, [], {}, {"d_model": 1})},
    **{
        f"{key} {value!r}": {key: value}
        for key in ("files", "sizes")
        for value in (None, 3, [], {}, {"../secret.txt": 1}, {"model.safetensors": [], "tokenizer.json": "x"})
    },
}


@pytest.mark.parametrize("changes", MANIFEST.values(), ids=MANIFEST)
def test_prepared_folder_refused(healthy, place, changes):
    """A name or a hash that leads out of the cache would be written to when it is narrowed."""
    folder = prepare(healthy / "safetensors", into=place / "checkpoint")
    manifest = json.loads((folder / "prepared.json").read_text("utf-8"))
    write_json(folder / "prepared.json", {**manifest, **changes})
    assert_refused(place, folder, "prepared.json", "bfloat16")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"PK"])
def test_prepared_weights_refused(healthy, place, content):
    folder = prepare(healthy / "safetensors", into=place / "checkpoint")
    (folder / "model.safetensors").write_bytes(content)
    manifest = json.loads((folder / "prepared.json").read_text("utf-8"))
    manifest["sizes"]["model.safetensors"] = len(content)
    write_json(folder / "prepared.json", manifest)
    assert_refused(place, folder, "model.safetensors", "bfloat16")


@pytest.mark.parametrize("name", ["x" * 255, " ", "a b", "\n", ".hidden", "~", "ﬁ", "-rf", "models--a--b", "*"])
def test_name_of_a_folder(healthy, healthy_vectors, place, name):
    """A folder may be called anything; what is made of it gets a plain name, in the cache."""
    prepared = prepare(shutil.copytree(healthy / "safetensors", place / "in" / name))
    assert prepared.parent == place / "cache" / "spark_instructor"
    assert prepared.name.isascii() and prepared.name.isprintable() and len(prepared.name) < 200
    assert np.array_equal(vectors(prepared), healthy_vectors)


@pytest.mark.parametrize(
    "name",
    ["~nobody-of-this-name/model", "/" + "x" * 5000, "/nowhere/\0", "/nowhere/\ud800", "../nowhere", "", "\0"],
    ids=lambda name: ascii(name)[:30],
)
def test_name_of_no_folder(place, name):
    for use in (checkpoint_folder, prepare):
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            use(name)
        assert type(raised.value) in (ValueError, FileNotFoundError)
    assert in_cache(place) == []
