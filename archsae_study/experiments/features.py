"""Notebook 07: features of the free and the archetypal dictionary, chosen by rules, and one of them in depth.

What is shown of a feature is what the feature explorer shows of it; this table holds a choice, so that the notebook can
be read without the models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from archsae_core.metrics import artefacts, feature_names
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.explorer.build import Explorer
from archsae_study.explorer.data import About, Anchor, Band, DictionaryAbout, Feature, Summary
from archsae_study.explorer.of_study import of_study, subject_runs
from archsae_study.protocol.arms import explored_arms

MIN_FIRINGS = 20
"""Held-out tokens on which a feature must fire to be judged: the entropy of its tokens needs as many."""
DENSE = 0.1
"""A feature that fires on a larger share of the tokens says little about any of them."""
MOSTLY = 0.5
"""Share of the activation mass on formatting tokens from which on a feature counts as an artefact of the text."""
GALLERY_BANDS = (1.0, 0.5, 0.1)
"""Quantiles of a feature's codes at which the gallery shows a context."""
WEIGHTS = 50
"""Weights on anchors that are kept of the inspected feature."""


@dataclass(frozen=True)
class Chosen:
    """What one rule of the gallery chooses in one dictionary."""

    rule: str
    """One of `RULES`, or `dead`."""
    summary: Summary | None
    """Of the feature; None where no feature fits, and of dead ones."""
    bands: list[Band]
    """One context at each of `GALLERY_BANDS`, as far as there are such."""
    formatting: dict[str, float]
    """Share of the activation mass on each of `artefacts.KINDS`."""
    reason: str
    """Why no feature is shown; empty where one is."""


@dataclass(frozen=True)
class Overview:
    """All features of one dictionary, counted."""

    dead: int
    """Fire on no held-out token."""
    dense: int
    """Fire on more than `DENSE` of them."""
    judged: int
    """Fire on at least `MIN_FIRINGS` tokens and are not dense: what the rules choose from. The counts below are of
    these."""
    named: int
    """A few tokens, or the start of a window, hold half the activation mass."""
    with_topic: int
    """One topic has at least twice as much mass per token as any other."""
    artefacts: int
    """Formatting tokens hold at least `MOSTLY` of the mass."""
    stability: float | None
    """Median of the mean centred cosine with the matches in other seeds."""
    entropy: float | None
    """Median entropy, in bits, of the token under the 20 largest codes."""
    probe: float | None
    """Median held-out AUROC of a feature alone for the topic that it tells best in training."""


@dataclass(frozen=True)
class DictionaryFeatures:
    """One dictionary."""

    about: DictionaryAbout
    overview: Overview
    gallery: list[Chosen]
    names: list[str]
    """Automatic name of every feature."""


@dataclass(frozen=True)
class Inspected:
    """One feature in depth."""

    dictionary: str
    """Key of its arm."""
    rule: str
    """`parameter`, or the rule that chose it."""
    feature: Feature
    formatting: dict[str, float]
    """Share of the activation mass on each of `artefacts.KINDS`."""
    weights: list[float]
    """Its largest weights on anchors, largest first."""
    anchors: list[Anchor]
    """The heaviest of them, with the training contexts nearest to each."""


@dataclass(frozen=True)
class FeaturesResult:
    """The choice from both dictionaries, and one feature in depth."""

    about: About
    dictionaries: list[DictionaryFeatures]
    """Free, archetypal."""
    inspected: Inspected

    def of(self, key: str) -> DictionaryFeatures:
        """A dictionary by the key of its arm."""
        return next(one for one in self.dictionaries if one.about.key == key)

    @property
    def free(self) -> DictionaryFeatures:
        """The dictionary without a constraint."""
        return next(one for one in self.dictionaries if one.about.kind == "free")

    @property
    def archetypal(self) -> DictionaryFeatures:
        """The dictionary in the hull of the anchors."""
        return next(one for one in self.dictionaries if one.about.kind == "archetypal")


def judged(summaries: Sequence[Summary], tokens: int) -> list[Summary]:
    """Features that fire on at least `MIN_FIRINGS` of the `tokens` and on at most the share `DENSE`."""
    return [one for one in summaries if round(one.density * tokens) >= MIN_FIRINGS and one.density <= DENSE]


def _stable(one: Summary) -> float | None:
    return one.stability


def _unstable(one: Summary) -> float | None:
    return None if one.stability is None else -one.stability


def _pure(one: Summary) -> tuple[float, float] | None:
    return None if one.entropy is None or one.purity is None else (-one.entropy, one.purity)


def _topic(one: Summary) -> float | None:
    return None if one.probe_topic is None else one.probe


def _strongest(one: Summary) -> float | None:
    return one.maximum


RULES: dict[str, tuple[Callable[[Summary], object], str]] = {
    "stable": (_stable, "there is one seed"),
    "unstable": (_unstable, "there is one seed"),
    "pure": (_pure, "no feature fires often enough"),
    "topic": (_topic, "the text has no topics that can be probed"),
}
"""What the judged feature with the largest value of shows; and why there may be no value. Ties: the lower index."""


def best(summaries: Sequence[Summary], value: Callable[[Summary], object]) -> Summary | None:
    """The feature with the largest `value`; None where it is None for all."""
    known = [one for one in summaries if value(one) is not None]
    return max(known, key=value, default=None)  # type: ignore[arg-type]


def choose(summaries: Sequence[Summary], tokens: int) -> list[tuple[str, Summary | None, str]]:
    """What each rule chooses: its name, the feature, and where there is none, why."""
    fit, found = judged(summaries, tokens), []
    for rule, (value, missing) in RULES.items():
        one = best(fit, value)
        found.append((rule, one, "" if one else missing if fit else "no feature fires often enough, yet not densely"))
    densest = best([one for one in summaries if one.density > 0], lambda one: one.density)
    found.append(("densest", densest, "" if densest else "no feature fires"))
    dead = sum(one.density == 0 for one in summaries)
    why = "what never fires has no contexts, and a name would be made up"
    return [*found, ("dead", None, f"{dead} of {len(summaries)}: {why}" if dead else f"none of {len(summaries)}")]


def overview(summaries: Sequence[Summary], formatting: np.ndarray, tokens: int) -> Overview:
    """Counts of one dictionary; `formatting` are the shares of every feature's mass on formatting tokens, summed."""
    fit = judged(summaries, tokens)
    return Overview(
        dead=sum(one.density == 0 for one in summaries),
        dense=sum(one.density > DENSE for one in summaries),
        judged=len(fit),
        named=sum(feature_names.MORE not in one.name for one in fit),
        with_topic=sum(one.topic is not None for one in fit),
        artefacts=sum(bool(formatting[one.feature] >= MOSTLY) for one in fit),
        stability=_median([one.stability for one in fit]),
        entropy=_median([one.entropy for one in fit]),
        probe=_median([one.probe for one in fit if one.probe_topic is not None]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def build(study: Study) -> FeaturesResult:
    """Look at every feature of both dictionaries, and keep what the rules choose."""
    explorer = of_study(study, progress=study.progress)
    about = explorer.about
    shares = {one.key: explorer.formatting(one.key) for one in about.dictionaries}
    found = [_dictionary(explorer, one, shares[one.key]) for one in about.dictionaries]
    archetypal = next(one for one in found if one.about.kind == "archetypal")
    return FeaturesResult(about, found, _inspected(study, explorer, archetypal.about.key, shares))


def _dictionary(explorer: Explorer, about: DictionaryAbout, shares: np.ndarray) -> DictionaryFeatures:
    summaries, tokens = explorer.summaries(about.key), explorer.about.heldout_tokens
    gallery = [
        Chosen(
            rule,
            one,
            [] if one is None else _gallery_bands(explorer.feature(about.key, one.feature)),
            {} if one is None else _formatting(shares, one.feature),
            reason,
        )
        for rule, one, reason in choose(summaries, tokens)
    ]
    return DictionaryFeatures(
        about, overview(summaries, shares.sum(axis=1), tokens), gallery, [one.name for one in summaries]
    )


def _gallery_bands(feature: Feature) -> list[Band]:
    return [
        Band(band.quantile, band.value, band.contexts[:1]) for band in feature.bands if band.quantile in GALLERY_BANDS
    ]


def _formatting(shares: np.ndarray, feature: int) -> dict[str, float]:
    return dict(zip(artefacts.KINDS, shares[feature].tolist(), strict=True))


def _inspected(study: Study, explorer: Explorer, key: str, shares: dict[str, np.ndarray]) -> Inspected:
    rule, chosen = inspected_feature(
        explorer.summaries(key), explorer.about.heldout_tokens, study.config.comparison.feature
    )
    feature = explorer.feature(key, chosen)
    shown = set(explorer.anchors(key))
    weights = feature.archetypes.anchors if feature.archetypes else []
    dictionary = study.sae(subject_runs(study, key)[0]).dictionary
    assert isinstance(dictionary, ArchetypalDictionary)
    return Inspected(
        dictionary=key,
        rule=rule,
        feature=feature,
        formatting=_formatting(shares[key], chosen),
        weights=dictionary.W[chosen].detach().topk(min(WEIGHTS, len(dictionary.C))).values.tolist(),
        anchors=[explorer.anchor(key, one.anchor) for one in weights if one.anchor in shown],
    )


def inspected_feature(summaries: Sequence[Summary], tokens: int, feature: int | None) -> tuple[str, int]:
    """The feature in depth, and by which rule: the one asked for, else the first of these that there is.

    The one that tells a topic best, the most stable one, the one with the largest code, in judged features before all.
    """
    if feature is not None:
        return "parameter", feature
    fit = judged(summaries, tokens)
    for rule, value in (("topic", _topic), ("stable", _stable), ("strongest", _strongest)):
        if (one := best(fit, value)) is not None:
            return rule, one.feature
    one = best(summaries, _strongest)
    assert one is not None
    return "strongest", one.feature


def runs(study: Study) -> list[Run]:
    """Both dictionaries, in every seed."""
    return [run for arm in explored_arms(study.config.activations.frame) for run in subject_runs(study, arm)]


TABLE = Table(
    name="features",
    result=FeaturesResult,
    build=build,
    runs=runs,
    fields=("seed", "n_seeds", "feature", "heldout_tokens"),
    file="features.json",
)
