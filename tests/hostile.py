"""Malformed checkpoints: each case spoils a healthy one in one way.

A case is refused, and then its error names `names`, or it is accepted on purpose: `harmless`, with the healthy
checkpoint's vectors. Beside the folder that is spoilt lie a ``secret.txt``, a ``secret.json`` and ``other``, a
healthy checkpoint; code that gets run makes a ``canary`` there.
"""

import io
import itertools
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from checkpoints import TINY, edit_json, read_bin, write_checkpoint, write_json
from safetensors.torch import load_file, save_file

SECRET = "the-secret-of-this-machine"


class Case(NamedTuple):
    id: str
    base: str
    """Which healthy checkpoint: a key of BASES."""
    spoil: Callable[[Path], None]
    names: str = ""
    """What the error names beside the folder."""
    harmless: bool = False


def _slow(folder):
    """The tokenizer from spiece.model, the limit from tokenizer_config.json."""
    write_checkpoint(folder, num_layers=1)
    for name in ("tokenizer.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    edit_json(folder / "tokenizer_config.json", model_max_length=512)


BASES = {
    "safetensors": lambda folder: write_checkpoint(folder, num_layers=1),
    "bin": lambda folder: write_checkpoint(folder, num_layers=1, stored_as="bin"),
    "sharded": lambda folder: write_checkpoint(folder, num_layers=1, stored_as="sharded"),
    "slow": _slow,
}
TENSORS, PICKLE, INDEX = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"
POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"


def cases():
    """All of them; their ids are unique."""
    parts = (_files, _json, _values, _modules, _tensors, _headers, _shards, _pickles, _tokenizers, _pieces, _links)
    every = [case for part in parts for case in part()]
    assert len({case.id for case in every}) == len(every)
    return every


# Each file, damaged in each way.

_READ = {
    "safetensors": (
        *("config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json", POOLING, DENSE),
        *(TENSORS, f"2_Dense/{TENSORS}"),
    ),
    "bin": (PICKLE, f"2_Dense/{PICKLE}"),
    "sharded": (INDEX, "model-00001-of-00002.safetensors"),
    "slow": ("tokenizer_config.json", "spiece.model"),
}
_NOT_READ = {
    # Another file has said already what this one would.
    "safetensors": ("special_tokens_map.json", "spiece.model", "README.md"),
    "slow": ("special_tokens_map.json",),
}
_ALL_OPTIONAL = ("sentence_bert_config.json", "tokenizer_config.json", POOLING)  # each of their keys
_MAY_BE_MISSING = ("sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json")


def _cut(length):
    def damage(path):
        size = path.stat().st_size
        os.truncate(path, int(length * size) if 0 < length < 1 else length % size)

    return damage


def _replaced(make):
    def damage(path):
        path.unlink(missing_ok=True)
        make(path)

    return damage


def _holding(content):
    return _replaced(lambda path: path.write_bytes(content))


def _linked(target):
    return _replaced(lambda path: path.symlink_to(target))


def _linked_beside(name):
    """To something beside the checkpoint."""
    return _replaced(
        lambda path: path.symlink_to(next(p for p in path.parents if p.name == "checkpoint").parent / name)
    )


_CUTS = {
    "empty": _cut(0),
    "cut after a byte": _cut(1),
    "cut after 8 bytes": _cut(8),
    "cut in the middle": _cut(0.5),
    "cut by 3 bytes": _cut(-3),
}
_CONTENTS = {
    "random bytes": _holding(bytes(i * i * 7919 >> 5 & 255 for i in range(4000))),
    "zeros": _holding(bytes(4096)),
    "a web page": _holding(b"<!DOCTYPE html><html>404</html>"),
    "a git-lfs pointer": _holding(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
    "a secret": _linked_beside("secret.txt"),
    "a secret in json": _linked_beside("secret.json"),
    "another file": lambda path: shutil.copyfile(TINY / "README.md", path),
    "too large": _replaced(lambda path: (path.touch(), os.truncate(path, (1 << 26) + 1))),
}
_FOR_JSON = ("cut in the middle", "random bytes", "a secret", "a folder", "a pipe", "a link to nothing")
_FOR_MOST = (
    *(*_FOR_JSON, "empty", "cut by 3 bytes", "a secret in json", "too large", "a link to itself"),
    *("a link to an endless device", "a link to what cannot be read"),
)
_READ_ALIKE = ("sentence_bert_config.json", DENSE, INDEX, "modules.json")  # as config.json is
_NO_FILES = {
    "a folder": _replaced(Path.mkdir),
    "a pipe": _replaced(os.mkfifo),
    "a link to nothing": _linked("nothing"),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to a folder": _linked("."),
    "a link to an endless device": _linked("/dev/zero"),
    "a link to what cannot be read": _linked("/proc/self/mem"),
}


def _files():
    for base, files in _READ.items():
        for file in files:
            optional = file in _MAY_BE_MISSING and base != "bin"
            no_weights = file.split("/")[-1] in (TENSORS, PICKLE, INDEX, "spiece.model", "modules.json")
            names = "" if no_weights else file
            yield Case(f"{base}: {file} missing", base, _on(file, Path.unlink), names, optional)
            for what, damage in {**_CUTS, **_CONTENTS, **_NO_FILES}.items():
                if file.endswith(".json") and what not in (_FOR_JSON if file in _READ_ALIKE else _FOR_MOST):
                    continue
                # An object without the keys that are asked for is as good as none.
                harmless = what == "a secret in json" and file in _ALL_OPTIONAL
                yield Case(f"{base}: {file} is {what}", base, _on(file, damage), file, harmless)
    for base, files in _NOT_READ.items():
        for file in files:
            for what in ("random bytes", "a secret", "too large"):
                damage = _CONTENTS[what]
                yield Case(f"{base}: {file} is {what}, and not read", base, _on(file, damage), harmless=True)
    files = _READ["safetensors"]
    for i, by in itertools.product(range(len(files)), (1, 3, 5)):
        file, other = files[i], files[(i + by) % len(files)]
        # What holds none of the keys that a file may do without is as good as an empty object.
        harmless = file in _ALL_OPTIONAL and other.endswith(".json") and other != "modules.json"
        yield Case(f"{file} holds {other}", "safetensors", _copied(other, file), file, harmless)


def _on(file, damage):
    return lambda folder: damage(folder / file)


def _copied(source, target):
    return lambda folder: shutil.copyfile(folder / source, folder / target)


# Each json file, holding json of the wrong kind or no json.

_JSON = [(base, file) for base, files in _READ.items() for file in files if file.endswith(".json")]


def _json():
    for base, file in _JSON:
        wrong = [None, True, 3, -0.5, "text", {} if file == "modules.json" else []]
        for content in wrong:
            yield Case(f"{base}: {file} holds {content!r}", base, _text(file, json.dumps(content)), file)
        if file not in ("config.json", "tokenizer.json", INDEX):
            continue
        for what, content in {
            "lists in lists": "[" * 100_000 + "]" * 100_000,
            "objects in objects": '{"a":' * 5000 + "1" + "}" * 5000,
            "a number of 5000 digits": '{"a": ' + "9" * 5000 + "}",
            "two objects": "{}{}",
            "a byte order mark": "\ufeff{}",
            "single quotes": "{'a': 1}",
            "a comment": "{} // {}",
        }.items():
            yield Case(f"{base}: {file} holds {what}", base, _text(file, content), file)
        yield Case(f"{base}: {file} in utf-16", base, _on(file, _holding("{}".encode("utf-16"))), file)
        yield Case(f"{base}: {file} in no encoding", base, _on(file, _holding(b'{"a": "\xff\xfe"}')), file)


def _text(file, content):
    return lambda folder: (folder / file).write_text(content, "utf-8")


# Each key, with each wrong value.

_NUMBERS = [True, 0, 32.0, "32", 10**9, 10**400, float("inf")]
_NO_TEXTS = [True, 3, ["t5"], {"a": 1}, "", "x" * 100_000, "\ud800"]
_NO_FLAGS = [1, "false", []]
_NESTED = json.loads("[" * 900 + "]" * 900)


def _values():
    def wrong(file, key, values, base="safetensors"):
        for value in values:
            yield Case(f"{file}: {key} = {_short(value)}", base, _set(file, key, value), file)

    def fine(file, key, values, base="safetensors"):
        for value in values:
            yield Case(f"{file}: {key} = {_short(value)}, and fine", base, _set(file, key, value), harmless=True)

    for key in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
        yield from wrong("config.json", key, [None, *_NUMBERS, _NESTED])
    yield from wrong(
        "config.json", "relative_attention_num_buckets", [True, -1, 0, 32.0, "32", 10**9, 10**400, 1, 2, 3]
    )
    # A distance of any size that a model can have is the model's own.
    yield from wrong("config.json", "relative_attention_max_distance", [True, -1, 0, 32.0, "32", 10**12, 10**400, 1, 8])
    yield from wrong("config.json", "layer_norm_epsilon", [True, -1e-6, 0.0, 1, "1e-6", [1e-6], 1e300, float("nan")])
    yield from wrong("config.json", "model_type", [None, *_NO_TEXTS, _NESTED])
    yield from wrong("config.json", "feed_forward_proj", [*_NO_TEXTS, _NESTED])
    for key in ("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"):
        yield from fine("config.json", key, [None])  # T5's own
    yield from fine("config.json", "feed_forward_proj", [None])
    yield from fine("config.json", "torch_dtype", [3, "evil.module"])
    yield from fine("config.json", "auto_map", [{"AutoModel": "evil.Model"}])

    limits = [True, 1, -5, 512.0, "512", [512], 2**20 + 1, 10**9 - 1, 1e30, _NESTED]
    for base, file, key in (
        ("safetensors", "sentence_bert_config.json", "max_seq_length"),
        ("slow", "tokenizer_config.json", "model_max_length"),
    ):
        yield from wrong(file, key, limits, base)
        yield from fine(file, key, [None, 10**30, 10**9], base)
    yield from wrong("sentence_bert_config.json", "do_lower_case", [True, *_NO_FLAGS])
    yield from fine("sentence_bert_config.json", "do_lower_case", [None])

    yield from wrong(DENSE, "out_features", [None, *_NUMBERS])
    yield from wrong(DENSE, "bias", [None, True, *_NO_FLAGS])
    yield from wrong(DENSE, "activation_function", [None, *_NO_TEXTS, "torch.nn.Tanh", "evil.NoIdentity", _NESTED])
    yield from fine(DENSE, "in_features", [None, 7, "x"])  # the weights say it
    yield from fine(DENSE, "activation_function", ["evil_module_that_is_not_imported.Identity"])
    yield from wrong(POOLING, "pooling_mode_mean_tokens", [False, 1, 0, "yes", []])
    yield from wrong(POOLING, "pooling_mode_cls_token", [True, 1, "false", [], {}])
    yield from wrong(POOLING, "pooling_mode", [True, 3, "cls", ["mean", "cls"], [], {}, _NESTED])
    yield from fine(POOLING, "word_embedding_dimension", [None, 7, "x"])  # the weights say it
    yield from fine(POOLING, "pooling_mode_mean_tokens", [None])
    yield from fine(POOLING, "pooling_mode", ["mean", ["mean"]])


def _short(value):
    text = ascii(value)
    return text if len(text) < 40 else f"{text[:16]}... ({len(text)})"


def _set(file, key, value):
    def spoil(folder):
        content = json.loads((folder / file).read_text("utf-8"))
        content[key] = value
        write_json(folder / file, content if value is not None else {k: v for k, v in content.items() if k != key})

    return spoil


# modules.json, whose paths must stay inside the checkpoint.


def _modules():
    def module(i, **changes):
        def spoil(folder):
            modules = json.loads((folder / "modules.json").read_text("utf-8"))
            modules[i] = {**modules[i], **changes}
            write_json(folder / "modules.json", modules)

        return spoil

    # A healthy module lies at the first four of these.
    out = ["../other/2_Dense", "2_Dense/../../other/2_Dense", "./../other/2_Dense", "../checkpoint/2_Dense", ".."]
    for i, kind in enumerate(("Transformer", "Pooling", "Dense")):
        more = ["/", "//etc", "2_Dense\0", "2_Dense\n", "\ud800", "x" * 5000, "x/" * 3000] if kind == "Dense" else []
        for path in [*out, "/etc", "nowhere", *more]:
            named = "nowhere" if path == "nowhere" else "modules.json"
            yield Case(f"modules.json: {kind} in {_short(path)}", "safetensors", module(i, path=path), named)
        for path in (3, True, ["2_Dense"], _NESTED):
            yield Case(f"modules.json: {kind} in {_short(path)}", "safetensors", module(i, path=path), "modules.json")
        for type_ in (None, 3, [], "", "Transformer.", "os.system", "x" * 100_000, _NESTED):
            yield Case(f"modules.json: {kind} is {_short(type_)}", "safetensors", module(i, type=type_), "modules.json")
        dotted = f"evil_module_that_is_not_imported.{kind}"
        yield Case(f"modules.json: {kind} of another package", "safetensors", module(i, type=dotted), harmless=True)
    for path in ("./2_Dense", "2_Dense/", "2_Dense//", "./2_Dense/."):
        yield Case(f"modules.json: Dense in {path}", "safetensors", module(2, path=path), harmless=True)
    for what, modules in {
        "nothing": [],
        "texts": ["Transformer", "Pooling"],
        "lists": [["Transformer"], ["Pooling"]],
        "nulls": [None] * 4,
        "many": [{"type": "Transformer", "path": ""}] * 50_000,
    }.items():
        yield Case(
            f"modules.json lists {what}", "safetensors", _text("modules.json", json.dumps(modules)), "modules.json"
        )
    yield Case(
        "a folder for 3_Normalize", "safetensors", lambda folder: (folder / "3_Normalize").mkdir(), harmless=True
    )


# Each tensor, of each wrong shape and dtype.

_BLOCK = "encoder.block.0.layer"
_NAMES = [
    "shared.weight",
    "encoder.final_layer_norm.weight",
    f"{_BLOCK}.0.SelfAttention.relative_attention_bias.weight",
    f"{_BLOCK}.0.layer_norm.weight",
    *(f"{_BLOCK}.0.SelfAttention.{part}.weight" for part in "qkvo"),
    f"{_BLOCK}.1.layer_norm.weight",
    f"{_BLOCK}.1.DenseReluDense.wi.weight",
    f"{_BLOCK}.1.DenseReluDense.wo.weight",
]


def _with(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


_WRONG_TENSORS = {
    "with one row more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "with one row less": lambda tensor: tensor[:-1].contiguous(),
    "with one dimension more": lambda tensor: tensor[None],
    "flat": lambda tensor: tensor.reshape(-1, 1),
    "scalar": lambda tensor: torch.tensor(1.0),
    "empty": lambda tensor: tensor[:0],
    "of int64": lambda tensor: tensor.long(),
    "of bool": lambda tensor: tensor.bool(),
    "of complex numbers": lambda tensor: tensor.to(torch.complex64),
    "with NaN": _with(float("nan")),
    "with an infinity": _with(float("inf")),
    "of float64 beyond float32": lambda tensor: _with(1e300)(tensor.double()),
}


_FOR_EVERY_TENSOR = ("with one row less", "flat", "of int64", "with NaN")


def _tensors():
    for file, name in [*((TENSORS, name) for name in _NAMES), (f"2_Dense/{TENSORS}", "linear.weight")]:
        yield Case(f"{name} missing", "safetensors", _changed(file, name, None), file)
        for what, change in _WRONG_TENSORS.items():
            if name not in ("shared.weight", "linear.weight") and what not in _FOR_EVERY_TENSOR:
                continue
            yield Case(f"{name} {what}", "safetensors", _changed(file, name, change), file)
    yield Case("of float64", "safetensors", _changed(TENSORS, _NAMES[0], torch.Tensor.double), harmless=True)
    yield Case("a tensor too many", "safetensors", _added(TENSORS, "decoder.x", torch.ones(2)), harmless=True)
    added = _added(f"2_Dense/{TENSORS}", "linear.bias", torch.ones(24))
    yield Case("a bias that is denied", "safetensors", added, f"2_Dense/{TENSORS}")

    # What only a pickle can hold.
    def in_pickle(what, change, harmless=False, name="shared.weight"):
        def spoil(folder):
            tensors = read_bin(folder)
            torch.save({**tensors, name: change(tensors[name])}, folder / PICKLE)

        return Case(f"bin: {name} {what}", "bin", spoil, PICKLE, harmless)

    yield in_pickle("sparse", torch.Tensor.to_sparse)
    yield in_pickle("without numbers", lambda tensor: tensor.to("meta"))
    yield in_pickle("nested", lambda tensor: torch.nested.nested_tensor([tensor]))
    yield in_pickle("of quantized numbers", lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8))
    yield in_pickle("of one number in every place", lambda tensor: torch.ones(1).expand(tensor.shape))
    yield in_pickle("that is no tensor", torch.Tensor.tolist)
    yield in_pickle("a parameter", torch.nn.Parameter, harmless=True)
    yield in_pickle("stored by columns", lambda tensor: tensor.t().contiguous().t(), harmless=True)
    yield in_pickle("part of a longer one", lambda tensor: torch.cat([tensor, tensor])[: len(tensor)], harmless=True)

    def of_any_size(folder):
        edit_json(folder / "config.json", vocab_size=10**6, d_model=10**6)
        torch.save({**read_bin(folder), "shared.weight": torch.ones(1).expand(10**6, 10**6)}, folder / PICKLE)

    yield Case("bin: one number for 4 TB", "bin", of_any_size, PICKLE)

    def shared(folder):
        """One storage for all tensors: safetensors itself cannot write such."""
        tensors = read_bin(folder)
        flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
        views = flat.split([tensor.numel() for tensor in tensors.values()])
        torch.save({n: v.view_as(t) for (n, t), v in zip(tensors.items(), views, strict=True)}, folder / PICKLE)

    yield Case("bin: one storage for all", "bin", shared, harmless=True)


def _changed(file, name, change):
    def spoil(folder):
        tensors = load_file(folder / file)
        tensor = tensors.pop(name)
        save_file({**tensors, **({name: change(tensor)} if change else {})}, folder / file)

    return spoil


def _added(file, name, tensor):
    return lambda folder: save_file({**load_file(folder / file), name: tensor}, folder / file)


# The header of a safetensors file, which may lie.


def _headers():
    def header(change):
        def spoil(folder):
            content = (folder / TENSORS).read_bytes()
            (length,) = struct.unpack("<Q", content[:8])
            changed = change(json.loads(content[8 : 8 + length]))
            changed = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
            (folder / TENSORS).write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])

        return spoil

    def entry(**changes):
        return header(lambda entries: {**entries, _NAMES[0]: {**entries[_NAMES[0]], **changes}})

    def length(value):
        def spoil(folder):
            content = (folder / TENSORS).read_bytes()
            (folder / TENSORS).write_bytes(struct.pack("<Q", value) + content[8:])

        return spoil

    lies = {f"length {value}": length(value) for value in (0, 1, 2, 10**6, 10**8, 2**31, 2**32, 2**63, 2**64 - 1)}
    lies |= {
        "no json": header(lambda _: b"{" * 100),
        "a list": header(lambda entries: list(entries)),
        "nothing": header(lambda _: b""),
        "no tensors": header(lambda _: {}),
        "lists in lists": header(lambda _: b"[" * 100_000),
        "no utf-8": header(lambda _: b'{"\xff": 1}'),
        "metadata of numbers": header(lambda entries: {**entries, "__metadata__": {"a": 1}}),
        "metadata of lists": header(lambda entries: {**entries, "__metadata__": []}),
        "an entry for all": header(lambda entries: dict.fromkeys(entries, entries[_NAMES[0]])),
        "empty entries": header(lambda entries: {name: {} for name in entries}),
        "a negative shape": entry(shape=[-1024, -32]),
        "a huge shape": entry(shape=[2**62, 2**62]),
        "a larger shape": entry(shape=[1025, 32]),
        "a shape of floats": entry(shape=[1024.0, 32]),
        "an unknown dtype": entry(dtype="F77"),
        "another dtype": entry(dtype="F64"),
        "a dtype of code": entry(dtype="__import__('os').mkdir('canary')"),
        "offsets before the file": entry(data_offsets=[-8, 131064]),
        "offsets behind the file": entry(data_offsets=[10**12, 10**12 + 131072]),
        "offsets turned round": entry(data_offsets=[131072, 0]),
        "offsets of one": entry(data_offsets=[0]),
        "numbers of 4 bits": entry(dtype="F4", shape=[1024, 256]),
        "numbers of 4 bits in the right shape": lambda folder: _of_4_bits(folder / TENSORS),
    }
    for what, spoil in lies.items():
        yield Case(f"header: {what}", "safetensors", spoil, TENSORS)
    yield Case("bytes behind the tensors", "safetensors", _on(TENSORS, lambda p: p.write_bytes(p.read_bytes() + b"x")))


def _of_4_bits(path):
    tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
    shapes = {name: list(tensor.shape) for name, tensor in load_file(path).items()}
    tensors[_NAMES[0]] = bytes(1024 * 32 // 2)
    entries, offset = {}, 0
    for name, content in tensors.items():
        dtype = "F4" if name == _NAMES[0] else "F32"
        entries[name] = {
            "dtype": dtype,
            "shape": shapes[name],
            "data_offsets": [offset, offset := offset + len(content)],
        }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(tensors.values()))


# The index of sharded weights.


def _shards():
    tricks = [
        "../other/model.safetensors",
        "/etc/passwd",
        "./../other/model.safetensors",
        "",
        ".",
        "..",
        "\0.safetensors",
    ]
    tricks += ["x" * 5000 + ".safetensors", "nowhere.safetensors", "folder.safetensors", "\ud800.safetensors", PICKLE]
    tricks += [True, 3, 0.5, None, [], {}, _NESTED]
    for shard in tricks:

        def spoil(folder, shard=shard):
            (folder / "folder.safetensors").mkdir()
            content = json.loads((folder / INDEX).read_text("utf-8"))
            write_json(folder / INDEX, {"weight_map": {**content["weight_map"], "shared.weight": shard}})

        named = "folder.safetensors" if shard == "folder.safetensors" else INDEX
        yield Case(f"shard {_short(shard)}", "sharded", spoil, named)
    for weight_map in (None, True, 3, "x", [], ["x"], {}, {"a": "nowhere.safetensors"}, {"": ""}, _NESTED):
        yield Case(f"weight_map {_short(weight_map)}", "sharded", _set(INDEX, "weight_map", weight_map), INDEX)
    for metadata in (3, [], {"total_size": 10**30}):
        yield Case(f"metadata {metadata}", "sharded", _set(INDEX, "metadata", metadata), harmless=True)

    def elsewhere(folder):
        content = json.loads((folder / INDEX).read_text("utf-8"))
        shards = sorted({*content["weight_map"].values()})
        turned = {name: shards[1 - shards.index(shard)] for name, shard in content["weight_map"].items()}
        write_json(folder / INDEX, {"weight_map": turned})

    yield Case("shards turned round", "sharded", elsewhere, INDEX)
    yield Case("all but two tensors not mapped", "sharded", _keep_two, INDEX)


def _keep_two(folder):
    content = json.loads((folder / INDEX).read_text("utf-8"))
    write_json(folder / INDEX, {"weight_map": dict(list(content["weight_map"].items())[:2])})


# Pickles: with code, or what is none of torch's.


class _Runs:
    """Makes the canary where it is unpickled."""

    def __init__(self, folder, function=os.mkdir):
        self.call = (function, (str(folder.parent / "canary"),))

    def __reduce__(self):
        return self.call


class _HasState:
    def __setstate__(self, state):
        raise AssertionError("code of the pickle's was run")

    def __getstate__(self):
        return {"a": 1}


def _pickles():
    codes = {
        "a value": lambda folder: {"shared.weight": _Runs(folder)},
        "a key": lambda folder: {(1, _Runs(folder)): torch.ones(1)},
        "all of it": lambda folder: _Runs(folder),
        "beside the tensors": lambda folder: {**read_bin(folder), "x": _Runs(folder)},
        "deep inside": lambda folder: {"a": [{"b": (_Runs(folder),)}]},
        "a state": lambda folder: {"a": _HasState()},
        "eval": lambda folder: {"a": _Runs(folder, eval)},
        "a class": lambda folder: {"a": Path},
        "a whole module": lambda folder: torch.nn.Linear(2, 2),
    }
    for of, (what, make) in itertools.product(("", "2_Dense/"), codes.items()):
        file = of + PICKLE
        for zipped in (True, False):

            def saved(folder, file=file, make=make, zipped=zipped):
                torch.save(make((folder / file).parent if "/" not in file else folder), folder / file, **_form(zipped))

            kind = "zip" if zipped else "legacy"
            yield Case(f"{file}: code as {what} ({kind})", "bin", saved, file)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):

        def plain(folder, protocol=protocol):
            (folder / PICKLE).write_bytes(pickle.dumps({"shared.weight": _Runs(folder)}, protocol))

        yield Case(f"bin: code in a plain pickle of protocol {protocol}", "bin", plain, PICKLE)

    for what, content in {
        "a list": [torch.ones(2)],
        "a tensor": torch.ones(3),
        "nothing": None,
        "no tensors": {},
        "nested": {"state_dict": {"shared.weight": torch.ones(2)}},
        "numbers": {"shared.weight": 1.0},
        "numbers for names": {1: torch.ones(2), None: torch.ones(2)},
    }.items():
        yield Case(f"bin: holds {what}", "bin", lambda f, c=content: torch.save(c, f / PICKLE), PICKLE)

    raw = {
        "stack underflow": b"\x80\x02.",
        "a memo that is not there": b"\x80\x02h\x07.",
        "lists in lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "a text longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "a number longer than the file": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
        "an extension code": b"\x80\x02\x82\x01.",
        "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "protocol 255": b"\x80\xff}.",
        "a huge bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 2**62) + b"\x85R.",
    }
    for what, content in raw.items():
        yield Case(f"bin: plain pickle with {what}", "bin", _on(PICKLE, _holding(content)), PICKLE)
        yield Case(f"bin: zip of a pickle with {what}", "bin", _zipped({"data.pkl": content}), PICKLE)
    yield Case("bin: zip without a pickle", "bin", _zipped({"readme": b"x"}), PICKLE)
    yield Case("bin: zip with names that lead out", "bin", _zipped({"../../canary": b"x"}, prefix=""), PICKLE)
    yield Case("bin: empty zip", "bin", _zipped({}), PICKLE)
    bomb = _zipped({"data.pkl": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
    yield Case("bin: zip bomb", "bin", bomb, PICKLE)
    for of in ("", "2_Dense/"):
        yield Case(f"{of}{PICKLE}: records compressed", "bin", _on(of + PICKLE, _compress), of + PICKLE)
    yield Case("bin: tar", "bin", _on(PICKLE, _tarred), PICKLE)

    def legacy(folder):
        torch.save(read_bin(folder), folder / PICKLE, _use_new_zipfile_serialization=False)

    yield Case("bin: torch's older form", "bin", legacy, harmless=True)

    def hidden(folder):
        """A pickle beside safetensors is not looked at."""
        torch.save({"a": _Runs(folder)}, folder / PICKLE)
        torch.save({"a": _Runs(folder)}, folder / "2_Dense" / PICKLE)

    yield Case("code beside safetensors", "safetensors", hidden, harmless=True)


def _form(zipped):
    return {"_use_new_zipfile_serialization": zipped}


def _zipped(records, compression=zipfile.ZIP_STORED, prefix="archive/"):
    def spoil(folder):
        with zipfile.ZipFile(folder / PICKLE, "w", compression) as archive:
            for name, content in {**records, **({"version": b"3"} if records else {})}.items():
                archive.writestr(prefix + name, content)

    return spoil


def _compress(path):
    """As another tool might have packed it; mapped, the packed bytes would be taken for numbers."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def _tarred(path):
    with tarfile.open(path, "w") as archive:
        for name in ("../canary", "storages", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


# tokenizer.json.


def _tokenizers():
    stored = json.loads((TINY / "tokenizer.json").read_text("utf-8"))
    model, file = stored["model"], "tokenizer.json"

    def changed(what, harmless=False, **changes):
        spoil = _text(file, json.dumps({**stored, **changes}))
        return Case(f"{file}: {what}", "safetensors", spoil, file, harmless)

    def of_model(what, **changes):
        return changed(what, model={**model, **changes})

    for kind in (None, True, 3, "Unigram", [], {}, _NESTED):
        yield changed(f"model {_short(kind)}", model=kind)
    for kind in ("BPE", "WordPiece", "WordLevel", "", "x" * 10_000, 3, True, [], {}, _NESTED):
        yield of_model(f"type {_short(kind)}", type=kind)
    words = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    yield changed("a BPE model", model={"type": "BPE", "vocab": words, "merges": []})
    yield changed("a WordLevel model", model={"type": "WordLevel", "vocab": words, "unk_token": "<unk>"})
    yield changed("a model without a type", harmless=True, model={k: v for k, v in model.items() if k != "type"})
    for vocab in (None, True, 3, "x", [], {}, words, [1], [["a"]], [["a", "b"]], [[1, 2.0]], [["a", 1.0, 2]], _NESTED):
        yield of_model(f"vocab {_short(vocab)}", vocab=vocab)
    for score in (float("nan"), float("inf"), None, "x", True):
        yield of_model(f"a score of {score!r}", vocab=[*model["vocab"][:-1], ["x", score]])
    yield of_model("no </s>", vocab=[[p if p != "</s>" else "<x>", s] for p, s in model["vocab"]])
    for unk_id in (None, True, -1, 0.5, "2", [], 10**6, 2**64, 10**30):
        yield of_model(f"unk_id {unk_id!r}", unk_id=unk_id)
    for tokens in (True, 3, "x", {}, [1], ["</s>"], [{}], [{"id": "x"}], _NESTED):
        yield changed(f"added_tokens {_short(tokens)}", added_tokens=tokens)
    one = stored["added_tokens"][0]
    for id_ in (-1, "x", None, 0.5, 2**32, 10**30):
        yield changed(f"an added token of id {id_!r}", added_tokens=[{**one, "id": id_}])
    for content in (None, 3, []):
        yield changed(
            f"an added token of {content!r}", added_tokens=[*stored["added_tokens"], {**one, "content": content}]
        )
    many = [{**one, "id": 1000 + i, "content": f"<more_{i}>"} for i in range(100)]
    yield changed("more tokens than embeddings", added_tokens=[*stored["added_tokens"], *many])._replace(
        names="config.json"
    )
    pieces = [*model["vocab"], *([f"piece{i}", -20.0] for i in range(100))]
    yield of_model("more pieces than embeddings", vocab=pieces)._replace(names="config.json")
    for charsmap in (None, True, 3, [], {}, "", "%", "é", *map(_encoded, _CHARSMAPS)):
        normalizer = {"type": "Precompiled", "precompiled_charsmap": charsmap}
        yield changed(f"charsmap {_short(charsmap)}", normalizer=normalizer)
    inner = [{"type": "Precompiled", "precompiled_charsmap": "%"}]
    yield changed("a damaged charsmap inside", normalizer={"type": "Sequence", "normalizers": inner})
    for parts in (True, 3, {"a": 1}, "x"):
        yield changed(f"normalizers {parts!r}", normalizer={"type": "Sequence", "normalizers": parts})
    nested = stored["normalizer"]
    for _ in range(300):
        nested = {"type": "Sequence", "normalizers": [nested]}
    yield changed("a normalizer deep inside", harmless=True, normalizer=nested)
    for version in (None, True, 3, "9.0", []):
        yield changed(f"version {version!r}", version=version)
    for key in ("pre_tokenizer", "post_processor", "decoder"):
        for value in (3, {"type": "evil"}):
            yield changed(f"{key} {value!r}, which is replaced", harmless=True, **{key: value})
    for key in ("truncation", "padding"):
        for value in (3, {"a": 1}):
            yield changed(f"{key} {value!r}", **{key: value})


def _encoded(content):
    return b64encode(content).decode()


# The first two pass tokenizers' own look and panic where they are used.
_CHARSMAPS = [bytes(64), struct.pack("<I", 0) + b"abc", b"\xff" * 64, struct.pack("<I", 2**31) + bytes(64), b"abc"]
_CHARSMAPS += [struct.pack("<I", 1024) + bytes(i * i * 31 >> 3 & 127 for i in range(1024)) + b"a\0b\0"]


# spiece.model, where there is no tokenizer.json.


def _pieces():
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    def changed(what, change, names="spiece.model"):
        def spoil(folder):
            model = protobuf.ModelProto()
            model.ParseFromString((TINY / "spiece.model").read_bytes())
            change(model)
            (folder / "spiece.model").write_bytes(model.SerializeToString())

        return Case(f"spiece.model: {what}", "slow", spoil, names)

    yield changed(
        "cut between two pieces", lambda model: (model.ClearField("trainer_spec"), model.ClearField("normalizer_spec"))
    )
    yield changed("no pieces", lambda model: model.ClearField("pieces"))
    yield changed("no </s>", lambda model: model.pieces.__delitem__(1))
    for kind in (2, 3, 4):
        yield changed(f"of kind {kind}", lambda model, kind=kind: setattr(model.trainer_spec, "model_type", kind))
    for unk_id in (-1, 900, 10**6, 2**31 - 1):
        yield changed(f"unk_id {unk_id}", lambda model, unk_id=unk_id: setattr(model.trainer_spec, "unk_id", unk_id))
    for score in (float("nan"), float("inf")):
        yield changed(f"a score of {score}", lambda model, score=score: setattr(model.pieces[9], "score", score))
    for charsmap in _CHARSMAPS:
        yield changed(
            f"charsmap {_short(charsmap)}",
            lambda model, charsmap=charsmap: setattr(model.normalizer_spec, "precompiled_charsmap", charsmap),
        )
    more = [{"piece": f"piece{i}", "score": -20.0} for i in range(100)]
    yield changed("more pieces than embeddings", lambda model: [model.pieces.add(**one) for one in more], "config.json")


# Links, and names of folders. Who made a folder may read what its links lead to; nothing of that is shown.


def _links():
    def as_in_the_hub(folder):
        """Every file a link out of the checkpoint, as huggingface_hub keeps them."""
        blobs = folder.parent / "blobs"
        blobs.mkdir()
        for i, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
            path.rename(blobs / str(i))
            path.symlink_to(os.path.relpath(blobs / str(i), path.parent))

    def linked(folder):
        shutil.rmtree(folder / "2_Dense")
        (folder / "2_Dense").symlink_to(folder.parent / "other" / "2_Dense")

    def unlinked(folder):
        shutil.rmtree(folder / "2_Dense")
        (folder / "2_Dense").symlink_to("2_Dense")

    for base in BASES:
        yield Case(f"{base}: all files are links", base, as_in_the_hub, harmless=True)
    yield Case("2_Dense is a link to another checkpoint's", "safetensors", linked, harmless=True)
    yield Case("2_Dense is a link to itself", "safetensors", unlinked, "2_Dense")
    yield Case(
        "2_Dense is a file", "safetensors", lambda f: (shutil.rmtree(f / "2_Dense"), (f / "2_Dense").touch()), "2_Dense"
    )
    yield Case("nothing at all", "safetensors", lambda f: (shutil.rmtree(f), f.mkdir()))
    yield Case("a file for a folder", "safetensors", lambda f: (shutil.rmtree(f), f.touch()))
    yield Case("no folder", "safetensors", shutil.rmtree)
    yield Case("prepared.json is a folder", "safetensors", lambda f: (f / "prepared.json").mkdir(), harmless=True)
    for content in ("", "[]", "{}", '{"format_version": 1}', '{"format_version": "x"}', "9" * 5000, "[" * 100_000):
        yield Case(
            f"prepared.json holds {_short(content)}",
            "safetensors",
            _text("prepared.json", content),
            "prepared.json" if '"x"' not in content else "",
        )
