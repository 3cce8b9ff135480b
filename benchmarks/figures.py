"""The figures of the benchmarks, each drawn from its section of the results alone."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt

from benchmarks.peers import ROOT

PALETTE = sns.color_palette("colorblind")
TITLES = {"topk": "TopK", "ra": "RA-SAE"}


def _theme() -> None:
    mpl.use("agg")
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)


def save_steps(found: Mapping[str, Any]) -> None:
    """docs/benchmark.png: milliseconds a step, with the spread over repeats, this package in colour."""
    _theme()
    groups = {title: {name: ms for name, ms in found["ms"].items() if name.split()[1].split("-")[0] == kind}
              for kind, title in TITLES.items()}  # fmt: skip
    heights = [len(group) for group in groups.values()]
    size = (7, 0.45 * sum(heights) + 1.4)
    figure, axes = plt.subplots(2, 1, figsize=size, layout="constrained", height_ratios=heights)
    for axis, (title, group) in zip(axes, groups.items(), strict=True):
        names, middle = list(group), np.array([median(ms) for ms in group.values()])
        spread = [middle - [min(ms) for ms in group.values()], [max(ms) for ms in group.values()] - middle]
        colours = [PALETTE[0] if name.startswith("ours") else PALETTE[7] for name in names]
        axis.barh(names, middle, xerr=spread, color=colours, capsize=3)
        axis.invert_yaxis()
        axis.set(title=title, xlim=(0, None))
        for name, value, above in zip(names, middle, spread[1], strict=True):
            axis.annotate(f"{value:.0f}", (value + above, name), va="center", xytext=(6, 0), textcoords="offset points")
    axes[-1].set_xlabel("milliseconds a training step")
    sns.despine(figure)
    figure.savefig(ROOT / "docs" / "benchmark.png", dpi=150)
    plt.close(figure)


def save_scaling(rows: Sequence[Mapping[str, Any]], path: str = "scaling.png") -> None:
    """docs/scaling.png: measured points and, dotted, the floor of `theory`; one panel for each varied size."""
    _theme()
    axes_of = list(dict.fromkeys(row["axis"] for row in rows))
    columns = min(3, len(axes_of))
    lines = -(-len(axes_of) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 3.3 * lines), layout="constrained", squeeze=False
    )
    colours = dict(zip(dict.fromkeys(row["case"] for row in rows), PALETTE, strict=False))
    rows = sorted(rows, key=lambda row: row["size"])
    for panel, name in zip(axes.flat, axes_of, strict=False):
        for case, colour in colours.items():
            points = [row for row in rows if (row["axis"], row["case"]) == (name, case) and "seconds" in row]
            if not points:
                continue
            sizes, times, floors = ([row[key] for row in points] for key in ("size", "seconds", "floor"))
            panel.plot(sizes, times, "o-", color=colour, label=case, markersize=4)
            panel.plot(sizes, floors, ":", color=colour, linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set(yscale="log", xlabel=name, ylabel="seconds")
        panel.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        panel.legend(frameon=False, fontsize=8)
    for panel in list(axes.flat)[len(axes_of) :]:
        panel.remove()
    sns.despine(figure)
    figure.savefig(ROOT / "docs" / path, dpi=150)
    plt.close(figure)
