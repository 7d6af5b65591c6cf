"""INSTRUCTOR's encoder in torch; knows no Spark, so that Spark, Milvus and plain Python share it."""

import os

# Before torch is first imported: threads that spin while they wait take the cpus of other processes, and where those
# are busy a text takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .model import Encoded, InstructorModel
from .prepare import prepare
from .tokenizer import T5Tokenizer

__all__ = ["Encoded", "InstructorModel", "T5Tokenizer", "prepare"]
