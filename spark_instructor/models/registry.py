"""From the name of a model to the folder of its checkpoint: known models, the hub and local folders."""

from __future__ import annotations

import dataclasses
import logging
import re
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from ..files import local_path
from .installed import PACKAGED, find_installed, list_installed
from .prepared import PreparedModel, is_prepared, read_prepared

_log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

MODEL_CARD = "README.md"
LICENSES = ("LICEN[CS]E*", "NOTICE*")
"""Patterns for the license files of a checkpoint."""

# All files of a checkpoint except the weights of the encoder. Dense is small and often exists only as a .bin.
_SMALL_FILES = ["*.json", "*.model", "*_Dense/*", MODEL_CARD, *LICENSES]


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A checkpoint that this package knows by name."""

    name: str
    """The name in Spark NLP."""
    source: str
    """Its id on the Hugging Face hub, or "packaged" for the model that comes with this package."""
    dimension: int
    """Width of the vectors."""
    size_mb: int
    """Size of the float32 weights in megabytes."""
    description: str
    max_length: int = 512
    """Maximum number of tokens per text, including the instruction and ``</s>``."""


_KNOWN = (
    KnownModel(PACKAGED.name, "packaged", 384, 29, "4 layers, d_model 256; small, English, needs no network"),
    KnownModel("instructor_base", "hkunlp/instructor-base", 768, 440, "12 layers, d_model 768"),
    KnownModel("instructor_large", "hkunlp/instructor-large", 768, 1340, "24 layers, d_model 1024"),
    KnownModel("instructor_xl", "hkunlp/instructor-xl", 768, 4960, "24 layers, d_model 1024, d_ff 16384"),
)


def known_models() -> list[KnownModel]:
    """List the checkpoints that `InstructorEmbeddings.pretrained` knows by name."""
    return list(_KNOWN)


def is_cached(model: KnownModel) -> bool:
    """Return whether a known model is on this machine: installed or in the cache of huggingface_hub."""
    if find_installed(model.name) is not None:
        return True
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(model.source, "config.json"), str)


def find_checkpoint(model: str, revision: str | None = None, cache_folder: str | None = None) -> Path:
    """Return the local folder of a checkpoint, and download the checkpoint first if it is on the hub.

    ``model`` is the name of a known or an installed model, a hub id ("owner/name") or a folder (a path, or a ``file:``
    or ``dbfs:`` URI). ``revision`` pins a checkpoint of the hub to a branch, a tag or a commit. An installed model
    comes before the checkpoint of the same name on the hub, unless ``revision`` is set. Downloads go to
    ``cache_folder``, which is by default the cache of huggingface_hub (HF_HOME), and its settings apply
    (HF_HUB_OFFLINE, HF_ENDPOINT, tokens).

    Raises ValueError for an unknown name and for the URI of a file system that is not local, FileNotFoundError for a
    missing folder, ImportError if the model is on the hub and huggingface_hub is not installed, and ConnectionError,
    with advice, if the hub cannot be reached.
    """
    path = find_local_folder(model, revision)
    if path is not None:
        return path
    known = _find_known(model)
    if known is not None:
        return _download(known.source, revision, cache_folder)
    if _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _download(model, revision, cache_folder)
    if "/" in model or "\\" in model:
        raise FileNotFoundError(f"there is no checkpoint folder {local_path(model)}")
    names = list(dict.fromkeys([*(model.name for model in _KNOWN), *list_installed()]))
    similar = get_close_matches(model.replace("-", "_"), names, n=1, cutoff=0.8)
    suggestion = f"; did you mean {similar[0]!r}?" if similar else ""
    raise ValueError(
        f"unknown model {model!r}: expected one of {', '.join(names)}, a hub id (owner/name) or a folder{suggestion}"
    )


def find_local_folder(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of an installed model or the local folder that ``model`` names; None for a model on the hub.

    A known name is never a local folder, even if there is a folder with this name.
    """
    known = _find_known(model)
    is_pinned = revision is not None and known is not None and known.source != "packaged"
    installed = None if is_pinned else find_installed(model)
    if installed is not None:
        return installed
    with suppress(OSError):  # the name is too long for the file system
        if model and known is None and local_path(model).is_dir():
            return local_path(model)
    return None


def name_everywhere(model: str, revision: str | None = None) -> str:
    """Return a name of a model that does not depend on the working directory: an absolute path for a local folder."""
    folder = find_local_folder(model, revision)
    return model if folder is None or find_installed(model) is not None else str(folder.absolute())


def find_known(model: str, revision: str | None = None) -> PreparedModel | KnownModel | None:
    """Return what is known of a model before anything is downloaded or prepared; None if that is nothing."""
    folder = find_local_folder(model, revision)
    if folder is not None and is_prepared(folder):
        return read_prepared(folder)
    return _find_known(model) if revision is None else None


def _find_known(name: str) -> KnownModel | None:
    return next((model for model in _KNOWN if model.name == name), None)


@cache  # a session stays with one revision and asks the hub once
def _download(hub_id: str, revision: str | None, cache_folder: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise ImportError(
            f"{hub_id} is on the hub: pip install 'spark-instructor-embeddings[hub]', or pass a folder that contains it"
        ) from error

    def fetch(*weights: str) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, revision=revision, cache_dir=cache_folder, allow_patterns=[*_SMALL_FILES, *weights]
            )
        )

    _log.info("Looking for %s on the hub and in the local cache", hub_id)
    try:
        folder = fetch("*.safetensors")
        if not any(folder.glob("*.safetensors")):
            folder = fetch("*pytorch_model*.bin")
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"the hub has no {hub_id} at revision {revision or 'main'}, or it is private and no token is set: {error}"
        ) from error
    except Exception as error:  # huggingface_hub raises many types, and they change between versions
        raise ConnectionError(
            f"{hub_id} is neither a folder here nor in the local cache of the hub, and it could not be downloaded "
            f"({type(error).__name__}: {error}). "
            "Without a network, run the same on a machine that has one and copy its HF_HOME here, or copy the "
            "folder of the checkpoint here and pass its path."
        ) from error
    missing = [name for name in ("config.json", "modules.json") if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{hub_id} has no {' and no '.join(missing)} in the local cache of the hub ({folder}): it is not a "
            "sentence-transformers checkpoint, or its download was interrupted; repeat it with a network"
        )
    if not (folder / "sentence_bert_config.json").exists():
        _log.warning(
            "%s has no sentence_bert_config.json, which sets the token limit; if its download was interrupted, repeat "
            "it with a network",
            hub_id,
        )
    return folder
