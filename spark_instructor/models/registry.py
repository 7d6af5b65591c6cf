"""Names to checkpoint folders: the known models, the hub, local folders, the packaged model."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..files import local_path

_PACKAGED = Path(__file__).parent
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

# Everything a checkpoint needs but its encoder's weights. Dense is small, and often there as a .bin alone.
_SMALL_FILES = ["*.json", "*.model", "*_Dense/*"]


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A checkpoint that has a name here."""

    name: str
    """The name that Spark NLP gives it."""
    source: str
    """Its id on the hub, or "packaged" for the one that comes with this package."""
    dimension: int
    size_mb: int
    """Size of its float32 weights."""
    description: str


_KNOWN = (
    KnownModel("instructor_tiny", "packaged", 384, 29, "4 layers, d_model 256; small, English, needs no network"),
    KnownModel("instructor_base", "hkunlp/instructor-base", 768, 440, "12 layers, d_model 768"),
    KnownModel("instructor_large", "hkunlp/instructor-large", 768, 1340, "24 layers, d_model 1024"),
    KnownModel("instructor_xl", "hkunlp/instructor-xl", 768, 4960, "24 layers, d_model 1024, d_ff 16384"),
)


def known_models() -> list[KnownModel]:
    """The checkpoints that `InstructorEmbeddings.pretrained` knows by name."""
    return list(_KNOWN)


def is_cached(model: KnownModel) -> bool:
    """Whether a known model is on this machine: packaged, or in huggingface_hub's cache."""
    if model.source == "packaged":
        return True
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(model.source, "config.json"), str)


def checkpoint_folder(model: str, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded first where it lives on the hub.

    ``model`` is a known name, a hub id ("owner/name") or a folder (a path or a ``file:`` URI);
    ``revision`` pins a hub checkpoint to a branch, a tag or a commit. Downloads go to the cache of
    huggingface_hub (HF_HOME), whose settings hold (HF_HUB_OFFLINE, HF_ENDPOINT, tokens).

    Raises ValueError for an unknown name, FileNotFoundError for a missing folder, and ConnectionError,
    saying what to do, where the hub cannot be reached.
    """
    known = _known(model)
    if known is not None:
        return _PACKAGED / known.name if known.source == "packaged" else _from_hub(known.source, revision)
    path = local_folder(model)
    if path is not None:
        return path
    if _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _from_hub(model, revision)
    if "/" in model or "\\" in model:
        raise FileNotFoundError(f"there is no checkpoint folder {local_path(model)}")
    names = ", ".join(one.name for one in _KNOWN)
    raise ValueError(f"unknown model {model!r}: expected one of {names}, a hub id (owner/name) or a folder")


def local_folder(model: str) -> Path | None:
    """The folder of one's own that ``model`` names; None for a known name, whatever lies here, and for a hub id."""
    with suppress(OSError):  # a name that is too long for a file system
        if model and _known(model) is None and local_path(model).is_dir():
            return local_path(model)
    return None


def _known(name: str) -> KnownModel | None:
    return next((one for one in _KNOWN if one.name == name), None)


@cache  # one session keeps to one revision, and asks the hub once
def _from_hub(hub_id: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise ImportError(
            f"{hub_id} is on the hub: pip install 'spark-instructor-embeddings[hub]', or name a folder that holds it"
        ) from error

    def download(*weights: str) -> Path:
        return Path(
            huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=[*_SMALL_FILES, *weights])
        )

    try:
        folder = download("*.safetensors")
        if not any(folder.glob("*.safetensors")):
            folder = download("*pytorch_model.bin")
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"the hub has no {hub_id} at revision {revision or 'main'}, or it is private and no token is set: {error}"
        ) from error
    except Exception as error:  # the hub's client raises many kinds, and its own change between versions
        raise ConnectionError(
            f"{hub_id} is not in the local cache and could not be downloaded ({type(error).__name__}: {error}). Where "
            "there is no network: run the same on a machine that has it and copy its HF_HOME here, or copy the "
            "checkpoint's folder here and pass its path."
        ) from error
    return folder
