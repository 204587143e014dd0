"""The figure of the README: what each way to choose the passage brings over the first one of hybrid retrieval.

    python benchmarks/figure.py [benchmarks/results/over_hybrid.json] [-o docs/images/over_hybrid.svg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import msgspec
from common import RESULTS
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
GAINRAG, OTHERS = "#0a6b3d", "#6b7280"


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, nargs="?", default=RESULTS / "over_hybrid.json")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "images" / "over_hybrid.svg")
    arguments = parser.parse_args()
    readers = msgspec.json.decode(arguments.figures.read_bytes())["readers"]
    # The same data make the same bytes; letters stay letters.
    matplotlib.rcParams.update({"svg.hashsalt": "gainrag", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    place, ticks = 0.0, {}
    for reader, rows in readers.items():
        across = axes.get_yaxis_transform()
        axes.text(0.0, place, f" {reader}", weight="bold", va="center", transform=across, backgroundcolor="white")
        for name, (mean, low, high) in rows.items():
            place -= 1.0
            colour = GAINRAG if name == "GainRAG" else OTHERS
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([mean], [place], "o", color=colour)
            ticks[place] = name
        place -= 1.2
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(place + 0.4, 0.8)
    axes.set_xlabel("points over hybrid retrieval's first passage, 95% intervals")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
