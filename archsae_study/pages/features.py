"""Notebook 07: figures, tables and the finding. Tokens, names and topics are data: all of them are escaped."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from archsae_core.config import FRAMES, shortened
from archsae_core.data.tokens import window_start
from archsae_core.metrics.explain import explain as explain_text
from archsae_core.metrics.intervals import PRIMARY_LEVEL, Interval
from archsae_core.models.sae import SAE
from archsae_core.text import visible
from archsae_study.experiments import task_probes
from archsae_study.experiments.features import (
    DENSE,
    MIN_FIRINGS,
    MOSTLY,
    TABLE,
    Chosen,
    DictionaryFeatures,
    FeaturesResult,
)
from archsae_study.experiments.probing import HEADLINE_SIZE, SIZES, ProbeRow, ProbingResult
from archsae_study.experiments.task_probes import TaskProbeRow, TaskProbesResult
from archsae_study.explorer.data import Context
from archsae_study.explorer.of_study import subject_runs
from archsae_study.formatting import interval, markdown_table, percent, signed, table
from archsae_study.pages.answer import shown as answer
from archsae_study.pages.rendering import context_html, literal
from archsae_study.pages.style import finding, marker, panels, point, setting
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS, sweep_references
from archsae_study.report import Report

__all__ = [
    "Report",
    "anchors_table",
    "answer",
    "conclusion",
    "contexts_table",
    "explain",
    "gallery",
    "headline",
    "inspected",
    "logits_table",
    "matches_table",
    "overview_table",
    "probing_figure",
    "probing_sentence",
    "probing_table",
    "profile",
    "rules",
    "sae",
    "setting",
    "task_probes_figure",
    "task_probes_sentence",
    "task_probes_table",
]

Row = TypeVar("Row", ProbeRow, TaskProbeRow)

RULE_TITLES = {
    "stable": "most stable",
    "unstable": "least stable",
    "pure": "purest token",
    "topic": "best topic",
    "densest": "densest",
    "dead": "dead",
}
WHY = {
    "parameter": "asked for by `feature`",
    "topic": "the one that tells a topic best",
    "stable": "the most stable over seeds",
    "strongest": "the one with the largest code",
}
BEFORE, AFTER = 8, 4
"""Tokens of a context in the gallery before and after the one that it is about."""
CLOSE = 0.05
"""Shares and AUROCs of one seed that differ by less are called alike."""
MATCHES, LOGITS, TOPICS = 8, 10, 12
"""Rows of a table or a figure, names in a sentence."""


def headline(features: FeaturesResult) -> Markdown:
    """The finding of notebook 07."""
    scores = {"ra": _best_probe(features.archetypal), "free": _best_probe(features.free)}
    topics = None if None in scores.values() else scores
    parts = {"ra": features.archetypal.overview, "free": features.free.overview}
    return finding("features", topics=topics, judged=_judged(), **parts)


def conclusion(features: FeaturesResult, probing: ProbingResult, probes: TaskProbesResult) -> Markdown:
    """Whether features of the two dictionaries read differently, and what the inspected atom's anchors explain."""
    parts = {"ra": features.archetypal.overview, "free": features.free.overview}
    share = {name: one.named / one.judged if one.judged else None for name, one in parts.items()}
    scores = {"ra": _best_probe(features.archetypal), "free": _best_probe(features.free)}
    found = features.inspected.feature.archetypes
    weights = [] if found is None else [one.weight for one in found.anchors]
    known = None not in share.values()
    values = dict(share=share if known else None, auroc=None if None in scores.values() else scores)
    values |= dict(decisions=probes.decisions() if probes.of(task_probes.RAW) else [], topics=_topic_gains(probing))
    return finding("features_conclusion", weights=weights, close=CLOSE, judged=_judged(), **values)


def _judged() -> str:
    """Which features the counts are of."""
    return f"on at least {MIN_FIRINGS} held-out tokens and on at most {DENSE:.0%} of them"


def _topic_gains(probing: ProbingResult) -> list[dict[str, Any]]:
    """By primary contrast, what the constraint changes in topic probes of the headline size."""
    labels = {one.key: one.label.split(" − ")[0] for one in contrasts.PRIMARY}
    return [{"label": labels[one.contrast], "gain": one.gain} for one in probing.gains if one.size == HEADLINE_SIZE]


def _best_probe(dictionary: DictionaryFeatures) -> float | None:
    return next((one.summary.probe for one in dictionary.gallery if one.rule == "topic" and one.summary), None)


def overview_table(features: FeaturesResult) -> pd.DataFrame:
    """Both dictionaries, counted: what fires, what a few tokens name, what is an artefact, what comes back."""
    both = [features.free, features.archetypal]
    parts = [one.overview for one in both]
    rows = [
        ["features", *(one.about.n_features for one in both)],
        ["R² held out", *(one.about.r2 for one in both)],
        ["dead: fire on no held-out token", *(one.dead for one in parts)],
        [f"dense: fire on more than {DENSE:.0%} of tokens", *(one.dense for one in parts)],
        [f"judged: fire on at least {MIN_FIRINGS} tokens, not dense", *(one.judged for one in parts)],
        ["… named by a few tokens", *(_of(one.named, one.judged) for one in parts)],
        ["… with twice the mass per token in one topic", *(_of(one.with_topic, one.judged) for one in parts)],
        ["… artefacts of the text", *(_of(one.artefacts, one.judged) for one in parts)],
        ["median cosine with the match in another seed", *(one.stability for one in parts)],
        ["median token entropy, bits", *(one.entropy for one in parts)],
        ["median AUROC for the best topic", *(one.probe for one in parts)],
    ]
    caption = (
        f"Seed {both[0].about.seed} of both dictionaries, from its own centroids: other runs than those of notebook "
        "04, which share theirs. Median numbers are over the judged features."
    )
    return table(["", *(one.about.label for one in both)], rows, caption)


def _of(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.0%})" if total else "–"


def rules() -> Markdown:
    """By which rules the gallery is chosen, and features are named."""
    return finding("feature_rules", min_firings=MIN_FIRINGS, dense=DENSE, mostly=MOSTLY)


def gallery(features: FeaturesResult) -> Markdown:
    """What each rule chooses in each dictionary, with a context at three quantiles of its codes."""
    header = ["dictionary", "rule", "feature", "name", "fires on", "stability", "topic (AUROC)"]
    rows = [
        [one.about.label, RULE_TITLES[chosen.rule], *_gallery_cells(chosen)]
        for one in (features.free, features.archetypal)
        for chosen in one.gallery
    ]
    return Markdown(markdown_table([*header, "contexts at the largest, the median, a small code"], rows))


def _gallery_cells(chosen: Chosen) -> list[object]:
    one = chosen.summary
    if one is None:
        return ["–", _text(chosen.reason), None, None, None, None]
    name = _text(one.name)
    if note := artefact(chosen.formatting):
        name += f"<br>**artefact**: {note}"
    topic = None if one.probe_topic is None else f"{_text(one.probe_topic)} ({one.probe:.2f})"
    contexts = [
        f"{band.value:.1f}: {_context(context, BEFORE, AFTER)}" for band in chosen.bands for context in band.contexts
    ]
    return [str(one.feature), name, percent(one.density, 2), one.stability, topic, "<br>".join(contexts)]


def artefact(formatting: dict[str, float]) -> str:
    """`83 % of its mass lies on punctuation`, for a feature with most of its mass on formatting tokens; else empty."""
    if sum(formatting.values()) < MOSTLY:
        return ""
    kinds = sorted((kind for kind in formatting if formatting[kind] >= 0.05), key=lambda kind: -formatting[kind])
    parts = [f"{formatting[kind]:.0%} on {kind}" for kind in kinds]
    return f"of its mass, {' and '.join(parts)}"


def _context(context: Context, before: int | None = None, after: int | None = None) -> str:
    """A context as HTML for a cell, cut to some tokens around the marked one."""
    start = 0 if before is None else max(0, context.marked - before)
    end = len(context.tokens) if after is None else context.marked + after + 1
    tokens = [visible(token) for token in context.tokens[start:end]]
    return context_html(tokens, context.values[start:end], context.marked - start)


def _text(text: str) -> str:
    """Text from data for a cell or a sentence of Markdown."""
    return literal(visible(text))


def inspected(features: FeaturesResult) -> Markdown:
    """What the feature in depth is, why it was chosen, whether it is an artefact."""
    one = features.inspected
    summary, near = one.feature.summary, one.feature.counterparts[:1]
    middle = next((band.value for band in one.feature.bands if band.quantile == 0.5), None)
    counterpart = [
        {
            "dictionary": features.of(other.dictionary).about.label,
            "feature": other.feature,
            "name": _text(features.of(other.dictionary).names[other.feature]),
            "cosine": other.cosine,
        }
        for other in near
    ]
    return finding(
        "inspected_feature",
        feature=summary.feature,
        dictionary=features.of(one.dictionary).about.label,
        name=_text(summary.name),
        why=WHY[one.rule],
        density=summary.density,
        firings=one.feature.firings,
        maximum=summary.maximum,
        middle=middle,
        archetypes=one.feature.archetypes,
        artefact=artefact(one.formatting),
        counterpart=counterpart[0] if counterpart else None,
    )


def contexts_table(features: FeaturesResult, rows: int = 12) -> Markdown:
    """Contexts of the inspected feature at several quantiles of its codes; other tokens on which it fires are bold."""
    found = [(band.quantile, context) for band in features.inspected.feature.bands for context in band.contexts]
    if not found:
        return Markdown("It fires on no held-out token: there is no context to show.")
    # fewer a quantile, so that every quantile stays
    each = max(1, rows // len(features.inspected.feature.bands))
    kept = [
        [f"{band.quantile:.0%}", f"{context.values[context.marked]:.2f}", _context(context)]
        for band in features.inspected.feature.bands
        for context in band.contexts[:each]
    ]
    return Markdown(markdown_table(["quantile of its codes", "code", "context"], kept))


def profile(features: FeaturesResult) -> Figure:
    """The inspected feature: its codes, how often it fires by topic, its weights on the anchors."""
    one = features.inspected
    colour = ARMS[one.dictionary].colour
    figure, axes = panels(3, width=4.2)
    figure.suptitle(f"Feature {one.feature.summary.feature} of {features.of(one.dictionary).about.label}", fontsize=10)
    _codes(axes[0], features, colour)
    _topics(axes[1], features, colour)
    axes[2].plot(np.arange(1, len(one.weights) + 1), one.weights, "o-", color=colour, markersize=3)
    shown = f"the {len(one.weights)} heaviest hold {sum(one.weights):.0%} of all weight"
    axes[2].set(xlabel=f"anchor, by weight\n({shown})", ylabel="weight in W", yscale="log", xscale="log")
    if one.feature.archetypes:
        axes[2].set_title(f"Spread over {one.feature.archetypes.effective_anchors:,.0f} anchors")
    return figure


def _codes(axis: Axes, features: FeaturesResult, colour: str) -> None:
    feature = features.inspected.feature
    axis.stairs(feature.histogram.counts, feature.histogram.edges, fill=True, color=colour, alpha=0.7)
    axis.set(xlabel="code when it fires", ylabel="held-out tokens", yscale="log" if feature.firings else "linear")
    shown = [band for band in feature.bands if band.quantile in (0.1, 0.5, 0.9)]
    for band in shown:
        axis.axvline(band.value, color="0.3", linestyle=":", linewidth=1)
    named = ", ".join(f"{band.quantile:.0%}" for band in sorted(shown, key=lambda band: band.value))
    if shown:
        axis.set_xlabel(f"code when it fires (dotted, from the left: {named})")
    axis.set_title(f"Fires on {feature.firings:,} of {features.about.heldout_tokens:,} tokens")


def _topics(axis: Axes, features: FeaturesResult, colour: str) -> None:
    one = features.inspected.feature
    found = one.topics[:TOPICS][::-1]
    if not found:
        axis.set_title("The text has no topics, or it never fires")
        axis.set_axis_off()
        return
    # data: no formula starts in a label
    names = [shortened(visible(each.topic), 24).replace("$", r"\$") for each in found]
    axis.barh(range(len(names)), [100 * each.rate for each in found], color=colour, alpha=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.axvline(100 * one.summary.density, color="0.3", linestyle=":", linewidth=1)
    part = f"\n{len(found)} of {len(one.topics)} topics" if len(found) < len(one.topics) else ""
    axis.set(xlabel=f"fires on (% of the topic's tokens; dotted: of all){part}")
    axis.set_title(f"{found[-1].rate / max(one.summary.density, 1e-12):.1f} times its mean rate in one topic")


def matches_table(features: FeaturesResult) -> Markdown:
    """The inspected feature's partner in every other seed, and the nearest feature of the other dictionary."""
    rows = [
        [
            f"seed {one.seed}",
            str(one.feature),
            one.cosine,
            one.centred_cosine,
            one.firing_correlation,
            _text(one.name),
        ]
        for one in features.inspected.feature.matches[:MATCHES]
    ]
    if not rows:
        return Markdown("There is one seed: no other dictionary to match it with.")
    header = ["match in", "feature", "cosine", "cosine, centred", "correlation of firing", "its name"]
    return Markdown(markdown_table(header, rows))


def logits_table(features: FeaturesResult) -> Markdown:
    """Output tokens that the inspected atom promotes and suppresses most, by its direct path."""
    summary = features.inspected.feature.summary
    pairs = zip(summary.promoted[:LOGITS], summary.suppressed[:LOGITS], strict=False)
    rows = [[_token(up.token), signed(up.logit, 2), _token(down.token), signed(down.logit, 2)] for up, down in pairs]
    return Markdown(markdown_table(["promoted", "logit", "suppressed", "logit"], rows))


def _token(token: str) -> str:
    return _text(token.replace(" ", "·")) or "(part of a character)"


def anchors_table(features: FeaturesResult) -> Markdown:
    """The inspected atom's heaviest anchors, and the training contexts nearest to each."""
    one = features.inspected
    weights = {each.anchor: each for each in one.feature.archetypes.anchors} if one.feature.archetypes else {}
    rows = [
        [
            str(anchor.anchor),
            weights[anchor.anchor].weight,
            weights[anchor.anchor].cosine,
            "<br>".join(_context(context, BEFORE, AFTER) for context in anchor.contexts),
        ]
        for anchor in one.anchors
    ]
    return Markdown(markdown_table(["anchor", "weight", "cosine with the atom", "nearest training contexts"], rows))


def _dictionary(report: Report, name: str) -> DictionaryFeatures:
    if name not in ("free", "archetypal"):
        raise ValueError(f"dictionary = {name!r}: must be free or archetypal")
    return getattr(report.table(TABLE), name)


def sae(report: Report, dictionary: str = "archetypal") -> SAE:
    """The trained autoencoder whose features this notebook shows; `dictionary` is `free` or `archetypal`."""
    key = _dictionary(report, dictionary).about.key
    return report.study.sae(subject_runs(report.study, key)[0])


def explain(report: Report, text: str, dictionary: str = "archetypal", top: int = 3) -> pd.DataFrame:
    """Token by token, the features of a dictionary that fire most on `text`: code, index, automatic name.

    `dictionary` is `free` or `archetypal`. Needs the trained models. Text beyond a window goes on in another one.
    Raises ValueError for another dictionary, and for a text of fewer than 2 tokens.
    """
    chosen, study, config = _dictionary(report, dictionary), report.study, report.config.language_model
    found = explain_text(
        study.model,
        config.layer,
        sae(report, dictionary),
        study.tokenizer,
        text,
        context=config.context,
        start=window_start(study.tokenizer, report.config.corpus.bos),
        max_norm=study.train_activations.threshold,
    )
    rows = []
    for place, token in enumerate(found.tokens):
        fired = [
            f"{value:.2f} · {feature} · {visible(chosen.names[feature])}"
            for value, feature in zip(found.values[place].tolist(), found.indices[place].tolist(), strict=True)
            if value > 0
        ][:top]
        note = "not read: outlier" if place % config.context else "not read: first position"
        fired = fired or ([] if found.read[place] else [note])
        rows.append([str(place), visible(token.replace(" ", "·")), *fired, *[""] * (top - len(fired))])
    ranks = ["strongest feature", *(f"{rank}." for rank in range(2, top + 1))]
    return table(["position", "token", *ranks], rows)


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The arms of the primary contrasts, free ones from a random start, and what is not trained."""
    arms = [arm for one in contrasts.PRIMARY for arm in (one.ra, one.free, one.published[1])]
    return [row for row in rows if row.key in arms or not row.trained]


def probing_sentence(probing: ProbingResult) -> Markdown:
    """What the constraint changes in sparse topic probes."""
    gains = _topic_gains(probing)
    ceiling = next((row.accuracy["all"] for row in probing.rows if "all" in row.accuracy), None)
    dropped = [_text(name) for name in probing.dropped[:TOPICS]]
    most = str(SIZES[-1])
    trained = [
        {"label": row.label, "score": row.accuracy[most].estimate} for row in _shown(probing.rows) if row.trained
    ]
    untrained = [row for row in probing.rows if not row.trained and "all" not in row.accuracy]
    control = max(untrained, key=lambda row: row.accuracy[most].estimate, default=None)
    raw = next((row.accuracy[most].estimate for row in probing.rows if "all" in row.accuracy), None)
    values = dict(gains=gains, size=HEADLINE_SIZE, ceiling=ceiling, reason=_text(probing.reason), dropped=dropped)
    values |= dict(most=most, raw=raw, control=control, best=max(trained, key=lambda one: one["score"], default=None))
    return finding("probing", result=probing, **values)


def probing_table(probing: ProbingResult) -> pd.DataFrame:
    """Chance-normalised accuracy of probes of each size, with 95 % intervals over documents and seeds."""
    rows = [
        [row.label, row.seeds, *(interval(row.accuracy[str(size)]) for size in SIZES), row.entropy]
        for row in _shown(probing.rows)
    ]
    sizes = [f"{size} feature{'s' * (size > 1)}" for size in SIZES]
    caption = "Score on held-out documents: accuracy on a scale from 0, guessing, to 1, never wrong; 95 %. Exploratory."
    return table(["probe on", "seeds", *sizes, "token entropy, bits"], rows, caption)


def probing_figure(probing: ProbingResult) -> Figure:
    """Held-out accuracy of sparse topic probes, a row an arm: a dot where trained, a cross where not."""
    scores = [[row.accuracy[str(size)] for size in SIZES] for row in _shown(probing.rows)]
    titles = [f"{size} feature{'s' * (size > 1)} a topic" for size in SIZES]
    figure, axes = _dots(_shown(probing.rows), scores, titles, probing.reason)
    axes[1].set_xlabel("probe score on held-out documents: 0 guessing, 1 never wrong\n● trained   × needs no training")
    for axis in axes:
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    return figure


def _dots(
    rows: Sequence[Row], scores: Sequence[Sequence[Interval]], titles: Sequence[str], reason: str
) -> tuple[Figure, Sequence[Axes]]:
    """A panel a size of probe, a line an arm or baseline, each with its interval; where it is empty, why."""
    figure, axes = panels(len(titles), width=3.6, height=0.3 * len(rows) + 1.5, sharex=True, sharey=True)
    for column, axis in enumerate(axes):
        for place, (row, found) in enumerate(zip(rows[::-1], scores[::-1], strict=True)):
            style = marker(row.key) if row.trained else {"color": "black", "shape": "x"}
            point(axis, found[column].estimate, place, found[column], **style)
        axis.set_title(titles[column])
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows[::-1]], fontsize=8)
    if not rows:
        axes[1].set_title(visible(reason).replace("$", r"\$")[:60])
    return figure, axes


def task_probes_sentence(probes: TaskProbesResult) -> Markdown:
    """What the rule for interpretability says, and of how many tasks and prompts."""
    raw = probes.of(task_probes.RAW)
    counts = [[getattr(task, name) for task in probes.tasks] for name in ("train", "test", "leaked", "unread")]
    return finding(
        "task_probes",
        reason=_text(probes.reason),
        made_up=probes.made_up,
        decisions=probes.decisions() if raw else [],
        size=task_probes.HEADLINE_SIZE,
        margin=contrasts.PROBE_MARGIN,
        level=PRIMARY_LEVEL,
        tasks=len(probes.tasks),
        train=int(np.median(counts[0])) if raw else 0,
        test=int(np.median(counts[1])) if raw else 0,
        leaked=sum(counts[2]),
        unread=sum(counts[3]),
        ceiling=raw.mean("all").estimate if raw else None,
        dropped=[_text(name) for name in probes.dropped],
    )


def _sparse_rows(probes: TaskProbesResult) -> list[TaskProbeRow]:
    """What is shown elsewhere too, and the frozen centroids; of raw coordinates there is no sparse probe."""
    frozen = [sweep_references(frame)[1] for frame in FRAMES]
    shown = [row.key for row in _shown(probes.rows)] + frozen
    return [row for row in probes.rows if row.key in shown and row.key != task_probes.RAW]


def task_probes_table(probes: TaskProbesResult) -> pd.DataFrame:
    """Mean test AUC of probes of each size, with 95 % intervals over tasks and seeds."""
    sizes = task_probes.SIZES
    rows = [
        [row.label, len(row.seeds), *(interval(row.mean(str(size))) for size in sizes)] for row in _sparse_rows(probes)
    ]
    if raw := probes.of(task_probes.RAW):
        rows.append([f"{raw.label}, all coordinates", 1, *[None] * (len(sizes) - 1), interval(raw.mean("all"))])
    return table(["probe on", "seeds", *(f"{size} feature{'s' * (size > 1)}" for size in sizes)], rows)


def task_probes_figure(probes: TaskProbesResult) -> Figure:
    """Mean test AUC of sparse probes of the binary tasks, a row an arm: a dot where trained, a cross where not."""
    rows = _sparse_rows(probes)
    scores = [[row.mean(str(size)) for size in task_probes.SIZES] for row in rows]
    titles = [f"{size} feature{'s' * (size > 1)} a task" for size in task_probes.SIZES]
    figure, axes = _dots(rows, scores, titles, probes.reason)
    axes[1].set_xlabel(
        "mean test AUC of the tasks (0.5: guessing)\n● trained   × needs no training   "
        "dashed: regression on all coordinates of the raw activations"
    )
    if raw := probes.of(task_probes.RAW):
        for axis in axes:
            axis.axvline(raw.mean("all").estimate, color="0.3", linewidth=1, linestyle="--")
    return figure
