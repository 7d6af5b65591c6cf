"""``spark-instructor models``, ``prepare`` and ``package``: list models, prepare one, and build a wheel of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from ..files import local_path
from ..models.host_cache import delete_unused_models
from ..models.installed import list_installed, to_installed_name
from ..models.prepared import PreparedModel, get_cache_dir, list_prepared, read_intact
from ..models.registry import find_checkpoint, is_cached, known_models
from ..models.wheel import build_wheel


def run_models(arguments: argparse.Namespace) -> None:
    """Print the known, installed and prepared models, or delete the copies that executors keep on this machine."""
    if arguments.clean:
        deleted = delete_unused_models(max_age=0)
        for folder, size in deleted.items():
            print(f"deleted {size / 1e6:>7,.0f} MB  {folder}")
        if not deleted:
            print("nothing to delete: executors have left no copy of a model here that no process uses")
        return
    known, installed, prepared = known_models(), read_intact(list_installed().values()), list_prepared()
    if arguments.json:
        listing = {
            "known": [{**dataclasses.asdict(model), "cached": is_cached(model)} for model in known],
            "installed": [{"name": to_installed_name(model.name), **_describe(model)} for model in installed],
            "prepared": [_describe(model) for model in prepared],
        }
        print(json.dumps(listing, indent=2))
        return
    print(f"{'name':<18}{'checkpoint':<26}{'floats':>7}{'MB':>7}  cached")
    for known_model in known:
        cached = "yes" if is_cached(known_model) else "no"
        print(
            f"{known_model.name:<18}{known_model.source:<26}{known_model.dimension:>7}{known_model.size_mb:>7,}  "
            f"{cached:<8}{known_model.description}"
        )
    if installed:
        print("\ninstalled as wheels:")
    for model in installed:
        print(f"  {to_installed_name(model.name):<16} {_format(model)}")
    if prepared:
        print(
            f"\nprepared in {get_cache_dir()} by their first use; delete the folder of a model that you no longer use:"
        )
    else:
        print(f"\nno model is prepared in {get_cache_dir()} yet")
    for model in prepared:
        print(f"  {model.name:<16} {_format(model)}")


def _describe(model: PreparedModel) -> dict[str, Any]:
    return {"path": str(model.path), "precision": model.precision, "megabytes": round(model.size / 1e6)}


def _format(model: PreparedModel) -> str:
    return f"{model.precision:<10}{model.size / 1e6:>7,.0f} MB  {model.path}"


def run_prepare(arguments: argparse.Namespace) -> None:
    """Prepare a model and print its folder."""
    _, model = _prepare(arguments, arguments.into)
    print(model.path)
    print(f"{model.name} in {model.precision}, {model.dimension} floats per text, {model.size / 1e6:,.0f} MB")


def run_package(arguments: argparse.Namespace) -> None:
    """Build a wheel of a model and print its path."""
    checkpoint, model = _prepare(arguments)
    wheel = build_wheel(model, checkpoint, local_path(arguments.output))
    print(wheel)
    print(f"Install it on the driver and on the workers. Then it is the model '{to_installed_name(model.name)}'.")


def _prepare(arguments: argparse.Namespace, into: str | None = None) -> tuple[Path, PreparedModel]:
    """Return the folder of the checkpoint that a command names, and the prepared model."""
    from ..encoder import prepare_model

    checkpoint = find_checkpoint(arguments.model, arguments.revision)
    return checkpoint, prepare_model(checkpoint, arguments.precision, into)
