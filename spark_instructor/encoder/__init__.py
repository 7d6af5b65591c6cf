"""INSTRUCTOR's encoder in torch; knows no Spark, so that Spark, Milvus and plain Python share it.

Each name is loaded when it is first used: the driver needs some modules of this package, but not torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Encoded, InstructorModel
    from .preparation import prepare, prepare_model
    from .tokenizer import T5Tokenizer

# Before torch is first imported: threads that spin while they wait take the cpus of other processes, and where those
# are busy a text takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MODULE_OF = {
    "Encoded": "model",
    "InstructorModel": "model",
    "T5Tokenizer": "tokenizer",
    "prepare": "preparation",
    "prepare_model": "preparation",
}

__all__ = ["Encoded", "InstructorModel", "T5Tokenizer", "prepare", "prepare_model"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
