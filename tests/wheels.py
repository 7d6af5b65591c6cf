"""Wheels of models, built and installed as a user does it."""

from processes import run_python

from spark_instructor.encoder import prepare_model
from spark_instructor.models.wheel import build_wheel


def install_model(checkpoint, precision, target):
    """Install a wheel of a checkpoint into the folder `target`, and return the folder of the model there."""
    model = prepare_model(checkpoint, precision)
    wheel = build_wheel(model, checkpoint, target.parent / "dist")
    install_wheel(wheel, target)
    return target / wheel.name.split("-")[0]


def install_wheel(wheel, target):
    """Install a wheel into a folder for PYTHONPATH."""
    run_python("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=target.parent)
