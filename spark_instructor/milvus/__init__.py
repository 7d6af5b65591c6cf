"""INSTRUCTOR for Milvus: an embedding function for pymilvus, and a writer for DataFrames.

Each name is loaded at first use: pymilvus.model takes seconds to import, and executors that write do not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedding_function import InstructorEmbeddingFunction
    from .requests import WriteCounts
    from .writer import write_to_milvus

_MODULES = {
    "InstructorEmbeddingFunction": "embedding_function",
    "WriteCounts": "requests",
    "write_to_milvus": "writer",
}

__all__ = ["InstructorEmbeddingFunction", "WriteCounts", "write_to_milvus"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
