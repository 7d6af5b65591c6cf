"""Writing folders and files: what readers see, and what happens on mounts that refuse calls."""

import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from checkpoints import STORED_AS, write_checkpoint
from refusing_mount import RefusingMount, needs_compiler
from vectors import assert_embedded

from spark_instructor.encoder import InstructorModel, prepare, prepare_model
from spark_instructor.models.host_cache import ModelLocation, locate_model
from spark_instructor.models.prepared import MANIFEST, TOKENIZER, WEIGHTS, read_prepared
from spark_instructor.models.publishing import is_free, publish_file, publish_folder

FILES = {MANIFEST, TOKENIZER, WEIGHTS}


def list_names(folder):
    return {path.name for path in folder.iterdir()}


class TestPublishFolder:
    def test_takes_its_name_at_the_end(self, tmp_path):
        final = tmp_path / "a" / "b"
        with publish_folder(final) as new:
            (new / "file").write_text("content")
            assert not final.exists()
        assert (final / "file").read_text() == "content"
        assert list(final.parent.iterdir()) == [final]

    def test_what_a_killed_process_left_goes_a_day_later(self, tmp_path):
        final, left, young, other = (tmp_path / name for name in ("b", ".b-left", ".b-young", ".c-left"))
        for folder in (left, young, other):
            folder.mkdir()
        for folder in (left, other):
            os.utime(folder, (1, 1))
        with publish_folder(final):
            pass
        assert {*tmp_path.iterdir()} == {final, young, other}

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_leaves_nothing_after_an_error(self, tmp_path, error):
        with pytest.raises(error), publish_folder(tmp_path / "final") as new:
            (new / "file").write_text("content")
            raise error
        assert list(tmp_path.iterdir()) == []

    def test_first_one_stays(self, tiny, tmp_path):
        prepared = prepare(tiny, into=tmp_path / "prepared")
        before = {path.name: path.stat().st_ino for path in prepared.iterdir()}
        with publish_folder(prepared) as new:
            (new / MANIFEST).write_text("{}")
        assert {path.name: path.stat().st_ino for path in prepared.iterdir()} == before
        assert list(tmp_path.iterdir()) == [prepared]

    def test_does_not_replace_another_folder(self, tmp_path):
        (tmp_path / "final").mkdir()
        (tmp_path / "final" / "mine").write_text("content")
        with pytest.raises(OSError, match="final"), publish_folder(tmp_path / "final") as new:
            (new / MANIFEST).write_text("{}")
        assert list_names(tmp_path / "final") == {"mine"}


class TestRefusedCalls:
    """The calls that mounts refuse, refused here by Python; `TestRefusingMount` has a folder that refuses them all."""

    @pytest.fixture
    def local(self, tmp_path, monkeypatch):
        """The temporary files of this machine."""
        local = tmp_path / "local"
        local.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(local))
        return local

    def test_permissions(self, tiny, tmp_path, monkeypatch):
        def refuse(path, mode):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)

        monkeypatch.setattr(os, "chmod", refuse)
        monkeypatch.setattr(Path, "chmod", refuse)
        read_prepared(prepare(tiny, into=tmp_path / "parent" / "prepared")).verify()

    def test_renames_of_folders(self, tiny, tmp_path, local, monkeypatch):
        final = tmp_path / "mount" / "prepared"
        copied = self.refuse_renames(monkeypatch)
        read_prepared(prepare(tiny, into=final)).verify()
        assert {source.parent.parent for source in copied} == {local}
        assert len(copied) == len(FILES) and copied[-1].name == MANIFEST
        assert list_names(final) == FILES
        assert list_names(final.parent) == {"prepared"} and list_names(local) == set()

    def test_a_process_is_killed_while_it_copies(self, tiny, tmp_path, local, monkeypatch):
        final = tmp_path / "mount" / "prepared"
        self.refuse_renames(monkeypatch, kill_at=MANIFEST)
        with pytest.raises(KeyboardInterrupt):
            prepare(tiny, into=final)
        assert is_free(final) and not (final / MANIFEST).exists()
        self.refuse_renames(monkeypatch)
        read_prepared(prepare(tiny, into=final)).verify()
        assert list_names(final) == FILES and not is_free(final)

    def test_mapping(self, tiny, tiny_model, tmp_path, local, monkeypatch):
        def refuse(*arguments, **options):
            raise OSError(errno.ENODEV, "No such device")

        model = prepare_model(tiny, into=tmp_path / "mount" / "prepared")
        monkeypatch.setattr("mmap.mmap", refuse)
        location = ModelLocation("tiny", model.folder_name, path=str(model.path), archive=None)
        copy = Path(locate_model(location, prepare=prepare_model).folder)
        assert copy.is_relative_to(local) and copy.name == model.folder_name
        read_prepared(copy).verify()
        assert_embedded(tiny_model, "", ["a text"], InstructorModel.load(model.path).encode("", ["a text"]))

    def test_a_file(self, tmp_path, local, monkeypatch):
        def refuse(path, target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(Path, "replace", refuse)
        with publish_file(tmp_path / "made" / "file") as new:
            new.write_text("content")
        assert (tmp_path / "made" / "file").read_text() == "content"
        assert list_names(tmp_path / "made") == {"file"}

    @staticmethod
    def refuse_renames(monkeypatch, kill_at=None):
        """Refuse to rename folders, and return the list of the files that are copied."""
        copied = []

        def refuse(path, target):
            raise OSError(errno.EPERM, "Operation not permitted", path)

        def copy(source, target):
            if source.name == kill_at:
                raise KeyboardInterrupt
            copied.append(source)
            target.write_bytes(source.read_bytes())

        monkeypatch.setattr(Path, "rename", refuse)
        monkeypatch.setattr(shutil, "copyfile", copy)
        return copied


@needs_compiler
class TestRefusingMount:
    """Everything that reads or writes models works on a mount that refuses calls."""

    @pytest.fixture
    def mount(self, tmp_path):
        return RefusingMount(tmp_path)

    def test_prepare_into_the_mount_and_load_from_it(self, tiny, tiny_model, mount):
        code = """
from spark_instructor.encoder import InstructorModel, prepare
prepared = prepare(sys.argv[1], into=mount / "models" / "prepared")
assert prepare(sys.argv[1], into=prepared) == prepared
print(InstructorModel.load(prepared).encode("", ["a text"]).tolist())
"""
        printed = mount.run(code, tiny)
        assert mount.list_files() == {f"models/prepared/{name}" for name in FILES}
        assert_embedded(tiny_model, "", ["a text"], json.loads(printed))

    @pytest.mark.parametrize("stored_as", STORED_AS)
    def test_a_checkpoint_and_the_cache(self, mount, stored_as):
        checkpoint = write_checkpoint(mount.path / "checkpoint", stored_as=stored_as)
        code = """
from spark_instructor.encoder import InstructorModel
model = InstructorModel.from_pretrained(mount / "checkpoint", precision="bfloat16")
assert model.prepared.path.is_relative_to(mount / "hf")
print(model.encode("", ["a text"]).tolist())
"""
        printed = mount.run(code, HF_HOME=mount.path / "hf")
        model = InstructorModel.from_pretrained(checkpoint, precision="bfloat16")
        assert_embedded(model, "", ["a text"], json.loads(printed))

    def test_workers_share_one_copy_in_the_cache_of_the_host(self, tiny, mount, tmp_path):
        """The weights are hashed once, although every process sees other inodes."""
        prepared = prepare_model(tiny, into=mount.path / "prepared")
        code = """
from spark_instructor.encoder import InstructorModel, prepare_model
from spark_instructor.models import prepared
from spark_instructor.models.host_cache import ModelLocation, locate_model
hash_file = prepared.hash_file
prepared.hash_file = lambda path: print("hashed", path.name) or hash_file(path)
location = ModelLocation("tiny", sys.argv[1], path=str(mount / "prepared"), archive=None)
print(locate_model(location, prepare=prepare_model).folder)
"""
        (tmp_path / "tmp").mkdir()
        runs = [mount.run(code, prepared.folder_name, TMPDIR=tmp_path / "tmp").splitlines() for _ in range(2)]
        (cache,) = (tmp_path / "tmp").iterdir()
        folder = str(cache / prepared.folder_name)
        assert runs == [[f"hashed {WEIGHTS}", f"hashed {TOKENIZER}", folder], [folder]]
        read_prepared(folder).verify()

    def test_inodes_do_not_count(self, tiny, mount):
        """Every process sees other inodes."""
        prepare_model(tiny, into=mount.path / "prepared")
        code = """
from spark_instructor.models.host_cache import _verify_once
from spark_instructor.models.prepared import read_prepared
print(_verify_once(read_prepared(mount / "prepared")).file_state)
"""
        assert mount.run(code) == mount.run(code)

    def test_a_saved_stage_is_loaded_into_the_cache(self, tiny, mount):
        model = prepare_model(tiny)
        code = """
from spark_instructor import InstructorEmbeddings
files = [Path(path) for path in sys.argv[2:]]
pieces = [(file.name, file.read_bytes()[half]) for file in files for half in (slice(1000), slice(1000, None))]
stage = InstructorEmbeddings()
stage.restore_files(sys.argv[1], iter(pieces))
print(stage.getModel())
"""
        folder = mount.path / "hf" / "spark_instructor" / model.folder_name
        assert mount.run(code, model.folder_name, *model.paths, HF_HOME=mount.path / "hf").strip() == str(folder)
        read_prepared(folder).verify()

    def test_a_wheel(self, tiny, mount):
        code = """
from spark_instructor.encoder import prepare_model
from spark_instructor.models.wheel import build_wheel
print(build_wheel(prepare_model(sys.argv[1]), Path(sys.argv[1]), mount / "wheels"))
"""
        wheel = Path(mount.run(code, tiny).strip())
        assert mount.list_files() == {f"wheels/{wheel.name}"}
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
