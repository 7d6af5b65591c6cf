"""`prepare` refuses malformed checkpoints with a clear error and leaves nothing behind; it accepts harmless oddities.

The cases are in tests/hostile. Each case is a subtest, so a failure names its case and the others still run.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from stat import S_ISDIR

import numpy as np
import pytest
from checkpoints import write_json
from hostile import KINDS
from hostile.case import SECRET, write_healthy

from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.models.registry import find_checkpoint

TEXTS = ["", "a text", "ﬁne ＡＢＣ ① ½ é, and another of some more words than that", "word " * 20]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Return a folder that contains every healthy checkpoint."""
    root = tmp_path_factory.mktemp("healthy")
    write_healthy(root)
    return root


@pytest.fixture(scope="module")
def healthy_vectors(healthy):
    return vectors(prepare(healthy / "safetensors"))


@pytest.fixture
def place(tmp_path):
    with new_place(tmp_path / "place") as place:
        yield place


@contextmanager
def new_place(place):
    """Create a working folder with its own cache, temporary folder and secret, and remove it afterwards."""
    (place / "tmp").mkdir(parents=True)
    (place / "secret.txt").write_text(SECRET)
    write_json(place / "secret.json", {"password": SECRET})
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HOME", str(place / "cache"))
            patch.setattr(tempfile, "tempdir", str(place / "tmp"))
            patch.chdir(place)
            yield place
    finally:
        shutil.rmtree(place)


def vectors(prepared):
    return InstructorModel.load(prepared).encode("Represent the text: ", TEXTS)


def list_everything(place):
    """List everything in a working folder except its cache, with the attributes that would reveal a change."""
    return {
        # The times of a folder are left out: a temporary file, such as torch's, changes them and is then removed.
        path: (stat.st_ino, stat.st_mode, None if S_ISDIR(stat.st_mode) else (stat.st_size, stat.st_mtime_ns))
        for folder, folders, files in os.walk(place)
        for path in (os.path.join(folder, name) for name in (*folders, *files))
        if not path.startswith(str(place / "cache"))
        for stat in [os.lstat(path)]
    }


def names_in_cache(place):
    return [path.name for path in (place / "cache").rglob("*") if path != place / "cache" / "spark_instructor"]


def assert_refused(place, folder, error_names, precision):
    before = list_everything(place)
    with pytest.raises(BaseException) as raised:
        prepare(folder, precision)
    message = str(raised.value)
    assert type(raised.value) in (ValueError, FileNotFoundError), repr(raised.value)[:500]
    assert str(folder) in message and error_names in message, message[:500]
    assert len(message) < 1000 and SECRET not in message
    assert list_everything(place) == before
    assert names_in_cache(place) == []


def assert_accepted(place, folder, healthy_vectors):
    before = list_everything(place)
    prepared = prepare(folder)
    assert prepared.parent == place / "cache" / "spark_instructor"
    assert list_everything(place) == before
    assert np.array_equal(vectors(prepared), healthy_vectors)


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:.*nested tensors", "ignore:.*quantize")
@pytest.mark.parametrize("kind", KINDS)
def test_refused_or_accepted(subtests, healthy, healthy_vectors, tmp_path, kind):
    names = set()
    for case in KINDS[kind]():
        with subtests.test(case.name), new_place(tmp_path / "place") as place:
            assert case.name not in names, "another case has this name"
            names.add(case.name)
            (place / "other").symlink_to(healthy / "safetensors")
            folder = shutil.copytree(healthy / case.checkpoint, place / "checkpoint")
            case.apply(folder)
            if case.error_names is None:
                assert_accepted(place, folder, healthy_vectors)
            else:
                # `prepare` would use a prepared float32 folder as it is; another precision makes it write a new one.
                precision = "bfloat16" if case.checkpoint == "prepared" else "float32"
                assert_refused(place, folder, case.error_names, precision)


NAMES = ["x" * 255, " ", "a b", "\n", ".hidden", "~", "ﬁ", "-rf", "models--a--b", "*"]


def test_name_of_a_folder(subtests, healthy, healthy_vectors, place):
    """A checkpoint's folder may have any name; the prepared folder in the cache gets a plain one."""
    for name in NAMES:
        with subtests.test(name=ascii(name)[:30]):
            prepared = prepare(shutil.copytree(healthy / "safetensors", place / "in" / name))
            assert prepared.parent == place / "cache" / "spark_instructor"
            assert prepared.name.isascii() and prepared.name.isprintable() and len(prepared.name) < 200
            assert np.array_equal(vectors(prepared), healthy_vectors)


NO_NAMES = ["~nobody-of-this-name/model", "/" + "x" * 5000, "/nowhere/\0", "/nowhere/\ud800", "../nowhere", "", "\0"]


def test_name_of_no_folder(subtests, place):
    for name in NO_NAMES:
        for use in (find_checkpoint, prepare):
            with subtests.test(name=ascii(name)[:30], function=use.__name__):
                with pytest.raises((ValueError, FileNotFoundError)) as raised:
                    use(name)
                assert type(raised.value) in (ValueError, FileNotFoundError)
    assert names_in_cache(place) == []
