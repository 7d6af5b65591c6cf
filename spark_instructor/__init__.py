"""INSTRUCTOR text embeddings for Apache Spark, in the style of Spark NLP.

Importing this package imports neither torch nor pyspark: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .models.prepared import list_prepared
    from .models.registry import known_models
    from .stages.annotation import Annotation
    from .stages.assembler import DocumentAssembler
    from .stages.embeddings import InstructorEmbeddings
    from .stages.finisher import EmbeddingsFinisher
    from .stages.light_pipeline import LightPipeline

_MODULE_OF = {
    "Annotation": "stages.annotation",
    "DocumentAssembler": "stages.assembler",
    "EmbeddingsFinisher": "stages.finisher",
    "InstructorEmbeddings": "stages.embeddings",
    "LightPipeline": "stages.light_pipeline",
    "known_models": "models.registry",
    "list_prepared": "models.prepared",
}

__all__ = [
    "Annotation",
    "DocumentAssembler",
    "EmbeddingsFinisher",
    "InstructorEmbeddings",
    "LightPipeline",
    "known_models",
    "list_prepared",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
