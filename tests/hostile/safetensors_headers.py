"""Headers of safetensors files that do not match the tensors after them."""

import json
import struct

from .case import WEIGHTS, refusal

EMBEDDING = "shared.weight"  # float32 of shape (1024, 32)

LENGTHS = [0, 1, 2, 10**6, 10**8, 2**31, 2**32, 2**63, 2**64 - 1]

# Headers that replace the correct one.
NO_HEADERS = {
    "is no JSON": b"{" * 100,
    "is nothing": b"",
    "has no tensors": b"{}",
    "is lists in lists": b"[" * 100_000,
    "is no UTF-8": b'{"\xff": 1}',
}

# Functions that take the entries of the correct header and return what replaces them.
WRONG_ENTRIES = {
    "is a list": list,
    "has metadata of numbers": lambda entries: {**entries, "__metadata__": {"a": 1}},
    "has metadata of lists": lambda entries: {**entries, "__metadata__": []},
    "has one entry for all tensors": lambda entries: dict.fromkeys(entries, entries[EMBEDDING]),
    "has empty entries": lambda entries: {name: {} for name in entries},
}

# Changes to the entry of the embedding.
WRONG_ENTRY = {
    "a negative shape": {"shape": [-1024, -32]},
    "a huge shape": {"shape": [2**62, 2**62]},
    "a larger shape": {"shape": [1025, 32]},
    "a shape of floats": {"shape": [1024.0, 32]},
    "an unknown dtype": {"dtype": "F77"},
    "another dtype": {"dtype": "F64"},
    "a dtype of code": {"dtype": "__import__('os').mkdir('canary')"},
    "offsets before the file": {"data_offsets": [-8, 131064]},
    "offsets behind the file": {"data_offsets": [10**12, 10**12 + 131072]},
    "offsets in the wrong order": {"data_offsets": [131072, 0]},
    "one offset": {"data_offsets": [0]},
    "numbers of 4 bits": {"dtype": "F4", "shape": [1024, 256]},
}


def cases():
    for length in LENGTHS:
        yield refusal("safetensors", WEIGHTS, f"has a header of length {length}", set_length, length)
    for what, header in NO_HEADERS.items():
        yield refusal("safetensors", WEIGHTS, f"has a header that {what}", set_header, header)
    for what, function in WRONG_ENTRIES.items():
        yield refusal("safetensors", WEIGHTS, f"has a header that {what}", change_entries, function)
    for what, changes in WRONG_ENTRY.items():
        yield refusal("safetensors", WEIGHTS, f"has a header with {what}", change_entry, changes)
    yield refusal("safetensors", WEIGHTS, "has numbers of 4 bits in the right shape", store_4_bits)
    yield refusal("safetensors", WEIGHTS, "has bytes behind the tensors", append)


def read(path):
    """Return the entries of the header and the bytes of the tensors."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path, header, tensors):
    path.write_bytes(struct.pack("<Q", len(header)) + header + tensors)


def set_length(path, length):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def set_header(path, header):
    _, tensors = read(path)
    write(path, header, tensors)


def change_entries(path, function):
    entries, tensors = read(path)
    write(path, json.dumps(function(entries)).encode(), tensors)


def change_entry(path, changes):
    entries, tensors = read(path)
    write(path, json.dumps({**entries, EMBEDDING: {**entries[EMBEDDING], **changes}}).encode(), tensors)


def store_4_bits(path):
    """Store the embedding with 4 bits per number and matching offsets."""
    entries, tensors = read(path)
    entries.pop("__metadata__", None)
    new_entries, content = {}, b""
    for name, entry in entries.items():
        content_of_entry = tensors[slice(*entry["data_offsets"])]
        if name == EMBEDDING:
            entry, content_of_entry = {**entry, "dtype": "F4"}, bytes(1024 * 32 // 2)
        new_entries[name] = {**entry, "data_offsets": [len(content), len(content) + len(content_of_entry)]}
        content += content_of_entry
    write(path, json.dumps(new_entries).encode(), content)


def append(path):
    path.write_bytes(path.read_bytes() + b"x")
