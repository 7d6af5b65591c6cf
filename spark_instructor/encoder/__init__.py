"""INSTRUCTOR's encoder in torch; knows no Spark, so that Spark, Milvus and plain Python share it."""

from .model import Encoded, InstructorModel
from .prepare import prepare
from .tokenizer import T5Tokenizer

__all__ = ["Encoded", "InstructorModel", "T5Tokenizer", "prepare"]
