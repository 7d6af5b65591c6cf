"""Draw the figures of throughput.py.

python benchmarks/chart.py throughput.json throughput.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

COLOURS = {"float32": "#9db4c0", "bfloat16": "#3d7ea6", "int8": "#1b3a4b"}
OURS = "spark_instructor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="the json that throughput.py wrote")
    parser.add_argument("chart", type=Path, help="the svg to write")
    parser.add_argument("--set", default="texts", help="which of its sets (%(default)s)")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text("utf-8"))
    rows = [row for row in figures["results"] if row["set"] == arguments.set and row["seconds"]]
    if not rows:
        raise SystemExit(f"{arguments.figures} has no figures for the set {arguments.set!r}")
    # so that the same figures give the same file
    plt.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.family": "sans-serif"})
    draw(rows, figures["sets"][arguments.set], figures["machine"]).savefig(
        arguments.chart, metadata={"Date": None}, facecolor="white"
    )


def draw(rows: list[dict[str, Any]], texts: dict[str, Any], machine: dict[str, Any]) -> plt.Figure:
    """Draw tokens per second as bars, one per engine and precision, in the order of the table."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(rows) + 1.6), layout="constrained")
    engines = list(dict.fromkeys(row["engine"] for row in reversed(rows)))
    y, ticks = 0.0, []
    for engine in engines:
        of_engine = [row for row in reversed(rows) if row["engine"] == engine]
        ticks.append(y + (len(of_engine) - 1) / 2)
        for row in of_engine:
            axes.barh(y, row["tokens_per_second"], height=0.9, color=COLOURS[row["precision"]])
            ratio = "" if row["times_baseline"] is None else f"  {row['times_baseline']:.1f}x"
            axes.text(row["tokens_per_second"], y, f" {row['tokens_per_second']:,.0f}{ratio}", va="center", fontsize=8)
            y += 1
        y += 0.6
    axes.set_yticks(ticks, engines)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == OURS else "normal")
    axes.set_xlabel("tokens per second, one thread (and times sentence-transformers in float32)")
    axes.set_title(
        f"{texts['texts']:,} texts of {texts['mean']:.0f} tokens in the mean, {machine['processor']}",
        loc="left",
        fontsize=10,
    )
    axes.margins(x=0.14)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    present = [name for name in COLOURS if any(row["precision"] == name for row in rows)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in present]
    figure.legend(handles, present, frameon=False, loc="outside lower center", ncols=len(present))
    return figure


if __name__ == "__main__":
    main()
