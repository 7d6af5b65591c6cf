"""``spark-instructor models`` and ``spark-instructor prepare``: list models, and prepare one in advance."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..models.prepared import cache_dir, list_prepared
from ..models.registry import checkpoint_folder, is_cached, known_models


def run_models(arguments: argparse.Namespace) -> None:
    """Print the known models and the prepared ones."""
    known, prepared = known_models(), list_prepared()
    if arguments.json:
        listing = {
            "known": [{**dataclasses.asdict(model), "cached": is_cached(model)} for model in known],
            "prepared": [
                {"path": str(model.path), "precision": model.precision, "megabytes": round(model.size / 1e6)}
                for model in prepared
            ],
        }
        print(json.dumps(listing, indent=2))
        return
    print(f"{'name':<18}{'checkpoint':<26}{'floats':>7}{'MB':>7}  cached")
    for model in known:
        cached = "yes" if is_cached(model) else "no"
        print(
            f"{model.name:<18}{model.source:<26}{model.dimension:>7}{model.size_mb:>7,}  {cached:<8}{model.description}"
        )
    print(f"\nprepared in {cache_dir()}:" if prepared else f"\nno model is prepared in {cache_dir()} yet")
    for prepared_model in prepared:
        print(f"  {prepared_model.precision:<10}{prepared_model.size / 1e6:>7,.0f} MB  {prepared_model.path}")


def run_prepare(arguments: argparse.Namespace) -> None:
    """Prepare a model and print its folder."""
    from ..encoder import prepare_model

    checkpoint = checkpoint_folder(arguments.model, arguments.revision)
    model = prepare_model(checkpoint, arguments.precision, into=arguments.into)
    print(model.path)
    print(f"{model.name} in {model.precision}, {model.dimension} floats per text, {model.size / 1e6:,.0f} MB")
