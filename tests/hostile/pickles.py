"""Pickles that would execute code, that contain no tensors, or that torch did not write."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import torch
from checkpoints import read_bin

from . import damage
from .case import DENSE_PICKLE, PICKLE, PICKLE_SHARD, acceptance, folder_around, refusal


class Executes:
    """An object that creates the canary folder when it is unpickled."""

    def __init__(self, path, function=os.mkdir):
        self.call = (function, (str(folder_around(path) / "canary"),))

    def __reduce__(self):
        return self.call


class HasState:
    """An object that raises an error when its state is unpickled."""

    def __setstate__(self, state):
        raise AssertionError("the pickle's code was executed")

    def __getstate__(self):
        return {"a": 1}


# Functions that take the file's path and return what is pickled.
CODE = {
    "as a value": lambda path: {"shared.weight": Executes(path)},
    "as a key": lambda path: {(1, Executes(path)): torch.ones(1)},
    "as the whole": Executes,
    "beside the tensors": lambda path: {**torch.load(path, weights_only=True), "x": Executes(path)},
    "deep inside": lambda path: {"a": [{"b": (Executes(path),)}]},
    "as a state": lambda path: {"a": HasState()},
    "as eval": lambda path: {"a": Executes(path, eval)},
    "as a class": lambda path: {"a": Path},
    "as a whole module": lambda path: torch.nn.Linear(2, 2),
}
NO_TENSORS = {
    "a list": [torch.ones(2)],
    "a tensor": torch.ones(3),
    "nothing": None,
    "no tensors": {},
    "nested tensors": {"state_dict": {"shared.weight": torch.ones(2)}},
    "numbers": {"shared.weight": 1.0},
    "numbers for names": {1: torch.ones(2), None: torch.ones(2)},
}
MALFORMED = {
    "a stack underflow": b"\x80\x02.",
    "a memo that is missing": b"\x80\x02h\x07.",
    "lists in lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a text longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a number longer than the file": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "protocol 255": b"\x80\xff}.",
    "a huge bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 2**62) + b"\x85R.",
}


def cases():
    for file in (PICKLE, DENSE_PICKLE):
        for what, make in CODE.items():
            yield refusal("bin", file, f"has code {what}, in a zip file", save, make, True)
            yield refusal("bin", file, f"has code {what}, in torch's older form", save, make, False)
        yield refusal("bin", file, "has compressed records", compress)
    for what in ("as a value", "as the whole", "beside the tensors"):
        yield refusal("sharded bin", PICKLE_SHARD, f"has code {what}", save, CODE[what], True)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield refusal("bin", PICKLE, f"is a plain pickle with code, of protocol {protocol}", pickle_code, protocol)
    for what, content in NO_TENSORS.items():
        yield refusal("bin", PICKLE, f"holds {what}", lambda path, content: torch.save(content, path), content)
    for what, content in MALFORMED.items():
        yield refusal("bin", PICKLE, f"is a plain pickle with {what}", damage.write, content)
        yield refusal("bin", PICKLE, f"is a zip file of a pickle with {what}", write_zip, {"data.pkl": content})
    yield refusal("bin", PICKLE, "is a zip file without a pickle", write_zip, {"readme": b"x"})
    yield refusal("bin", PICKLE, "is a zip file with names that lead out", write_zip, {"../../canary": b"x"}, "")
    yield refusal("bin", PICKLE, "is an empty zip file", write_empty_zip)
    yield refusal(
        *("bin", PICKLE, "is a zip bomb", write_zip, {"data.pkl": bytes(1 << 26)}, "archive/", zipfile.ZIP_DEFLATED)
    )
    yield refusal("bin", PICKLE, "is a tar file", write_tar)
    yield acceptance("bin", PICKLE, "is in torch's older form", save_in_older_form)
    yield acceptance("safetensors", PICKLE, "has code, and lies beside safetensors", save_beside_safetensors)


def save(path, make, zipped):
    torch.save(make(path), path, _use_new_zipfile_serialization=zipped)


def pickle_code(path, protocol):
    path.write_bytes(pickle.dumps({"shared.weight": Executes(path)}, protocol))


def write_zip(path, records, prefix="archive/", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**records, "version": b"3"}.items():
            archive.writestr(prefix + name, content)


def write_empty_zip(path):
    zipfile.ZipFile(path, "w").close()


def compress(path):
    """Compress the records of the zip file; if they were mapped into memory, their bytes would be read as numbers."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def write_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("../canary", "storages", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def save_in_older_form(path):
    torch.save(read_bin(path.parent), path, _use_new_zipfile_serialization=False)


def save_beside_safetensors(path):
    for beside in (path, path.parent / DENSE_PICKLE):
        torch.save({"a": Executes(path)}, beside)
