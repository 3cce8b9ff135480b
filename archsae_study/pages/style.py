"""What every figure and sentence of the report shares: axes, colours of the arms, intervals, findings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression, linear_sum_assignment

from archsae_core.metrics.intervals import Interval
from archsae_study.formatting import cell, interval, percent, signed
from archsae_study.pages.rendering import literal
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import Config


def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("findings")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown: what comes from data is encoded by `literal` before it gets here
    )
    found.filters |= {"cell": cell, "interval": interval, "signed": signed, "percent": percent, "literal": literal}
    return found


TEMPLATES = _templates()
TOPK_COLOUR = "#7f7f7f"
FRAME_TITLES = {"centred": "centred: training mean removed", "raw": "raw: no mean removed"}


def finding(template: str, **values: Any) -> Markdown:
    """A paragraph of `findings/` with its numbers filled in. Raises UndefinedError for one that is not given."""
    return Markdown(TEMPLATES.get_template(f"{template}.md").render(**values))


def setting(config: Config) -> Markdown:
    """One line on what was studied."""
    lm, dictionary, training = config.language_model, config.dictionary, config.training
    return Markdown(
        f"*{literal(lm.model)}, residual stream after block {lm.layer} (counted from 0), "
        f"{literal(config.corpus.text)}; "
        f"{dictionary.n_features:,} features, k = {dictionary.k}, {config.anchors.n_anchors:,} anchors, "
        f"δ = {dictionary.delta:g}, {training.steps:,} steps of {training.batch_size:,} tokens; "
        f"preset `{config.preset}`.*"
    )


def panels(columns: int, width: float = 4.4, height: float = 3.4, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """One row of axes in the report's style."""
    sns.set_theme(
        context="notebook", style="ticks", font_scale=0.9, rc={"axes.titlesize": 10, "axes.titleweight": "bold"}
    )
    size = (width * columns, height)
    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False, **options)
    sns.despine(figure)
    return figure, list(axes[0])


def marker(arm: str) -> dict[str, Any]:
    """Marker of an arm: its colour, hollow where its seeds share their start."""
    colour = ARMS[arm].colour
    return {"color": colour, "markerfacecolor": colour if ARMS[arm].own else "white", "markeredgecolor": colour}


def error_bar(found: Interval) -> list[list[float]] | None:
    """Distances to the ends of an interval, for matplotlib's `errorbar`; None without ends."""
    if found.low is None or found.high is None:
        return None
    return [[max(0.0, found.estimate - found.low)], [max(0.0, found.high - found.estimate)]]


def point(
    axis: Axes, x: float, y: float | int, found: Interval, *, shape: str = "o", size: float | int = 7, **style: Any
) -> None:
    """One estimate with its horizontal interval."""
    axis.errorbar(x, y, xerr=error_bar(found), fmt=shape, capsize=3, markersize=size, linewidth=1.4, **style)


def direct_label(axis: Axes, x: int | float, y: int | float, text: str, colour: str, **options: Any) -> None:
    """A line's name beside its end instead of a legend."""
    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8} | options
    axis.annotate(text, (x, y), color=colour, annotation_clip=False, **place)


LABEL_GAP = 0.065
"""Least distance between two names beside a panel, in shares of its height."""
LABEL_COLUMN = 1.03
"""Where they begin, in shares of its width."""


def label_column(axis: Axes, ends: Sequence[tuple[str, str, float | int, float | int]]) -> None:
    """Names in a column beside a panel, each with a line to its point: `(name, colour, x, y)`. No two lines cross."""
    if not ends:
        return
    axis.get_ylim()  # brings the limits, and with them the transforms, up to date
    points = (axis.transData - axis.transAxes).transform([end[2:] for end in ends])
    gaps = LABEL_GAP * np.arange(len(ends))
    # as near to the points as the gaps allow; the shortest lines to these places are those that do not cross
    heights = np.clip(isotonic_regression(np.sort(points[:, 1]) - gaps).x, 0, 1 - gaps[-1]) + gaps
    lengths = np.hypot(LABEL_COLUMN - points[:, :1], heights - points[:, 1:])
    for (name, colour, x, y), place in zip(ends, linear_sum_assignment(lengths)[1], strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7, "relpos": (0, 0.5), "shrinkB": 5}
        beside = dict(xytext=(LABEL_COLUMN, heights[place]), textcoords="axes fraction", va="center", fontsize=8)
        axis.annotate(name, (x, y), color=colour, arrowprops=line, annotation_clip=False, **beside)


def heat_map(axis: Axes, values: np.ndarray, labels: Sequence[str], **options: Any) -> None:
    """A square table of numbers as colours, the lower half alone."""
    hidden = np.triu(np.ones_like(values, dtype=bool), k=1)
    style = dict(annot=True, fmt=".2f", cmap="viridis", vmin=0, vmax=1, square=True, annot_kws={"fontsize": 8})
    sns.heatmap(values, mask=hidden, ax=axis, xticklabels=labels, yticklabels=labels, **(style | options))
    axis.tick_params(axis="x", labelrotation=45, labelsize=8)
    axis.tick_params(axis="y", labelsize=8)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
