"""prepare(): what it writes, when it writes, and that an incomplete folder never becomes visible."""

import importlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from checkpoints import copy_tiny, edit_json, random_tensors, write_checkpoint, write_json, write_weights
from processes import run_python
from safetensors.torch import load_file

from spark_instructor.encoder import InstructorModel, prepare, prepare_model
from spark_instructor.encoder import checkpoint as checkpoint_module
from spark_instructor.encoder.rotation import rotate
from spark_instructor.models.prepared import PreparedModel, get_cache_dir, hash_file, read_prepared

FILES = {"model.safetensors", "tokenizer.json", "prepared.json"}
ALWAYS_FLOAT32 = {"relative_attention_bias", "final_norm", "dense"}


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint")


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def config_of(checkpoint):
    return json.loads((checkpoint / "config.json").read_text("utf-8"))


class TestResult:
    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_three_files_for_all_to_read(self, checkpoint, tmp_path, umask):
        before = os.umask(umask)
        prepared = prepare(checkpoint, into=tmp_path / "shared" / "models" / "prepared")
        os.umask(before)
        assert prepared == tmp_path / "shared" / "models" / "prepared"
        assert names_in(prepared) == FILES
        # Executors may run as a different user from the driver.
        for folder in (prepared, *prepared.parents[:2]):
            assert folder.stat().st_mode & 0o777 == 0o755
        assert {path.stat().st_mode & 0o444 for path in prepared.iterdir()} == {0o444}

    def test_manifest(self, checkpoint):
        model = read_prepared(prepare(checkpoint, "bfloat16"))
        assert (model.name, model.precision, model.max_length, model.dimension) == ("checkpoint", "bfloat16", 512, 24)
        assert model.path.parent == get_cache_dir()
        assert model.path.name == f"checkpoint-bfloat16-{model.hash[:16]}"
        model.verify()

    @pytest.mark.parametrize("into", [None, "made"])
    def test_prepare_model(self, monkeypatch, checkpoint, tmp_path, into):
        """prepare_model returns the same manifest for a new folder, an existing one, and one passed as the source."""
        monkeypatch.chdir(tmp_path)
        model = prepare_model(checkpoint, "int8", into)
        assert model == prepare_model(checkpoint, "int8", into) == prepare_model(model.path, "int8")
        assert model == read_prepared(prepare(checkpoint, "int8", into))

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_dtypes(self, checkpoint, precision):
        for name, tensor in load_file(prepare(checkpoint, precision) / "model.safetensors").items():
            assert tensor.dtype == (torch.float32 if name in ALWAYS_FLOAT32 else getattr(torch, precision)), name

    def test_int8(self, checkpoint):
        """Each matrix has one scale per row; the embeddings are only looked up, so they are stored in bfloat16."""
        float32 = read_prepared(prepare(checkpoint))
        exact = dict(rotate(load_file(float32.path / "model.safetensors").items(), float32.architecture))
        tensors = load_file(prepare(checkpoint, "int8") / "model.safetensors")
        matrices = {name for name in exact if name.startswith("layers.")}
        assert tensors.keys() == exact.keys() | {f"{name}.scale" for name in matrices}
        assert tensors["embedding"].dtype == torch.bfloat16
        assert all(torch.equal(tensors[name], exact[name]) for name in ALWAYS_FLOAT32)
        for name in matrices:
            assert tensors[name].dtype == torch.int8
            assert tensors[name].abs().max() == 127
            scale = tensors[f"{name}.scale"][:, None]
            assert ((tensors[name] * scale - exact[name]).abs() <= scale * 0.5001).all()

    def test_embeddings_under_their_other_name(self, checkpoint):
        tensors, _ = random_tensors(config_of(checkpoint), 24)
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
        expected = InstructorModel.from_pretrained(checkpoint).encode("", ["a text"])
        write_weights(checkpoint, tensors)
        assert (InstructorModel.from_pretrained(checkpoint).encode("", ["a text"]) == expected).all()

    def test_safetensors_before_bin(self, checkpoint):
        """If a checkpoint has both files, as many do, only the safetensors file is read."""
        expected = read_prepared(prepare(checkpoint)).hash
        (checkpoint / "pytorch_model.bin").write_bytes(b"no weights")
        assert read_prepared(prepare(checkpoint)).hash == expected

    def test_name_of_a_hub_snapshot(self, checkpoint, tmp_path):
        snapshot = tmp_path / "models--hkunlp--instructor-base" / "snapshots" / "0123abcd"
        shutil.copytree(checkpoint, snapshot)
        assert read_prepared(prepare(snapshot)).name == "instructor-base"


class TestLog:
    def test_what_takes_long_is_logged(self, caplog, monkeypatch, checkpoint, tmp_path):
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        largest = max(checkpoint.glob("*"), key=lambda path: path.stat().st_size)
        monkeypatch.setattr(checkpoint_module, "_LARGE_FILE", largest.stat().st_size)
        with caplog.at_level(logging.INFO, logger="spark_instructor"):
            folder = prepare(checkpoint, "int8")
        assert {record.levelname for record in caplog.records} == {"INFO"}
        hashing, preparing, prepared = caplog.messages
        assert hashing.startswith(f"Hashing {largest} (")
        assert preparing == f"Preparing checkpoint in int8: writing {folder}"
        assert re.fullmatch(r"Prepared checkpoint in int8 in \d+\.\d seconds", prepared)

        caplog.clear()
        with caplog.at_level(logging.INFO, logger="spark_instructor"):
            prepare(folder, "int8")
        assert caplog.messages == []

    def test_silent_by_default(self, checkpoint):
        code = "import sys; from spark_instructor.encoder import prepare; prepare(sys.argv[1])"
        process = subprocess.run([sys.executable, "-c", code, checkpoint], capture_output=True, text=True, check=True)
        assert process.stdout == ""
        assert "repar" not in process.stderr


class TestContent:
    @pytest.mark.parametrize("into", [False, True])
    def test_hashed_once_per_process(self, monkeypatch, checkpoint, tmp_path, into):
        paths = []
        monkeypatch.setattr(checkpoint_module, "hash_file", lambda path: paths.append(path) or hash_file(path))
        monkeypatch.setattr(PreparedModel, "verify", lambda model: paths.append(model.path))
        target = tmp_path / "into" if into else None
        prepared = prepare(checkpoint, into=target)
        hashes = len(paths)
        assert prepare(checkpoint, into=target) == prepared
        assert len(paths) == hashes > 1
        for times, file in enumerate([checkpoint / "config.json", prepared / "tokenizer.json"], 2):
            os.utime(file, (1, 1))
            assert prepare(checkpoint, into=target) == prepared
            assert len(paths) == hashes * times

    def test_same_content_elsewhere(self, checkpoint, tmp_path):
        copy = shutil.copytree(checkpoint, tmp_path / "copy" / checkpoint.name)
        assert prepare(copy) == prepare(checkpoint)

    @pytest.mark.parametrize(
        "change",
        [
            lambda folder: write_weights(folder, random_tensors(config_of(folder), 24, seed=1)[0]),
            lambda folder: write_weights(folder / "2_Dense", random_tensors(config_of(folder), 24, seed=1)[1]),
            lambda folder: edit_json(folder / "sentence_bert_config.json", max_seq_length=100),
            lambda folder: edit_json(folder / "config.json", layer_norm_epsilon=1e-5),
            lambda folder: edit_json(folder / "tokenizer.json", truncation=None, decoder=None),
            lambda folder: edit_json(folder / "tokenizer_config.json", truncation_side="right"),
            lambda folder: write_json(folder / "added_tokens.json", {"</s>": 1}),
        ],
        ids=["weights", "Dense", "limit", "config", "tokenizer", "tokenizer config", "added tokens"],
    )
    def test_hash_follows_content(self, checkpoint, change):
        before = prepare(checkpoint)
        change(checkpoint)
        after = prepare(checkpoint)
        assert read_prepared(after).hash != read_prepared(before).hash
        assert before.is_dir()

    def test_hash_follows_precision(self, checkpoint):
        assert prepare(checkpoint, "float32") != prepare(checkpoint, "bfloat16")

    def test_unknown_precision(self, checkpoint):
        with pytest.raises(ValueError, match=r"'float16'.*float32, bfloat16, int8"):
            prepare(checkpoint, "float16")


class TestFromPrepared:
    def test_is_used_as_it_is(self, checkpoint):
        prepared = prepare(checkpoint)
        assert prepare(prepared) == prepared

    def test_copied_into(self, checkpoint, tmp_path):
        prepared = prepare(checkpoint)
        copy = prepare(prepared, into=tmp_path / "copy")
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in prepared.iterdir()
        }

    @pytest.mark.parametrize("precision", ["bfloat16", "int8"])
    def test_narrowed(self, checkpoint, precision):
        """Narrowing a prepared float32 folder gives the same numbers as narrowing the checkpoint."""
        direct = load_file(prepare(checkpoint, precision) / "model.safetensors")
        narrowed = load_file(prepare(prepare(checkpoint), precision) / "model.safetensors")
        assert direct.keys() == narrowed.keys()
        assert all(torch.equal(direct[name], narrowed[name]) for name in direct)

    @pytest.mark.parametrize(
        ("source", "precision"), [("bfloat16", "float32"), ("int8", "bfloat16"), ("bfloat16", "int8")]
    )
    def test_only_float32_is_narrowed(self, checkpoint, source, precision):
        prepared = prepare(checkpoint, source)
        with pytest.raises(ValueError, match=rf"'checkpoint' .*was prepared in {source}; {precision} cannot") as raised:
            prepare(prepared, precision)
        assert str(prepared) in str(raised.value)


class TestFolder:
    def test_never_written_twice(self, checkpoint, tmp_path):
        for into in (None, tmp_path / "prepared"):
            prepared = prepare(checkpoint, into=into)
            before = stamps(prepared)
            assert prepare(checkpoint, into=into) == prepared
            assert stamps(prepared) == before

    def test_into_an_empty_folder(self, checkpoint, tmp_path):
        (tmp_path / "empty").mkdir()
        assert names_in(prepare(checkpoint, into=tmp_path / "empty")) == FILES

    def test_into_something_else(self, checkpoint, tmp_path):
        """An existing file, a folder with other files and another model are left unchanged."""
        (tmp_path / "file").write_text("mine")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").write_text("mine")
        prepare(checkpoint, "bfloat16", into=tmp_path / "other")
        for name in ("file", "full", "other"):
            with pytest.raises(FileExistsError, match=f"{name} exists"):
                prepare(checkpoint, into=tmp_path / name)
        assert (tmp_path / "file").read_text() == (tmp_path / "full" / "file").read_text() == "mine"
        assert read_prepared(tmp_path / "other").precision == "bfloat16"

    @pytest.mark.parametrize("made_of", ["checkpoint", "prepared folder"])
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_an_altered_one_is_not_used(self, monkeypatch, checkpoint, tmp_path, made_of, precision):
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        prepared = prepare(checkpoint)
        source = checkpoint if made_of == "checkpoint" else prepared
        altered = prepare(source, precision) if made_of == "checkpoint" else prepared
        weights = bytearray((altered / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (altered / "model.safetensors").write_bytes(weights)
        with pytest.raises(ValueError, match=r"model\.safetensors was changed after it was prepared"):
            prepare(source, precision)

    def test_error_leaves_nothing(self, monkeypatch, checkpoint, tmp_path):
        def fail(*_, **__):
            raise OSError("no space left on device")

        monkeypatch.setattr(importlib.import_module("spark_instructor.encoder.preparation"), "write_manifest", fail)
        with pytest.raises(OSError, match="no space left"):
            prepare(checkpoint, into=tmp_path / "there" / "prepared")
        assert names_in(tmp_path / "there") == set()

    @pytest.mark.parametrize("room", [1000, 420_000])
    def test_a_full_disk(self, tiny, tmp_path, room):
        """The system refuses further writes in the middle of the tokenizer's file or of the weights."""
        code = """
import resource, sys
from spark_instructor.encoder import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    prepare(sys.argv[1], into=sys.argv[2])
except OSError as error:
    print(error)
"""
        final = tmp_path / "there" / "prepared"
        output = run_python("-c", code, tiny, final, room, cwd=tmp_path)
        assert f"there is no room for the prepared model {final} (File too large). Free some" in output
        assert names_in(final.parent) == set()

    def test_killed_in_the_middle(self, checkpoint, tmp_path):
        """A killed process leaves no folder with the final name, and the next process succeeds."""
        final = tmp_path / "there" / "prepared"
        code = """
import importlib, sys, time
module = importlib.import_module("spark_instructor.encoder.preparation")

def hang(*_, **__):
    print("weights written", flush=True)
    time.sleep(60)

module.write_manifest = hang
module.prepare(sys.argv[1], into=sys.argv[2])
"""
        with subprocess.Popen([sys.executable, "-c", code, checkpoint, final], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"weights written\n"
            process.send_signal(signal.SIGKILL)
        assert not final.exists()
        assert names_in(prepare(checkpoint, into=final)) == FILES

    def test_two_processes_at_once(self, checkpoint, tmp_path):
        """Each process waits until the other has written, so both try to rename; both get the same, complete folder."""
        final = tmp_path / "there" / "prepared"
        code = """
import importlib, os, sys, time
module = importlib.import_module("spark_instructor.encoder.preparation")

checkpoint, final, mine, other = sys.argv[1:]
write = module.write_manifest

def write_and_wait(*args, **kwargs):
    write(*args, **kwargs)
    open(mine, "w").close()
    while not os.path.exists(other):
        time.sleep(0.01)

module.write_manifest = write_and_wait
print(module.prepare(checkpoint, into=final))
"""
        marks = [str(tmp_path / "one"), str(tmp_path / "two")]
        processes = [
            subprocess.Popen([sys.executable, "-c", code, checkpoint, final, *order], stdout=subprocess.PIPE, text=True)
            for order in (marks, marks[::-1])
        ]
        assert [process.communicate(timeout=60)[0] for process in processes] == [f"{final}\n"] * 2
        assert names_in(final.parent) == {"prepared"}
        read_prepared(final).verify()


def test_a_cut_prepared_file_is_noticed(checkpoint, tmp_path):
    """Reading a truncated file through a memory map would crash the process, so loading checks the sizes."""
    prepared = prepare(checkpoint, into=tmp_path / "prepared")
    weights = prepared / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    for use in (InstructorModel.load, prepare):
        with pytest.raises(ValueError, match=r"model\.safetensors has .* bytes, expected"):
            use(prepared)


def test_relative_and_home_paths(monkeypatch, checkpoint, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare("checkpoint") == prepare("~/checkpoint") == prepare(checkpoint)
    assert prepare("checkpoint", into="made").is_absolute()


def test_golden_checkpoint_in_a_read_only_folder(tmp_path):
    """The checkpoint may be on a read-only volume, so `prepare` writes nothing there."""
    copy = copy_tiny(tmp_path / "copy", without=["tokenizer.json"])
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    prepare(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
