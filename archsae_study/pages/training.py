"""Figures that notebooks 02 and 03 share: one or more dictionaries along their training."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from archsae_core.metrics.intervals import Interval
from archsae_study.experiments.dictionaries import DictionaryResult
from archsae_study.formatting import interval, percent, table
from archsae_study.pages.style import direct_label, panels
from archsae_study.protocol.arms import ARMS


def curves(dictionaries: Mapping[str, DictionaryResult]) -> Figure:
    """R² on training batches and cosine of the atoms with their start; a label at the end of each line."""
    figure, axes = panels(2, width=5.2)
    for name, one in dictionaries.items():
        colour = ARMS[one.arm].colour
        steps = [row["step"] for row in one.log]
        axes[0].plot(steps, [row["r2"] for row in one.log], color=colour)
        direct_label(axes[0], steps[-1], one.log[-1]["r2"], name, colour)
        moved = one.cosine_with_start
        axes[1].plot(list(moved), list(moved.values()), "o-", color=colour, markersize=3)
        direct_label(axes[1], list(moved)[-1], list(moved.values())[-1], name, colour)
    lowest = min(row["r2"] for one in dictionaries.values() for row in one.log[len(one.log) // 4 :])
    axes[0].set(ylim=(max(0.0, lowest - 0.2), 1), xlabel="step", ylabel="R² on the training batch")
    axes[0].set_title("Reconstruction")
    axes[1].set(xlabel="step", ylabel="mean cosine of atoms with their start", xscale="symlog", ylim=(0, 1.04))
    axes[1].set_title("Movement: 1 has not moved")
    return figure


def quality_table(dictionaries: Mapping[str, DictionaryResult]) -> pd.DataFrame:
    """Held-out quality of each dictionary."""
    rows = []
    for name, one in dictionaries.items():
        quality = one.quality
        low, high = quality["intervals"]["r2"] or (None, None)
        rows.append(
            [
                name,
                interval(Interval(quality["r2"], low, high)),
                quality["mse"],
                quality["l0"],
                percent(quality["dead_share"]),
                percent(quality["dense_share"]),
                list(one.cosine_with_start.values())[-1],
            ]
        )
    header = ["dictionary", "R² held out", "MSE, raw units", "L0", "dead", "dense (> 10 %)", "cosine with start"]
    return table(header, rows)


def log_table(one: DictionaryResult, rows: int = 10) -> pd.DataFrame:
    """The training log, thinned to about so many rows."""
    names = {
        "step": "step",
        "r2": "R²",
        "aux": "AuxK loss",
        "l0": "L0",
        "dead": "silent of late",
        "gradient_norm": "‖gradient‖",
    }
    more = {"relax_at_bound": "Λ at its bound", "effective_anchors": "effective anchors"}
    shown = names | {name: label for name, label in more.items() if name in one.log[-1]}
    thinned = one.log[:: max(1, len(one.log) // rows)]
    return table(list(shown.values()), [[row[name] for name in shown] for row in thinned])
