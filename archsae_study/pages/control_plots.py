"""Figures of the controls, each drawn from a table alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from archsae_study.pages.plots import COLOURS, PALETTE, panels

VARIANTS = {"partner": ("its match", "o-"), "second": ("the next most similar", "s--"), "random": ("as frequent", "^:")}


def with_errors(found: Sequence[Mapping[str, float | None] | None]) -> tuple[np.ndarray, np.ndarray]:
    """Estimates, and their distances to the ends of the intervals, 0 where there is none."""
    known = [{"estimate": np.nan, "low": None, "high": None} if value is None else value for value in found]
    y = np.array([value["estimate"] for value in known], dtype=float)
    ends = [[value["estimate"] if value[end] is None else value[end] for value in known] for end in ("low", "high")]
    return y, np.abs(np.array(ends, dtype=float) - y)


def probing(table: Mapping[str, Any]) -> Figure:
    """Held-out accuracy of sparse probes for every arm, against controls and the ceiling."""
    figure, (axis,) = panels(1, width=8.0, height=4.0)
    if "reason" in table:
        axis.set_title(table["reason"])
        return figure
    trained = [row for row in table["rows"] if row["kind"] == "trained"]
    sizes = list(trained[0]["accuracy"])
    for place, row in enumerate(trained):
        found = [row["accuracy"][k] for k in sizes]
        low, high = (
            np.array([f["estimate"] if f[side] is None else f[side] for f in found]) for side in ("low", "high")
        )
        y = np.array([f["estimate"] for f in found])
        x = np.arange(len(sizes)) + (place - len(trained) / 2) * 0.07
        axis.errorbar(x, y, [y - low, high - y], fmt="o", color=COLOURS[row["name"]], label=row["label"], capsize=2)
    names = {"random directions": ":", "topk-kmeans, step 0": "--", "raw": "-."}
    for row in (row for row in table["rows"] if row["name"] in names):
        label = "centroids, untrained" if row["name"] == "topk-kmeans, step 0" else row["label"]
        values = [row["accuracy"][k]["estimate"] for k in sizes]
        axis.plot(np.arange(len(sizes)), values, names[row["name"]], color="0.4", linewidth=1.2, label=label)
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_xticks(range(len(sizes)), sizes)
    axis.set(xlabel="features a probe may use", ylabel="accuracy on held-out documents\n(0 = chance, 1 = never wrong)")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def swap(table: Mapping[str, Any]) -> Figure:
    """KL of swapping a feature, as a share of removing it: each pair by its cosine, and means by bin."""
    figure, axes = panels(2, width=5.0, height=3.8)
    if "reason" in table:
        axes[0].set_title(table["reason"])
        return figure
    for arm, row in table["arms"].items():
        points = [(p["cosine"], p["kl"][0] / p["kl"][-1]) for p in row["points"] if p["kl"][-1] > 0]
        axes[0].plot(*zip(*points, strict=True), ".", color=COLOURS[arm], label=row["label"], alpha=0.7)
    axes[0].set(xlabel="cosine with the match in another run", ylabel="KL of the swap / KL of removal", yscale="log")
    axes[0].legend(frameon=False, fontsize=7)
    bins = [row for row in table["bins"] if row["pairs"]]
    names = [f"{max(row['low'], 0):g}–{row['high']:g}\n(n = {row['pairs']})" for row in bins]
    for place, (name, (label, style)) in enumerate(VARIANTS.items()):
        y, error = with_errors([row["share"][name] for row in bins])
        axes[1].errorbar(
            np.arange(len(bins)) + 0.06 * (place - 1), y, error, fmt=style, color=PALETTE[place], label=label, capsize=2
        )
    axes[1].set_xticks(range(len(bins)), names, fontsize=8)
    axes[1].set(xlabel="cosine of the match", ylabel="KL of the swap / KL of removal", ylim=(0, None))
    axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    return figure


def identifiability(table: Mapping[str, Any]) -> Figure:
    """Share of planted atoms found in each case, with what the hull allows."""
    figure, axes = panels(len(table["cases"]), width=3.4, height=3.6)
    for axis, (name, case) in zip(axes, table["cases"].items(), strict=True):
        rows = case["rows"]
        places = np.arange(len(rows))
        y, error = with_errors([row["share"] for row in rows])
        axis.barh(places, y, xerr=error, color=[COLOURS[row["arm"]] for row in rows], capsize=2)
        axis.axvline(case["allowed"]["estimate"], color="black", linestyle="--", linewidth=1)
        labels = [row["label"] for row in rows] if axis is axes[0] else []
        axis.set_yticks(places if axis is axes[0] else [], labels, fontsize=8)
        axis.invert_yaxis()
        axis.set(xlim=(0, 1.08), xlabel="atoms found", title=name)
    axes[-1].annotate("- - allowed by the hull at δ = 0", (0.02, -0.3), xycoords="axes fraction", fontsize=8)
    return figure
