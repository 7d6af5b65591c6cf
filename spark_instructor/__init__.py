"""INSTRUCTOR text embeddings for Apache Spark, in the style of Spark NLP.

Importing this package imports neither torch nor pyspark: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .annotation import Annotation
    from .annotator import InstructorEmbeddings
    from .assembler import DocumentAssembler
    from .finisher import EmbeddingsFinisher
    from .light_pipeline import LightPipeline
    from .prepared import list_prepared
    from .pretrained import known_models

_MODULE_OF = {
    "Annotation": "annotation",
    "DocumentAssembler": "assembler",
    "EmbeddingsFinisher": "finisher",
    "InstructorEmbeddings": "annotator",
    "LightPipeline": "light_pipeline",
    "known_models": "pretrained",
    "list_prepared": "prepared",
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
