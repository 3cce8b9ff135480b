"""Figures that notebooks 02 and 03 share: one or more dictionaries along their training."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from archsae_core.metrics.intervals import Interval
from archsae_study.experiments.dictionaries import DictionaryResult
from archsae_study.formatting import interval, percent, signed, table
from archsae_study.pages.style import label_column, panels
from archsae_study.protocol.arms import ARMS


def curves(dictionaries: Mapping[str, DictionaryResult]) -> Figure:
    """R² on training batches and cosine of the atoms with their start; a label at the end of each line."""
    figure, axes = panels(2, width=6.0, height=3.8)
    ends: tuple[list, list] = ([], [])
    for name, one in dictionaries.items():
        colour = ARMS[one.arm].colour
        steps = [row["step"] for row in one.log]
        axes[0].plot(steps, [row["r2"] for row in one.log], color=colour)
        ends[0].append((name, colour, steps[-1], one.log[-1]["r2"]))
        moved = one.cosine_with_start
        axes[1].plot(list(moved), list(moved.values()), "o-", color=colour, markersize=3)
        ends[1].append((name, colour, list(moved)[-1], list(moved.values())[-1]))
    axes[0].set(ylim=(0, 1), xlabel="step", ylabel="R² on the training batch")
    axes[0].set_title(f"Reconstruction: R² {_late_rise(dictionaries)} in the last third")
    axes[1].set(xlabel="step", ylabel="cosine of atoms with start", xscale="symlog", ylim=(0, 1.04))
    axes[1].set_title("Movement: at 1 nothing has moved")
    for axis, of in zip(axes, ends, strict=True):
        label_column(axis, of)
    return figure


def _late_rise(dictionaries: Mapping[str, DictionaryResult]) -> str:
    """What the last third of the steps still brought in R² on training batches, as `+0.03` or `+0.01 to +0.03`."""
    rises = sorted(one.log[-1]["r2"] - one.log[-1 - len(one.log) // 3]["r2"] for one in dictionaries.values())
    return " to ".join(dict.fromkeys(signed(rise, 2) for rise in (rises[0], rises[-1])))


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
    header = ["dictionary", "R² held out", "MSE", "L0", "dead", "dense (> 10 %)", "cosine with start"]
    caption = (
        "One seed. R²: 95 % over held-out documents; MSE: a dimension, in the model's units; L0: active codes a token; "
        "dead: fires on no scored token; dense: on more than a tenth of them."
    )
    return table(header, rows, caption)


def log_table(one: DictionaryResult, rows: int = 10) -> pd.DataFrame:
    """The training log, thinned to about so many rows."""
    names = {
        "step": "step",
        "r2": "R²",
        "aux": "AuxK loss",
        "l0": "L0",
        "dead": "silent features",
        "gradient_norm": "‖gradient‖",
    }
    more = {"relax_at_bound": "Λ at its bound", "effective_anchors": "effective anchors"}
    shown = names | {name: label for name, label in more.items() if name in one.log[-1]}
    thinned = one.log[:: max(1, len(one.log) // rows)]
    formatted = [[int(row["step"]), *(row[name] for name in list(shown)[1:])] for row in thinned]
    caption = (
        "The training log, thinned. AuxK loss: error of silent features at what the others leave; silent: share that "
        "fired on no token of the last steps"
    )
    return table(list(shown.values()), formatted, caption)
