"""The prepared folder: the driver converts a checkpoint into it once, and every Python worker maps it.

A prepared folder holds three files and never changes after it gets its final name:

- ``model.safetensors``: the fused weights in the precision that is used, row-major;
- ``tokenizer.json``: the fast tokenizer with its whole pipeline;
- ``prepared.json``, the manifest: shapes, limits, the precision and the hashes of the files.

This module needs neither torch nor Spark, so the driver and the executors can both import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files import short_repr

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
MANIFEST = "prepared.json"
PRECISIONS = ("float32", "bfloat16", "int8")
MAX_LENGTH = 2**20
"""The largest token limit that a model may have. The table of position biases grows with the limit."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a T5 encoder with its Dense layer, named as in Hugging Face's config.json."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    layer_norm_epsilon: float
    dimension: int
    """Width of the vectors: the output width of the Dense layer, or d_model if there is no Dense layer."""


@dataclasses.dataclass(frozen=True)
class PreparedModel:
    """A prepared folder and the content of its ``prepared.json``."""

    path: Path
    name: str
    """Name of the checkpoint, for messages and file names."""
    hash: str
    """SHA-256 of the checkpoint's files, the precision and the format version. It is what the manifest claims."""
    precision: str
    max_length: int
    """Maximum number of tokens per sequence, including the instruction and ``</s>``."""
    architecture: Architecture
    include_prompt: bool
    """Whether the instruction's tokens are in the mean."""
    default_prompt: str
    """The instruction for texts that have none; "" if they get none."""
    has_normalize: bool
    """Whether the checkpoint has a Normalize module, so that its own library only gives vectors of length 1."""
    file_hashes: dict[str, str]
    """SHA-256 of each file beside ``prepared.json``."""
    file_sizes: dict[str, int]
    """Size in bytes of each file beside ``prepared.json``."""

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything that determines the vectors; `verify` checks the files against it."""
        content = [FORMAT_VERSION, self.max_length, dataclasses.asdict(self.architecture), self.file_hashes]
        if self.include_prompt or self.default_prompt:  # folders from before these settings keep their hash
            content.append([self.include_prompt, self.default_prompt])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name for copies of this folder. Models with different contents have different names."""
        return make_folder_name(self.name, self.precision, self.content_hash)

    @property
    def paths(self) -> list[Path]:
        """Paths of the model's own files."""
        return [self.path / name for name in sorted([MANIFEST, *self.file_hashes])]

    @property
    def size(self) -> int:
        """Size in bytes of the weights and the tokenizer."""
        return sum(self.file_sizes.values())

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.architecture.dimension

    def verify(self) -> None:
        """Hash every file again; raise ValueError if one differs from the file that was prepared."""
        for name, expected in self.file_hashes.items():
            if hash_file(self.path / name) != expected:
                raise ValueError(
                    f"{self.path / name} was changed after it was prepared (its SHA-256 differs from the one in "
                    f"{MANIFEST}). Delete the folder {self.path} and prepare the model again."
                )


def make_folder_name(name: str, precision: str, hash: str) -> str:
    """Return the name for a prepared folder or an archive of it."""
    return f"{name}-{precision}-{hash[:16]}"


def to_file_name(name: str) -> str:
    """Return ``name`` as a valid file name on every system, with room for a precision and a hash after it."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".")[:100] or "model"


def get_cache_dir() -> Path:
    """Return the folder for prepared models on this machine, ``$HF_HOME/spark_instructor``.

    If this user cannot write there or has no home, it is a temporary folder, and a warning says so.
    """
    configured = _configured_cache_dir()
    if configured is not None and _can_write(configured):
        return configured
    folder = private_folder("spark_instructor-prepared")
    warnings.warn(
        f"{configured or 'the home folder'} cannot be written, so prepared models go to {folder} and may be lost. "
        "Set HF_HOME to a folder that can be written.",
        stacklevel=2,
    )
    return folder


def cached_path(folder_name: str) -> Path:
    """Return the path of a prepared model in the cache of this machine, which may have it or not.

    A cache that cannot be written still serves the models that it has.
    """
    configured = _configured_cache_dir()
    if configured is not None and is_prepared(configured / folder_name):
        return configured / folder_name
    return get_cache_dir() / folder_name


def _configured_cache_dir() -> Path | None:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = os.path.expanduser(os.path.expandvars(os.environ.get("HF_HOME") or default))
    return None if folder.startswith("~") else Path(folder, "spark_instructor").absolute()


def _can_write(folder: Path) -> bool:
    """Return whether this user can write in a folder, or create it if it does not exist."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def private_folder(name: str) -> Path:
    """Return this user's folder of a name among the temporary files of this host; create it if necessary.

    Raises FileExistsError if it is not a folder, and PermissionError if it belongs to another user.
    """
    folder = Path(tempfile.gettempdir(), f"{name}-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(
            f"{folder} is not a folder, so models cannot be stored there; remove it, or set TMPDIR to another folder "
            "(for executors: spark.executorEnv.TMPDIR)"
        ) from None
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; remove it, or set TMPDIR for the executors")
    return folder


def list_prepared(folder: str | os.PathLike[str] | None = None) -> list[PreparedModel]:
    """List the prepared models in ``folder`` (default: the cache of this machine), sorted by folder name.

    If a model is damaged or has the format of another version, the list omits it and a warning says why.
    """
    roots = {get_cache_dir(), _configured_cache_dir() or get_cache_dir()} if folder is None else {Path(folder)}
    # A leading dot marks a folder that is being written.
    manifests = sorted(path for root in roots for path in root.glob(f"[!.]*/{MANIFEST}"))
    return read_intact(manifest.parent for manifest in manifests)


def read_intact(folders: Iterable[Path]) -> list[PreparedModel]:
    """Read prepared folders; warn of each that is damaged or has the format of another version, and omit it."""
    models = []
    for folder in folders:
        try:
            models.append(read_prepared(folder))
        except (OSError, ValueError) as error:
            warnings.warn(str(error), stacklevel=3)
    return models


def is_prepared(folder: Path) -> bool:
    """Return whether ``folder`` contains a manifest."""
    return os.path.isfile(folder / MANIFEST)


def read_prepared(folder: str | os.PathLike[str]) -> PreparedModel:
    """Read ``prepared.json`` and check it and the sizes of the files beside it.

    Raises FileNotFoundError if a file is missing, and ValueError if the manifest is damaged, has an unknown
    format version or does not match the size of a file.
    """
    path = Path(folder)
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        version = manifest["format_version"]
        model = _from_manifest(path, manifest) if version == FORMAT_VERSION else None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not a prepared model: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path / MANIFEST} is damaged ({error!r}). Delete the folder and prepare it again."
        ) from error
    if model is None:
        raise ValueError(
            f"{path} has format version {short_repr(version)}; this spark_instructor reads version {FORMAT_VERSION}. "
            "Install the same version of spark-instructor-embeddings on the driver and on the executors."
        )
    for name, size in model.file_sizes.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found is None:
            raise FileNotFoundError(f"{path} lacks {name}: the prepared model '{model.name}' is incomplete")
        if found != size:
            raise ValueError(
                f"{path / name} has {found:,} bytes, expected {size:,}: the prepared model '{model.name}' was "
                "truncated or changed. Delete the folder and prepare the model again."
            )
    return model


_MANIFEST_KEYS = ("name", "hash", "precision", "max_length", "architecture", "files", "sizes")
_PROMPT_DEFAULTS = {"include_prompt": False, "default_prompt": ""}  # an INSTRUCTOR model's


def _from_manifest(path: Path, manifest: dict[str, Any]) -> PreparedModel:
    """Return the model that a manifest describes; raise ValueError if `write_manifest` cannot have written a value."""
    fields = {key: manifest[key] for key in _MANIFEST_KEYS}
    fields |= {key: manifest.get(key, default) for key, default in _PROMPT_DEFAULTS.items()}
    fields["has_normalize"] = manifest.get("has_normalize", True)  # not said by older folders; INSTRUCTOR's have one
    shape = Architecture(**fields["architecture"])
    files = {WEIGHTS, TOKENIZER}
    numbers = [value for name, value in dataclasses.asdict(shape).items() if name != "layer_norm_epsilon"]
    sound = {
        # The name and the hash become parts of file names, so they must not lead out of the cache.
        "name": isinstance(fields["name"], str) and to_file_name(fields["name"]) == fields["name"],
        "hash": isinstance(fields["hash"], str) and re.fullmatch("[0-9a-f]{64}", fields["hash"]) is not None,
        "precision": fields["precision"] in PRECISIONS,
        "max_length": type(fields["max_length"]) is int and 2 <= fields["max_length"] <= MAX_LENGTH,
        "architecture": isinstance(shape.layer_norm_epsilon, float)
        and all(type(number) is int and number > 0 for number in numbers),
        "include_prompt": isinstance(fields["include_prompt"], bool),
        "default_prompt": isinstance(fields["default_prompt"], str),
        "has_normalize": isinstance(fields["has_normalize"], bool),
        "files": _is_mapping(fields["files"], files, str),
        "sizes": _is_mapping(fields["sizes"], files, int),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise ValueError(f"{key} is {short_repr(fields[key])}")
    return PreparedModel(
        path=path,
        name=fields["name"],
        hash=fields["hash"],
        precision=fields["precision"],
        max_length=fields["max_length"],
        architecture=shape,
        include_prompt=fields["include_prompt"],
        default_prompt=fields["default_prompt"],
        has_normalize=fields["has_normalize"],
        file_hashes=fields["files"],
        file_sizes=fields["sizes"],
    )


def _is_mapping(value: Any, keys: set[str], kind: type) -> bool:
    return isinstance(value, dict) and value.keys() == keys and all(type(item) is kind for item in value.values())


def write_manifest(
    folder: Path,
    *,
    name: str,
    hash: str,
    precision: str,
    max_length: int,
    architecture: Architecture,
    include_prompt: bool,
    default_prompt: str,
    has_normalize: bool,
) -> None:
    """Write ``prepared.json`` for the files in ``folder``."""
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "hash": hash,
        "precision": precision,
        "max_length": max_length,
        "architecture": dataclasses.asdict(architecture),
        "include_prompt": include_prompt,
        "default_prompt": default_prompt,
        "has_normalize": has_normalize,
        "files": {file: hash_file(folder / file) for file in (WEIGHTS, TOKENIZER)},
        "sizes": {file: (folder / file).stat().st_size for file in (WEIGHTS, TOKENIZER)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            sha256.update(block)
    return sha256.hexdigest()
