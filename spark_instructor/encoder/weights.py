"""Opening a checkpoint's weight files: safetensors, sharded safetensors, or pickles that hold tensors alone."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import is_file, is_valid_name, read_json, short_repr

ReadTensor = Callable[[str], Tensor]


class Weights:
    """The weights of one module, each tensor read when it is asked for."""

    def __init__(self, source: Path, files: list[Path], readers: Mapping[str, ReadTensor]) -> None:
        self.source, self.files, self._readers = source, files, readers

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def read(self, name: str, expected: tuple[int, ...]) -> Tensor:
        """A tensor in float32; ValueError where it is missing, has another shape or holds no finite numbers."""
        if name not in self._readers:
            raise ValueError(f"{self.source} has no tensor {name}: the weights do not belong to its config.json")
        tensor = self._readers[name](name)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{self.source}: tensor {name} has the shape {tuple(tensor.shape)}, but "
                f"{self.source.parent / 'config.json'} asks for {expected}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{self.source}: tensor {name} holds {tensor.dtype}, expected floating point")
        try:
            tensor = tensor.detach().float()
        except RuntimeError as error:  # a dtype that this torch can hold but not convert
            raise ValueError(f"{self.source}: tensor {name} holds {tensor.dtype}: {error}") from error
        if not all(math.isfinite(extreme) for extreme in tensor.aminmax()):
            raise ValueError(f"{self.source}: tensor {name} holds NaN or an infinity in float32. Download it again.")
        return tensor


def open_weights(folder: Path) -> Weights:
    """The weights in a folder: safetensors, sharded safetensors, or else a pickle without code."""
    single, index, pickled = (
        folder / name for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    )
    if is_file(single):
        return Weights(single, [single], open_safetensors(single))
    if is_file(index):
        return _open_shards(index)
    if is_file(pickled):
        tensors = _load_pickle(pickled)
        return Weights(pickled, [pickled], dict.fromkeys(tensors, tensors.__getitem__))
    raise FileNotFoundError(f"{folder} has no weights: expected model.safetensors or pytorch_model.bin")


def _open_shards(index: Path) -> Weights:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no weight_map")
    opened: dict[str, Mapping[str, ReadTensor]] = {}
    for shard in weight_map.values():
        if (
            not isinstance(shard, str)
            or not is_valid_name(shard)
            or Path(shard).name != shard
            or not shard.endswith(".safetensors")
        ):
            raise ValueError(f"{index} names the shard {short_repr(shard)}, expected a safetensors file beside it")
        if shard not in opened:
            if not is_file(index.parent / shard):
                raise FileNotFoundError(f"{index} names the shard {shard}, which is not there")
            opened[shard] = open_safetensors(index.parent / shard)
    missing = [name for name, shard in weight_map.items() if name not in opened[shard]]
    if missing:
        raise ValueError(f"{index.parent / weight_map[missing[0]]} has no tensor {missing[0]}, against {index.name}")
    readers = {name: opened[shard][name] for name, shard in weight_map.items()}
    return Weights(index, [index, *(index.parent / shard for shard in opened)], readers)


def open_safetensors(path: Path) -> Mapping[str, ReadTensor]:
    """The names in a safetensors file, each with what reads its tensor; ValueError where the file is damaged."""
    try:
        file = safe_open(str(path), framework="pt")
        return dict.fromkeys(file.keys(), file.get_tensor)  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Download it again.") from error


def _load_pickle(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a .bin file; ``weights_only`` refuses a pickle that would run code."""
    try:
        as_zip = _is_zip(path)
        if as_zip and _is_compressed(path):  # torch writes none, and maps one as if it held the numbers themselves
            raise pickle.UnpicklingError("its records are compressed")
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=as_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused, and nothing in it was run: it holds more than tensors, or it is damaged "
            f"({str(error).partition(chr(10))[0]}). Use a checkpoint in safetensors."
        ) from error
    except Exception as error:  # torch and its unpickler raise many kinds over damaged files
        raise ValueError(f"{path} is not a whole weight file ({error}). Download it again.") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{path} does not hold a state dict: expected tensors by name")
    for name, tensor in tensors.items():
        if not _is_plain(tensor):
            raise ValueError(
                f"{path} does not hold a state dict: {short_repr(name)} is not a dense tensor with all "
                "its numbers in the file"
            )
    return tensors


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())


def _is_plain(tensor: object) -> bool:
    """Whether it is a dense tensor whose storage backs its shape: a stride of 0 makes any size of one number."""
    if not isinstance(tensor, Tensor) or tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
