"""The command line; its entry point is `main`."""

from .main import main

__all__ = ["main"]
