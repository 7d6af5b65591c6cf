"""INSTRUCTOR for Milvus: an embedding function of pymilvus, and a writer for DataFrames.

Each name is loaded when it is first used: pymilvus.model takes seconds to import, which executors that write need not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedding_function import InstructorEmbeddingFunction
    from .writer import WriteCounts, write_to_milvus

_MODULE_OF = {
    "InstructorEmbeddingFunction": "embedding_function",
    "WriteCounts": "writer",
    "write_to_milvus": "writer",
}

__all__ = ["InstructorEmbeddingFunction", "WriteCounts", "write_to_milvus"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
