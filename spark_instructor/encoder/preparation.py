"""Preparing a model: converting a checkpoint in the hub's layout to the folder that workers load."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import local_path, short_repr
from ..models.prepared import (
    FORMAT_VERSION,
    PRECISIONS,
    TOKENIZER,
    WEIGHTS,
    PreparedModel,
    cached_path,
    is_prepared,
    make_folder_name,
    read_prepared,
    to_file_name,
    write_manifest,
)
from ..models.publishing import create_folder, is_free, publish_folder
from .checkpoint import Checkpoint
from .linear import get_scale_name, quantize
from .rotation import rotate
from .tokenizer import build_tokenizer
from .weights import open_safetensors

logger = logging.getLogger(__name__)

# These stay float32 in every precision: they are small, and every vector passes through them.
_ALWAYS_FLOAT32 = ("relative_attention_bias", "final_norm", "dense")


_FileStates = tuple[tuple[str, int, int], ...]
"""Path, size in bytes and modification time in nanoseconds of each file."""

# Hashing a checkpoint takes seconds, and each use of `instructor_embed` would repeat it.
_prepared_models: dict[tuple[object, ...], tuple[_FileStates, PreparedModel]] = {}


def prepare(
    checkpoint: str | os.PathLike[str], precision: str | None = None, into: str | os.PathLike[str] | None = None
) -> Path:
    """Convert a checkpoint to a prepared folder and return its path.

    A folder that is already there is verified and used again.

    Args:
        checkpoint: A checkpoint folder in the hub's layout, or a prepared folder. A float32 prepared folder can be
            converted to a narrower precision.
        precision: "float32", "bfloat16" or "int8". By default the precision of a prepared folder, and float32 for a
            checkpoint. With int8, each row of a weight matrix has a scale, and activations are quantized while the
            model runs; the weights are rotated first, so that no channel is much larger than the others.
        into: The folder to write. By default it is in the cache, under a name that contains the hash of the content.

    Returns:
        The path of the prepared folder.

    Raises:
        FileNotFoundError: The checkpoint folder or one of its files is missing.
        ValueError: The precision is unknown; the checkpoint is damaged or not supported (the message names the file);
            a prepared folder was changed, or is too narrow for the requested precision.
        FileExistsError: ``into`` already holds something else.
    """
    return prepare_model(checkpoint, precision, into).path


def prepare_model(
    checkpoint: str | os.PathLike[str], precision: str | None = None, into: str | os.PathLike[str] | None = None
) -> PreparedModel:
    """Do what `prepare` does, and return the prepared folder's manifest with its path.

    This process remembers the model until the size or the time of a file in one of the two folders changes.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    folder = local_path(checkpoint).absolute()
    target = None if into is None else local_path(into).absolute()
    key = (folder, precision, target, os.environ.get("HF_HOME"))
    states, model = _prepared_models.get(key, ((), None))
    if model is None or states != _read_states(folder, model.path):
        model = _prepare(folder, precision, target)
        _prepared_models[key] = _read_states(folder, model.path), model
    return model


def _read_states(*folders: Path) -> _FileStates:
    stats = [(path, path.stat()) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def _prepare(folder: Path, precision: str | None, target: Path | None) -> PreparedModel:
    source = read_prepared(folder) if is_prepared(folder) else Checkpoint(folder)
    if isinstance(source, PreparedModel):
        precision = precision or source.precision
        source.verify()
        if source.precision == precision and target is None:
            return source
        if source.precision not in (precision, "float32"):
            raise ValueError(
                f"'{source.name}' ({folder}) was prepared in {source.precision}; {precision} cannot be recovered from "
                f"it. Load the original checkpoint, or keep precision '{source.precision}'."
            )
        name = source.name
        model_hash = source.hash if source.precision == precision else _hash_model(source.content_hash, precision)
    else:
        precision = precision or "float32"
        name, model_hash = _name_checkpoint(folder), _hash_model(source.hash_content(), precision)

    if target is None:
        target = cached_path(make_folder_name(name, precision, model_hash))
    else:
        create_folder(target.parent)
    if not is_prepared(target):
        if not is_free(target):
            _refuse_occupied(target)
        logger.info("Preparing %s in %s: writing %s", name, precision, target)
        start = time.perf_counter()
        with publish_folder(target) as new:
            _write_tokenizer(source, new / TOKENIZER)
            _write_weights(source, precision, new / WEIGHTS)
            write_manifest(
                new,
                name=name,
                hash=model_hash,
                precision=precision,
                max_length=source.max_length,
                architecture=source.architecture,
                include_prompt=source.include_prompt,
                default_prompt=source.default_prompt,
                has_normalize=source.has_normalize,
            )
        logger.info("Prepared %s in %s in %.1f seconds", name, precision, time.perf_counter() - start)
    model = read_prepared(target)
    if model.hash != model_hash:  # also if another process has just written something else there
        _refuse_occupied(target)
    model.verify()
    return model


def _refuse_occupied(folder: Path) -> NoReturn:
    raise FileExistsError(f"{folder} exists and holds something else. Pass a new or an empty folder.")


def _name_checkpoint(folder: Path) -> str:
    """Return a name that is safe for files: the folder's, or the repository's for a snapshot in the hub's cache."""
    name = folder.name
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        name = folder.parent.parent.name.rsplit("--", 1)[-1]
    return to_file_name(name)


def _hash_model(source_hash: str, precision: str) -> str:
    # Folders in int8 from before this rotation stay readable, but must not be taken for new ones.
    conversion = "int8 rotated with signs" if precision == "int8" else precision
    return hashlib.sha256(f"{source_hash} {conversion} {FORMAT_VERSION}".encode()).hexdigest()


def _write_tokenizer(source: Checkpoint | PreparedModel, path: Path) -> None:
    if isinstance(source, PreparedModel):
        shutil.copyfile(source.path / TOKENIZER, path)
        return
    tokenizer = build_tokenizer(source.tokenizer_json, source.spiece_model)
    required = max(tokenizer.get_vocab().values()) + 1
    if required > source.architecture.vocab_size:
        raise ValueError(
            f"{source.folder}: the tokenizer needs a vocab_size of at least {required}, but config.json says "
            f"{source.architecture.vocab_size}. The files do not belong together."
        )
    # An ordinary piece with this id is not enough: added tokens are matched first, even inside words.
    added = {str(number): token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    for listed in source.added_tokens:
        if listed.content not in (added.values() if listed.id is None else [added.get(listed.id)]):
            with_id = "" if listed.id is None else f" with the id {short_repr(listed.id)}"
            raise ValueError(
                f"{listed.path} adds the token {short_repr(listed.content)}{with_id}, which the tokenizer lacks. Write "
                "a tokenizer.json that has all tokens, with transformers: "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
    tokenizer.save(str(path), pretty=False)


def _write_weights(source: Checkpoint | PreparedModel, precision: str, path: Path) -> None:
    if isinstance(source, PreparedModel) and source.precision == precision:
        shutil.copyfile(source.path / WEIGHTS, path)
        return
    tensors: dict[str, Tensor] = {}
    addresses = set()
    source_tensors = _read_tensors(source)
    if precision == "int8":
        source_tensors = rotate(source_tensors, source.architecture)
    for source_name, source_tensor in source_tensors:
        for name, tensor in _convert(source_name, source_tensor, precision):
            # safetensors requires a storage for each tensor, but tensors in a .bin file may share one.
            address = tensor.untyped_storage().data_ptr()
            tensors[name] = tensor.clone() if address in addresses else tensor
            addresses.add(address)
    save_file(tensors, path)


def _read_tensors(source: Checkpoint | PreparedModel) -> Iterable[tuple[str, Tensor]]:
    if isinstance(source, PreparedModel):
        return ((name, read(name)) for name, read in open_safetensors(source.path / WEIGHTS).items())
    return _fuse_tensors(source)


def _fuse_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `T5Encoder` takes, in float32.

    The scale of an RMS norm multiplies the columns of the matrices after it, so it is folded into q, k, v and wi.
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
        wi = read(f"{feed_forward}.DenseReluDense.wi.weight", shape.d_ff, shape.d_model)
        yield f"layers.{i}.wi", wi * norm
        yield f"layers.{i}.wo", read(f"{feed_forward}.DenseReluDense.wo.weight", shape.d_model, shape.d_ff)
    yield "final_norm", read("encoder.final_layer_norm.weight", shape.d_model)
    dense = checkpoint.read_dense()
    if dense is not None:
        yield "dense", dense


def _convert(name: str, tensor: Tensor, precision: str) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor in the dtype for its role; a quantized matrix is followed by its scale."""
    if name in _ALWAYS_FLOAT32 or precision == "float32":
        yield name, tensor.float().contiguous()
    elif precision == "bfloat16" or name == "embedding":
        yield name, tensor.bfloat16().contiguous()
    else:
        codes, scale = quantize(tensor.float())
        yield name, codes
        yield get_scale_name(name), scale
