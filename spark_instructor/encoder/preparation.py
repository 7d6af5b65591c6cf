"""From a checkpoint in the hub's layout to a prepared folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import expand_user, short_repr
from ..models.prepared import (
    FORMAT_VERSION,
    PRECISIONS,
    TOKENIZER,
    WEIGHTS,
    PreparedModel,
    cache_dir,
    is_prepared,
    make_folder_name,
    publish_folder,
    read_prepared,
    to_file_name,
    write_manifest,
)
from .checkpoint import Checkpoint
from .linear import get_scale_name, quantize
from .tokenizer import build_tokenizer
from .weights import open_safetensors

# What stays float32 in every precision, for it is small and every vector passes through it.
_ALWAYS_FLOAT32 = ("relative_attention_bias", "final_norm", "dense")


def prepare(
    checkpoint: str | os.PathLike[str], precision: str = "float32", into: str | os.PathLike[str] | None = None
) -> Path:
    """Make a prepared folder of ``checkpoint`` and return its path.

    ``checkpoint`` is a folder in the hub's layout, or a prepared folder; one of float32 may also be narrowed.
    ``precision`` is "float32", "bfloat16" or "int8" (weights with a scale for each row; the texts' numbers are
    quantized as they come). The result lies in the cache, named by its content, unless ``into`` names a
    folder; one that is there already is used again.

    Raises FileNotFoundError and ValueError, naming the file, where the checkpoint is incomplete, damaged
    or of an unsupported architecture; ValueError for an unknown precision, where a prepared model narrower
    than float32 is wanted in another precision, and where a prepared folder was altered; FileExistsError
    where ``into`` holds something else.
    """
    return prepare_model(checkpoint, precision, into).path


def prepare_model(
    checkpoint: str | os.PathLike[str], precision: str = "float32", into: str | os.PathLike[str] | None = None
) -> PreparedModel:
    """As `prepare`, but return what the prepared folder's manifest says, with its path."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    folder = expand_user(checkpoint).absolute()
    source = read_prepared(folder) if is_prepared(folder) else Checkpoint(folder)
    if isinstance(source, PreparedModel):
        source.verify()
        if source.precision == precision and into is None:
            return source
        if source.precision not in (precision, "float32"):
            raise ValueError(
                f"'{source.name}' ({folder}) was prepared in {source.precision}, and {precision} cannot be won back "
                f"from it. Load the original checkpoint, or keep precision '{source.precision}'."
            )
        name = source.name
        model_hash = source.hash if source.precision == precision else _hash_model(source.content_hash, precision)
    else:
        name, model_hash = _name_checkpoint(folder), _hash_model(source.hash_content(), precision)

    final = (
        cache_dir() / make_folder_name(name, precision, model_hash) if into is None else expand_user(into).absolute()
    )
    if not is_prepared(final):
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            _refuse_occupied(final)
        with publish_folder(final) as new:
            _write_tokenizer(source, new / TOKENIZER)
            _write_weights(source, precision, new / WEIGHTS)
            write_manifest(
                new,
                name=name,
                hash=model_hash,
                precision=precision,
                max_length=source.max_length,
                architecture=source.architecture,
            )
            for file in new.iterdir():
                file.chmod(0o644)  # whatever the umask and safetensors say: executors may be other users
    model = read_prepared(final)
    if model.hash != model_hash:  # also where another process was first, with something else
        _refuse_occupied(final)
    model.verify()
    return model


def _refuse_occupied(folder: Path) -> NoReturn:
    raise FileExistsError(f"{folder} exists and holds something else; name a new or an empty folder")


def _name_checkpoint(folder: Path) -> str:
    """A name fit for files: the folder's, or for a snapshot in the hub's cache the repository's."""
    name = folder.name
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        name = folder.parent.parent.name.rsplit("--", 1)[-1]
    return to_file_name(name)


def _hash_model(source_hash: str, precision: str) -> str:
    return hashlib.sha256(f"{source_hash} {precision} {FORMAT_VERSION}".encode()).hexdigest()


def _write_tokenizer(source: Checkpoint | PreparedModel, path: Path) -> None:
    if isinstance(source, PreparedModel):
        shutil.copyfile(source.path / TOKENIZER, path)
        return
    tokenizer = build_tokenizer(source.tokenizer_json, source.spiece_model)
    known = max(tokenizer.get_vocab().values()) + 1
    if known > source.architecture.vocab_size:
        raise ValueError(
            f"{source.folder}: the tokenizer knows {known} tokens, but config.json has a "
            f"vocab_size of {source.architecture.vocab_size}: they do not belong together"
        )
    # An ordinary piece with that id is not enough: added tokens are looked for first, even inside words.
    added = {str(number): token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    for listed in source.added_tokens:
        if added.get(listed.id) != listed.content:
            raise ValueError(
                f"{listed.path} adds the token {short_repr(listed.content)} with the id {short_repr(listed.id)}, "
                "which the tokenizer lacks: save the checkpoint with a fast "
                "tokenizer, whose tokenizer.json has all tokens"
            )
    tokenizer.save(str(path), pretty=False)


def _write_weights(source: Checkpoint | PreparedModel, precision: str, path: Path) -> None:
    if isinstance(source, PreparedModel) and source.precision == precision:
        shutil.copyfile(source.path / WEIGHTS, path)
        return
    tensors: dict[str, Tensor] = {}
    stored = set()
    converted = (pair for named in _read_tensors(source) for pair in _convert(*named, precision))
    for name, tensor in converted:
        # safetensors wants a storage for each tensor, and a .bin file may share one.
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in stored else tensor
        stored.add(memory)
    save_file(tensors, path)


def _read_tensors(source: Checkpoint | PreparedModel) -> Iterable[tuple[str, Tensor]]:
    if isinstance(source, PreparedModel):
        return ((name, read(name)) for name, read in open_safetensors(source.path / WEIGHTS).items())
    return _fuse_tensors(source)


def _fuse_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The encoder's tensors as `T5Encoder` takes them, in float32.

    RMS norm scales the columns of what follows, so each layer's norm is folded into q, k, v and wi.
    """
    shape, read = checkpoint.architecture, checkpoint.read_encoder_tensor
    inner = shape.num_heads * shape.d_kv
    yield "embedding", checkpoint.read_embedding()
    yield (
        "relative_attention_bias",
        read(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            shape.relative_attention_num_buckets,
            shape.num_heads,
        ),
    )
    for i in range(shape.num_layers):
        attention, feed_forward = (f"encoder.block.{i}.layer.{part}" for part in (0, 1))
        norm = read(f"{attention}.layer_norm.weight", shape.d_model)
        qkv = [read(f"{attention}.SelfAttention.{part}.weight", inner, shape.d_model) for part in "qkv"]
        yield f"layers.{i}.qkv", torch.cat(qkv) * norm
        yield f"layers.{i}.o", read(f"{attention}.SelfAttention.o.weight", shape.d_model, inner)
        norm = read(f"{feed_forward}.layer_norm.weight", shape.d_model)
        yield (
            f"layers.{i}.wi",
            read(f"{feed_forward}.DenseReluDense.wi.weight", shape.d_ff, shape.d_model) * norm,
        )
        yield f"layers.{i}.wo", read(f"{feed_forward}.DenseReluDense.wo.weight", shape.d_model, shape.d_ff)
    yield "final_norm", read("encoder.final_layer_norm.weight", shape.d_model)
    dense = checkpoint.read_dense()
    if dense is not None:
        yield "dense", dense


def _convert(name: str, tensor: Tensor, precision: str) -> Iterator[tuple[str, Tensor]]:
    if name in _ALWAYS_FLOAT32 or precision == "float32":
        yield name, tensor.float().contiguous()
    elif precision == "bfloat16" or name == "embedding":
        yield name, tensor.bfloat16().contiguous()
    else:
        codes, scale = quantize(tensor.float())
        yield name, codes
        yield get_scale_name(name), scale
