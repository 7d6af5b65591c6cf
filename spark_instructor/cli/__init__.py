"""The command line ``spark-instructor``."""

from .main import main

__all__ = ["main"]
