"""Opening a checkpoint's weight files: safetensors or pickles that hold only tensors, in one file or in shards."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor

from ..files import can_map, is_file, is_valid_name, read_json, short_repr

ReadTensor = Callable[[str], Tensor]


class Weights:
    """The weights of one module. A tensor is read from its file when it is asked for."""

    def __init__(self, source: Path, files: list[Path], readers: Mapping[str, ReadTensor]) -> None:
        self.source, self.files, self._readers = source, files, readers

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Read a tensor and convert it to float32.

        Raises ValueError if the tensor is missing, if it has another shape than ``shape``, or if its values are not
        finite floating-point numbers.
        """
        if name not in self._readers:
            raise ValueError(f"{self.source} has no tensor {name}: the weights do not match its config.json")
        try:
            tensor = self._readers[name](name)
        except AttributeError as error:  # safetensors looks up a dtype that this torch lacks
            raise ValueError(f"{self.source}: torch {torch.__version__} cannot hold tensor {name}: {error}") from error
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{self.source}: tensor {name} has the shape {tuple(tensor.shape)}, but "
                f"{self.source.parent / 'config.json'} requires {shape}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{self.source}: tensor {name} holds {tensor.dtype}, expected floating point")
        try:
            tensor = tensor.detach().float()
        except RuntimeError as error:  # this torch can load the dtype but not convert it
            raise ValueError(f"{self.source}: tensor {name} holds {tensor.dtype}: {error}") from error
        if not all(math.isfinite(extreme) for extreme in tensor.aminmax()):
            raise ValueError(f"{self.source}: tensor {name} holds NaN or infinity in float32. Download it again.")
        return tensor


def open_weights(folder: Path) -> Weights:
    """Open the weights in a folder: ``model.safetensors`` if it exists, otherwise ``pytorch_model.bin``.

    Instead of a file, there may be shards and their index.

    Raises FileNotFoundError if there are no weights and ValueError, naming the file, if one is damaged.
    """
    for name, open_file in (("model.safetensors", open_safetensors), ("pytorch_model.bin", _open_pickle)):
        file, index = folder / name, folder / f"{name}.index.json"
        if is_file(file):
            return Weights(file, [file], open_file(file))
        if is_file(index):
            return _open_shards(index, file.suffix, open_file)
    raise FileNotFoundError(f"{folder} has no weights: expected model.safetensors or pytorch_model.bin")


def load_safetensors(path: Path, device: str) -> dict[str, Tensor]:
    """Load the tensors of a safetensors file. On a CPU they are mapped, so that processes share the pages of the file.

    If the file cannot be mapped, it is read, and this process then has its own copy.
    """
    if can_map(path):
        return load_file(path, device=device)
    return {name: tensor.to(device) for name, tensor in load(path.read_bytes()).items()}


def open_safetensors(path: Path) -> Mapping[str, ReadTensor]:
    """Map each tensor's name in a safetensors file to a function that reads it; raise ValueError for a damaged file."""
    try:
        if not can_map(path):
            tensors = load(path.read_bytes())
            return dict.fromkeys(tensors, tensors.__getitem__)
        file = safe_open(str(path), framework="pt")
        return dict.fromkeys(file.keys(), file.get_tensor)  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}). Download it again.") from error


def _open_shards(index: Path, suffix: str, open_shard: Callable[[Path], Mapping[str, ReadTensor]]) -> Weights:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no weight_map")
    shards: dict[str, Mapping[str, ReadTensor]] = {}
    for shard in weight_map.values():
        if not _is_shard_name(shard, suffix):
            raise ValueError(
                f"{index} names the shard {short_repr(shard)}, expected a {suffix} file in the same folder"
            )
        if shard not in shards:
            if not is_file(index.parent / shard):
                raise FileNotFoundError(f"{index} names the shard {shard}, which does not exist")
            shards[shard] = open_shard(index.parent / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise ValueError(f"{index.parent / shard} has no tensor {name}, but {index.name} says that it has")
    readers = {name: shards[shard][name] for name, shard in weight_map.items()}
    return Weights(index, [index, *(index.parent / shard for shard in shards)], readers)


def _is_shard_name(name: object, suffix: str) -> bool:
    """Tell whether ``name`` can be a file beside the index, and not one elsewhere."""
    return isinstance(name, str) and is_valid_name(name) and Path(name).name == name and name.endswith(suffix)


def _open_pickle(path: Path) -> Mapping[str, ReadTensor]:
    """Map the names in a .bin file to a function that reads; ``weights_only`` refuses a pickle that would run code."""
    try:
        is_zip = _is_zip(path)
        if is_zip and _is_compressed(path):  # torch would map the compressed bytes as if they were the numbers
            raise pickle.UnpicklingError("its records are compressed")
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip and can_map(path))
    except pickle.UnpicklingError as error:
        reason, _, _ = str(error).partition("\n")
        raise ValueError(
            f"{path} was refused, and no code in it was run: it holds more than tensors, or it is damaged ({reason}). "
            "Use a checkpoint in safetensors format."
        ) from error
    except Exception as error:  # torch and its unpickler raise errors of many types for damaged files
        raise ValueError(f"{path} is not a complete weight file ({error}). Download it again.") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{path} does not hold a state dict: expected a dict that maps names to tensors")
    for name, tensor in tensors.items():
        if not _is_plain(tensor):
            raise ValueError(
                f"{path} does not hold a state dict: {short_repr(name)} is not a dense tensor whose values are all in "
                "the file"
            )
    return dict.fromkeys(tensors, tensors.__getitem__)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())


def _is_plain(tensor: object) -> bool:
    """Tell whether this is a dense tensor with storage for its whole shape.

    With a stride of 0, a single number could pretend to be a tensor of any size.
    """
    if not isinstance(tensor, Tensor) or tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
