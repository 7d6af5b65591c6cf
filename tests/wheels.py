"""Build wheels of models and install them, as a user would."""

from processes import run_python

from spark_instructor.encoder import prepare_model
from spark_instructor.models.wheel import build_wheel


def install_model(checkpoint, precision, target):
    """Build a wheel of a checkpoint, install it into the folder `target`, and return the model's folder there."""
    model = prepare_model(checkpoint, precision)
    wheel = build_wheel(model, checkpoint, target.parent / "dist")
    install_wheel(wheel, target)
    return target / wheel.name.split("-")[0]


def install_wheel(wheel, target):
    """Install a wheel into a folder that can be put on PYTHONPATH."""
    run_python("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=target.parent)
