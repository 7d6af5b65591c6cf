"""Average the checkpoints of trainings that run side by side, so that each continues from the average.

    python training/average.py RUN NAME NAME ...

The trainings draw different texts (`train.py --seed`). Stop them, average them, and start them again, every ten
minutes or so: the average is a better model than each of them, and nearly as good as after a decay of the learning
rates. Weights and the moments of the optimizers are averaged; each training keeps its own number of steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from train import CHECKPOINT, save_checkpoint


def average(states: list[Any]) -> Any:
    """Average the floats of equal structures of dicts and lists; everything else is that of the first one."""
    first = states[0]
    if isinstance(first, dict):
        return {key: average([state[key] for state in states]) for key in first}
    if isinstance(first, list):
        return [average(list(items)) for items in zip(*states, strict=True)]
    if isinstance(first, torch.Tensor) and first.is_floating_point():
        return torch.stack(states).mean(0)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a training, as in train.py --name")
    arguments = parser.parse_args()
    folders = [arguments.run / name for name in arguments.names]
    checkpoints = [torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu") for folder in folders]
    averaged = average([{key: state[key] for key in ("student", "optimisers")} for state in checkpoints])
    for folder, state in zip(folders, checkpoints, strict=True):
        save_checkpoint(state | averaged, folder)


if __name__ == "__main__":
    main()
