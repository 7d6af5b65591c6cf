"""The prepared folder: what the driver makes of a checkpoint once, and every worker maps.

It holds three files and never changes once it has its name:

- ``model.safetensors``: the fused weights in the precision of use, plain row-major;
- ``tokenizer.json``: the fast tokenizer, its pipeline set;
- ``prepared.json``: shapes, limits, precision, and the hashes of content.

Nothing here needs torch or Spark, so that the driver's side and the executors' can both read it.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import repr as shown
from typing import Any

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
MANIFEST = "prepared.json"
PRECISIONS = ("float32", "bfloat16", "int8")
MOST_LENGTH = 2**20
"""Most tokens of one sequence that any model may have: the table of position biases grows with it."""
_SECONDS_TO_WRITE = 24 * 3600  # no folder takes that long


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a T5 encoder with its Dense layer, in the names of Hugging Face's config.json."""

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
    """Width of the vectors: the Dense layer's output, or d_model where there is no Dense layer."""


@dataclasses.dataclass(frozen=True)
class PreparedModel:
    """A prepared folder and what its ``prepared.json`` says."""

    path: Path
    name: str
    """The checkpoint's name, for messages."""
    hash: str
    """SHA-256 over the checkpoint's content, the precision and the format: equal hashes give equal vectors."""
    precision: str
    max_length: int
    """Most tokens of one sequence, instruction and ``</s>`` included."""
    architecture: Architecture
    files: dict[str, str]
    """SHA-256 of each file beside ``prepared.json``."""
    sizes: dict[str, int]
    """Bytes of each file beside ``prepared.json``."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that makes the vectors, which `verify` checks; ``hash`` is but said of it."""
        content = [FORMAT_VERSION, self.max_length, dataclasses.asdict(self.architecture), self.files]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> str:
        """A short name of this content, for copies of the folder: another's model never has it."""
        return prepared_key(self.name, self.precision, self.digest)

    @property
    def paths(self) -> list[Path]:
        """The folder's files, whatever else lies there."""
        return [self.path / name for name in sorted([MANIFEST, *self.files])]

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.architecture.dimension

    def verify(self) -> None:
        """Read every file again; ValueError where one differs from what was prepared."""
        for name, expected in self.files.items():
            if file_hash(self.path / name) != expected:
                raise ValueError(
                    f"{self.path / name} was changed after it was prepared (its SHA-256 differs from the one in "
                    f"{MANIFEST}). Delete the folder {self.path} and let it be prepared again."
                )


def prepared_key(name: str, precision: str, hash: str) -> str:
    """A short name of a prepared model's content, for folders and archives."""
    return f"{name}-{precision}-{hash[:16]}"


def file_name(name: str) -> str:
    """``name`` as files may be called on every system, short enough for precision and hash to follow it."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".")[:100] or "model"


def cache_dir() -> Path:
    """The folder of this machine's prepared models: ``spark_instructor`` inside HF_HOME."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    folder = os.path.expanduser(os.path.expandvars(os.environ.get("HF_HOME", default)))
    if folder.startswith("~"):
        raise FileNotFoundError(
            f"there is no home folder to keep prepared models in ({folder}): set HF_HOME to a folder"
        )
    return Path(folder, "spark_instructor").absolute()


def list_prepared(folder: str | os.PathLike[str] | None = None) -> list[PreparedModel]:
    """The prepared models in ``folder`` (default: this machine's cache), sorted by name.

    One that is damaged, or of another version's format, is left out with a warning that says why.
    """
    root = Path(folder) if folder is not None else cache_dir()
    models = []
    for manifest in sorted(root.glob(f"[!.]*/{MANIFEST}")):  # a leading dot: not yet whole
        try:
            models.append(read_prepared(manifest.parent))
        except (OSError, ValueError) as error:
            warnings.warn(str(error), stacklevel=2)
    return models


def is_prepared(folder: Path) -> bool:
    """Whether ``folder`` has the layout of a prepared folder."""
    return os.path.isfile(folder / MANIFEST)


def read_prepared(folder: str | os.PathLike[str]) -> PreparedModel:
    """Read and check ``prepared.json`` and the sizes of the files beside it.

    Raises FileNotFoundError where a file is missing and ValueError where the format is unknown or a file
    is not as long as it was when it was prepared.
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
            f"{path} has format version {shown(version)}; this spark_instructor reads version {FORMAT_VERSION}. "
            "Install the same version of spark-instructor-embeddings on the driver and on the executors."
        )
    for name, size in model.sizes.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found is None:
            raise FileNotFoundError(f"{path} lacks {name}: the prepared model '{model.name}' is incomplete")
        if found != size:
            raise ValueError(
                f"{path / name} has {found:,} bytes, expected {size:,}: the prepared model '{model.name}' was cut "
                "short or changed. Delete the folder and let it be prepared again."
            )
    return model


_MANIFEST_FIELDS = [field.name for field in dataclasses.fields(PreparedModel) if field.name != "path"]


def _from_manifest(path: Path, manifest: dict[str, Any]) -> PreparedModel:
    """The model that a manifest describes; ValueError where a value could not have been written by `write_manifest`."""
    fields = {name: manifest[name] for name in _MANIFEST_FIELDS}
    shape = Architecture(**fields["architecture"])
    files = {WEIGHTS, TOKENIZER}
    numbers = [value for name, value in dataclasses.asdict(shape).items() if name != "layer_norm_epsilon"]
    sound = {
        # Name and hash become names of files, so they must not lead out of the cache.
        "name": isinstance(fields["name"], str) and file_name(fields["name"]) == fields["name"],
        "hash": isinstance(fields["hash"], str) and re.fullmatch("[0-9a-f]{64}", fields["hash"]) is not None,
        "precision": fields["precision"] in PRECISIONS,
        "max_length": type(fields["max_length"]) is int and 2 <= fields["max_length"] <= MOST_LENGTH,
        "architecture": isinstance(shape.layer_norm_epsilon, float)
        and all(type(number) is int and number > 0 for number in numbers),
        "files": _maps(fields["files"], files, str),
        "sizes": _maps(fields["sizes"], files, int),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise ValueError(f"{name} is {shown(fields[name])}")
    return PreparedModel(path=path, **{**fields, "architecture": shape})


def _maps(value: Any, keys: set[str], kind: type) -> bool:
    return isinstance(value, dict) and value.keys() == keys and all(type(one) is kind for one in value.values())


def write_manifest(
    folder: Path, *, name: str, hash: str, precision: str, max_length: int, architecture: Architecture
) -> None:
    """Write ``prepared.json`` for the files that lie in ``folder``."""
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "hash": hash,
        "precision": precision,
        "max_length": max_length,
        "architecture": dataclasses.asdict(architecture),
        "files": {file: file_hash(folder / file) for file in (WEIGHTS, TOKENIZER)},
        "sizes": {file: (folder / file).stat().st_size for file in (WEIGHTS, TOKENIZER)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of one file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final`` that takes its name when the block ends well.

    Nobody ever sees a half-written ``final``: after an error the temporary folder is dropped, and where
    another process was first, its folder stays. What a killed process left is removed a day later.

    Raises OSError, saying what to do, where the disk is full.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f".{glob.escape(final.name)}-*"):
        with suppress(FileNotFoundError):  # another process gave it its name just now
            if time.time() - left.stat().st_mtime > _SECONDS_TO_WRITE:
                shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(final)
        except OSError:
            if not is_prepared(final):
                raise
    except Exception as error:
        # tokenizers and safetensors say it in words alone.
        said = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else said and int(said[1])
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"there is no room for the prepared model {final} ({os.strerror(number)}). Free some, or use another "
            "disk: HF_HOME says where the cache is, TMPDIR where executors keep models."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
