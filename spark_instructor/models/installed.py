"""Models that are installed as Python packages: instructor_tiny in this package, and others as wheels.

The wheel of a model (see `build_wheel`) contains a prepared folder, and an entry point that gives the folder a name.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

ENTRY_POINTS = "spark_instructor.models"
"""The group of the entry points of models."""
PACKAGED = Path(__file__).parent / "instructor_tiny"
"""The checkpoint that comes with this package."""


def find_installed(name: str) -> Path | None:
    """Return the folder of an installed model: a prepared folder, or a checkpoint for instructor_tiny.

    The folder is None if no installed model has this name.
    """
    return PACKAGED if name == PACKAGED.name else list_installed().get(name)


def list_installed() -> dict[str, Path]:
    """Return the prepared folders of the models that are installed as wheels, by their names."""
    return {
        entry_point.name: Path(str(entry_point.dist.locate_file(entry_point.value)))
        for entry_point in entry_points(group=ENTRY_POINTS)
        if entry_point.dist is not None
    }


def to_installed_name(model_name: str) -> str:
    """Return the name under which a model is installed, which can be part of a module's and of a package's name."""
    return re.sub("[^a-z0-9]+", "_", model_name.lower()).strip("_") or "model"
