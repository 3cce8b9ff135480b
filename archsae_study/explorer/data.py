"""What the feature explorer shows, as data: of one feature, of one dictionary, of several dictionaries side by side.

Numbers keep full precision; `page.plain` turns everything here into JSON, rounded as the page shows it.
"""

from dataclasses import dataclass

FORMAT = 1
"""Of the JSON that the page reads; raised whenever a field changes its meaning."""


@dataclass(frozen=True)
class Context:
    """The tokens around one activation."""

    tokens: list[str]
    """As text, so that they join to the decoded document."""
    values: list[float]
    """Code of the feature at each token; 0 where it does not fire."""
    marked: int
    """Index of the token that the context is about."""
    document: int
    position: int
    """Of the marked token in its window."""
    topic: str | None
    """Of the document, where the text has labels."""


@dataclass(frozen=True)
class Band:
    """Contexts around one quantile of a feature's non-zero codes."""

    quantile: float
    """1 is the largest code."""
    value: float
    """The code at that quantile."""
    contexts: list[Context]


@dataclass(frozen=True)
class Histogram:
    """Non-zero codes of one feature in equal bins from 0 to its maximum."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class TokenMass:
    """A token and the share of a feature's activation mass, the sum of its codes, that lies on it."""

    token: str
    share: float


@dataclass(frozen=True)
class TokenLogit:
    """An output token and what the atom's direct path adds to its logit, relative to the vocabulary's mean."""

    token: str
    id: int
    logit: float


@dataclass(frozen=True)
class TopicFiring:
    """How a feature fires in the documents of one topic."""

    topic: str
    rate: float
    """Share of the topic's tokens on which it fires."""
    mass: float
    """Share of its activation mass that lies in the topic."""


@dataclass(frozen=True)
class Neighbour:
    """Another feature whose atom points in a similar direction."""

    dictionary: str
    """Key of its dictionary."""
    feature: int
    cosine: float


@dataclass(frozen=True)
class Match:
    """The partner of a feature in the dictionary of another seed, under the best one-to-one matching."""

    seed: int
    feature: int
    cosine: float
    """Of the two atoms."""
    centred_cosine: float
    """Of the atoms less their dictionaries' means: what the matching maximises."""
    firing_correlation: float | None
    """Pearson correlation of the two codes over held-out tokens; None where neither fires."""
    name: str
    """Automatic name of the partner."""


@dataclass(frozen=True)
class AnchorWeight:
    """One anchor in the convex combination that an archetypal atom is."""

    anchor: int
    weight: float
    cosine: float
    """Of the anchor with the atom."""


@dataclass(frozen=True)
class Archetypes:
    """What an archetypal atom is made of."""

    anchors: list[AnchorWeight]
    """Largest weights first."""
    effective_anchors: float
    """exp of the entropy of the row of W."""
    relaxation: float
    """Norm of the row of Λ."""
    hull_share: float
    """‖W_i C‖ / (‖W_i C‖ + ‖Λ_i‖)."""


@dataclass(frozen=True)
class Anchor:
    """One anchor with the training activations nearest to it."""

    anchor: int
    contexts: list[Context]


@dataclass(frozen=True)
class Summary:
    """What the list of features shows of one."""

    feature: int
    name: str
    """Computed from the activation mass (`archsae_core.metrics.feature_names`)."""
    density: float
    """Share of the held-out tokens on which it fires."""
    maximum: float
    mean_active: float
    """Mean of the non-zero codes; 0 where it never fires."""
    stability: float | None
    """Mean centred cosine with its match in every other seed; None with one seed."""
    probe: float | None
    """Held-out AUROC of this feature alone for the topic that it tells best in training; None without labels."""
    probe_topic: str | None
    """That topic."""
    purity: float | None
    """Share of the activation mass on its heaviest token; None where it never fires."""
    entropy: float | None
    """Entropy in bits of the token under its 20 largest codes; None for fewer firings."""
    topic: str | None
    """Topic with at least twice as much activation mass per token as any other; None where there is none."""
    tokens: list[TokenMass]
    """Heaviest tokens."""
    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]


@dataclass(frozen=True)
class Feature:
    """Everything that the explorer shows of one feature."""

    summary: Summary
    firings: int
    histogram: Histogram
    topics: list[TopicFiring]
    """Empty where the text has no labels."""
    bands: list[Band]
    nearest: list[Neighbour]
    """In its own dictionary."""
    counterparts: list[Neighbour]
    """The nearest one in each of the other dictionaries on show."""
    matches: list[Match]
    """In every other seed."""
    archetypes: Archetypes | None
    """None where the dictionary has no anchors."""


@dataclass(frozen=True)
class DictionaryAbout:
    """One dictionary on show."""

    key: str
    """In links and file names: letters, digits, `-`, `_` and `.`."""
    label: str
    kind: str
    """`free` or `archetypal`."""
    n_features: int
    d_model: int
    k: int | None
    """None where nobody recorded it."""
    units: str
    """What its codes count in."""
    seed: int | None
    """None where it is not known."""
    other_seeds: list[int]
    """Seeds that matches are shown for."""
    delta: float | None
    """Radius of the relaxation, where the dictionary is archetypal."""
    r2: float | None
    """Held-out R², where it was measured."""


@dataclass(frozen=True)
class About:
    """Where the dictionaries on show come from."""

    title: str
    model: str
    layer: int
    text: str
    heldout_tokens: int
    """Tokens that were scanned."""
    heldout_documents: int
    topics: list[str]
    dictionaries: list[DictionaryAbout]
    note: str
    """Preset, date, commit: what the page prints at its foot."""
