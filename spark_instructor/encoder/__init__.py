"""The INSTRUCTOR encoder, built on torch. It does not depend on Spark, so Spark, Milvus and plain Python share it.

Each name is loaded when it is first used, because the Spark driver needs some of these modules but not torch.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Encoded, InstructorModel
    from .preparation import prepare, prepare_model
    from .tokenizer import T5Tokenizer, warn_if_joined

# OpenMP reads this when torch is first imported. By default its idle threads spin, which takes CPU time from other
# processes and makes encoding several times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


# A fork copies no threads, but in the child OpenMP would wait forever for those of its parent.
os.register_at_fork(after_in_child=_use_one_thread)

_MODULES = {
    "Encoded": "model",
    "InstructorModel": "model",
    "T5Tokenizer": "tokenizer",
    "prepare": "preparation",
    "prepare_model": "preparation",
    "warn_if_joined": "tokenizer",
}

__all__ = ["Encoded", "InstructorModel", "T5Tokenizer", "prepare", "prepare_model", "warn_if_joined"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
