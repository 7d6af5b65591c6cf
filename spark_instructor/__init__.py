"""INSTRUCTOR text embeddings for Apache Spark, in the style of Spark NLP.

Importing this package imports neither torch nor pyspark: each name is loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .encoder import InstructorModel, prepare
    from .evaluation import InstructionComparison, compare_instructions, compare_retrieval_instructions
    from .fingerprints import Changes, rows_to_embed
    from .functions import convert_vectors, cosine_similarity, instructor_embed, register_instructor_embed
    from .incremental import embed_changes
    from .milvus import InstructorEmbeddingFunction, WriteCounts, write_to_milvus
    from .models.prepared import list_prepared
    from .models.registry import known_models
    from .neighbors import near_duplicates, nearest
    from .progress_bar import progress
    from .stages.annotation import Annotation
    from .stages.assembler import DocumentAssembler
    from .stages.embeddings import InstructorEmbeddings
    from .stages.estimate import Estimate
    from .stages.finisher import EmbeddingsFinisher
    from .stages.light_pipeline import LightPipeline
    from .stages.pipelines import load_pipeline, save_pipeline
    from .stages.sentence_detector import SentenceDetector
    from .stages.splitter import DocumentTokenSplitter
    from .tables import embed_table

_MODULES = {
    "Annotation": "stages.annotation",
    "Changes": "fingerprints",
    "DocumentAssembler": "stages.assembler",
    "DocumentTokenSplitter": "stages.splitter",
    "EmbeddingsFinisher": "stages.finisher",
    "Estimate": "stages.estimate",
    "InstructionComparison": "evaluation",
    "InstructorEmbeddingFunction": "milvus",
    "InstructorEmbeddings": "stages.embeddings",
    "InstructorModel": "encoder",
    "LightPipeline": "stages.light_pipeline",
    "SentenceDetector": "stages.sentence_detector",
    "WriteCounts": "milvus",
    "compare_instructions": "evaluation",
    "compare_retrieval_instructions": "evaluation",
    "convert_vectors": "functions",
    "cosine_similarity": "functions",
    "embed_changes": "incremental",
    "embed_table": "tables",
    "instructor_embed": "functions",
    "known_models": "models.registry",
    "list_prepared": "models.prepared",
    "load_pipeline": "stages.pipelines",
    "near_duplicates": "neighbors",
    "nearest": "neighbors",
    "prepare": "encoder",
    "progress": "progress_bar",
    "register_instructor_embed": "functions",
    "rows_to_embed": "fingerprints",
    "save_pipeline": "stages.pipelines",
    "write_to_milvus": "milvus",
}

__all__ = [
    "Annotation",
    "Changes",
    "DocumentAssembler",
    "DocumentTokenSplitter",
    "EmbeddingsFinisher",
    "Estimate",
    "InstructionComparison",
    "InstructorEmbeddingFunction",
    "InstructorEmbeddings",
    "InstructorModel",
    "LightPipeline",
    "SentenceDetector",
    "WriteCounts",
    "compare_instructions",
    "compare_retrieval_instructions",
    "convert_vectors",
    "cosine_similarity",
    "embed_changes",
    "embed_table",
    "instructor_embed",
    "known_models",
    "list_prepared",
    "load_pipeline",
    "near_duplicates",
    "nearest",
    "prepare",
    "progress",
    "register_instructor_embed",
    "rows_to_embed",
    "save_pipeline",
    "write_to_milvus",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
