"""Fills the explorer from trained dictionaries, activations and a language model.

What is dear is done once for all features: the scan, the logits, the cosines, the matchings, the nearest activations of
the anchors. One feature's contexts are put together when they are asked for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor
from tqdm.auto import tqdm

from archsae_core.data.activations import ActivationSet
from archsae_core.data.corpus import topic_indices
from archsae_core.data.tokens import TokenSet
from archsae_core.metrics import artefacts, feature_names, probing
from archsae_core.metrics import features as inspection
from archsae_core.metrics.contexts import WindowTexts
from archsae_core.metrics.features import Scan
from archsae_core.metrics.matching import centred_cosines, cosines, match
from archsae_core.metrics.probing import Passages
from archsae_core.metrics.stability import pair_correlations
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE
from archsae_study.explorer.data import (
    About,
    Anchor,
    AnchorWeight,
    Archetypes,
    Band,
    Context,
    DictionaryAbout,
    Feature,
    Histogram,
    Match,
    Neighbour,
    Summary,
    TokenLogit,
    TokenMass,
    TopicFiring,
)

TOP_TOKENS = 8
"""Heaviest tokens shown of a feature."""
NAME_TOKENS = 32
"""Heaviest tokens among which those that name a feature are looked for."""
NEAREST = 6
"""Nearest features of the same dictionary."""
ANCHORS = 5
"""Anchors shown of an archetypal feature."""
ANCHOR_CONTEXTS = 3
"""Training contexts shown of an anchor."""
BINS = 20
"""Of the histogram of codes."""
BEFORE, AFTER = 16, 8
"""Tokens of a context before and after the one that it is about."""
COSINE_ROWS = 512
"""Rows of a matrix of cosines held at a time."""


@dataclass(frozen=True)
class Subject:
    """One dictionary to show."""

    key: str
    """In links and file names: letters, digits, `-`, `_` and `.`."""
    label: str
    sae: SAE
    seed: int | None
    """None where it is not known."""
    others: Mapping[int, SAE] = field(default_factory=dict)
    """The dictionaries of other seeds that its features are matched with."""
    delta: float | None = None
    r2: float | None = None


class MaterialPart(NamedTuple):
    """Activations of one part of the documents, and their text."""

    activations: ActivationSet
    tokens: TokenSet
    rows: Int64[np.ndarray, " n"]
    """Rows that are looked at, ascending."""


class Probes(NamedTuple):
    """Passages of training and held-out documents, for the probe of each feature alone."""

    train: tuple[ActivationSet, Passages]
    heldout: tuple[ActivationSet, Passages]
    topics: Sequence[str]
    """Name of each topic that the passages index."""


class Material(NamedTuple):
    """What all dictionaries are looked at with."""

    heldout: MaterialPart
    train: MaterialPart | None
    """For the contexts of anchors; None leaves them out."""
    tokenizer: Any
    model: Any
    labels: Sequence[str | None] | None
    """Topic of every document, where the text has topics."""
    probes: Probes | None


class _Matched(NamedTuple):
    """A dictionary's partners in the dictionary of another seed; -1 where it has more features than that."""

    partner: Int64[np.ndarray, " features"]
    cosine: Float[np.ndarray, " features"]
    centred: Float[np.ndarray, " features"]
    correlation: Float[np.ndarray, " features"]
    names: Sequence[str]
    """Of the other dictionary's features."""


class Tokens:
    """Per activation of one part: its token, the one before, its topic; and tokens as text."""

    def __init__(self, part: MaterialPart, tokenizer: Any, labels: Sequence[str | None] | None) -> None:
        self.part, self.tokenizer, self.labels = part, tokenizer, labels
        self.texts = WindowTexts(part.tokens, tokenizer)
        self._decoded: dict[int, str] = {}

    def text(self, token: int) -> str:
        """A token by itself, as text."""
        if token not in self._decoded:
            self._decoded[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return self._decoded[token]

    @cached_property
    def token(self) -> Int64[np.ndarray, " rows"]:
        """Id of the token of every row."""
        return self.part.activations.token.numpy().astype(np.int64)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " windows_and_end"]:
        """Tokens before each window."""
        return np.concatenate([[0], np.cumsum([len(ids) for ids in self.part.tokens.ids])])

    @cached_property
    def _places(self) -> Int64[np.ndarray, " rows"]:
        """Place of every row's token among the tokens of all windows."""
        activations = self.part.activations
        return self._starts[activations.window.numpy()] + activations.position.numpy()

    @cached_property
    def before(self) -> Int64[np.ndarray, " rows"]:
        """Id of the token right before every row's."""
        return np.concatenate(self.part.tokens.ids).astype(np.int64)[self._places - 1]

    @cached_property
    def kind(self) -> Int64[np.ndarray, " rows"]:
        """Kind of formatting of every row's token, as `artefacts.kinds_of` tells it in its window."""
        flat = np.concatenate(self.part.tokens.ids)
        ids, place = np.unique(flat, return_inverse=True)
        kinds = np.array([artefacts.kind_of(self.text(token)) for token in ids.tolist()])[place]
        for window, tokens in enumerate(self.part.tokens.ids):
            # markup is rare, and strings token by token take ten times as long
            text = self.tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
            if artefacts.MARKUP.search(text):
                start, end = self._starts[window : window + 2]
                kinds[start:end] = artefacts.kinds_of(self.texts[window])
        return kinds[self._places]

    @cached_property
    def topics(self) -> tuple[list[str], Int64[np.ndarray, " rows"]]:
        """Names of the topics, and the topic of every row, −1 for none; both empty where the text has none."""
        if self.labels is None:
            return [], np.zeros(0, dtype=np.int64)
        found, topic = topic_indices(self.labels)
        return list(found), topic[self.part.activations.document.numpy()]

    @cached_property
    def topic_tokens(self) -> Int64[np.ndarray, " topics"]:
        """Looked-at tokens of each topic."""
        found, topic = self.topics
        if not found:
            return np.zeros(0, dtype=np.int64)
        return np.bincount(topic[self.part.rows] + 1, minlength=len(found) + 1)[1:]

    def context(self, row: int, found: Scan | None = None, feature: int = 0) -> Context:
        """The tokens around a row, with the codes of a feature where a scan is given."""
        activations = self.part.activations
        window, position = int(activations.window[row]), int(activations.position[row])
        strings = self.texts[window]
        start, end = max(0, position - BEFORE), min(len(strings), position + AFTER + 1)
        values = np.zeros(end - start, dtype=np.float32)
        if found is not None:
            # Position 0 of a window has no row.
            first = max(start, 1)
            values[first - start :] = found.codes_at(feature, np.arange(row + first - position, row + end - position))
        document = int(activations.document[row])
        return Context(
            tokens=strings[start:end],
            values=values.tolist(),
            marked=position - start,
            document=document,
            position=position,
            topic=None if self.labels is None else self.labels[document],
        )

    def masses(self, found: Scan, feature: int) -> tuple[list[tuple[int, float]], feature_names.Masses]:
        """Where the activation mass of a feature lies: heaviest token ids with their shares, and what names it."""
        values, rows = found.firings(feature)
        on = feature_names.mass_shares(self.token[rows], values, NAME_TOKENS)
        after = feature_names.mass_shares(self.before[rows], values, NAME_TOKENS)
        at_start = float(values[self.part.activations.position.numpy()[rows] <= feature_names.START].sum(dtype=float))
        topics, topic = self.topics
        shares = np.zeros(0)
        if topics:
            shares = np.bincount(topic[rows] + 1, weights=values, minlength=len(topics) + 1)[1:]
        total = max(float(values.sum(dtype=float)), 1e-30)
        of_topics = dict(zip(topics, (shares / total).tolist(), strict=True)) if len(values) else {}
        as_text = [[(self.text(token), share) for token, share in part] for part in (on, after)]
        return on[:TOP_TOKENS], feature_names.Masses(*as_text, at_start / total, of_topics)

    @cached_property
    def usual(self) -> feature_names.Usual:
        """Shares of the looked-at tokens that written forms and topics have."""
        total = max(1, len(self.part.rows))
        forms: dict[str, float] = {}
        for token, count in zip(*np.unique(self.token[self.part.rows], return_counts=True), strict=True):
            form = feature_names.form(self.text(int(token)))
            forms[form] = forms.get(form, 0.0) + int(count) / total
        return feature_names.Usual(forms, dict(zip(self.topics[0], (self.topic_tokens / total).tolist(), strict=True)))

    def name(self, masses: feature_names.Masses) -> str:
        """`feature_names.feature_name` of a feature."""
        return feature_names.feature_name(masses, self.usual)


class _Dictionary:
    """Everything about one subject that is computed for all features at once."""

    def __init__(self, subject: Subject, material: Material, tokens: Tokens) -> None:
        self.subject, self.material, self.tokens = subject, material, tokens

    @cached_property
    def found(self) -> Scan:
        """Every code on the held-out rows."""
        return self._scan(self.subject.sae)

    def _scan(self, sae: SAE) -> Scan:
        part = self.material.heldout
        return inspection.scan(sae, part.activations, torch.from_numpy(part.rows))

    @cached_property
    def masses(self) -> list[tuple[list[tuple[int, float]], feature_names.Masses]]:
        """`Tokens.masses` of every feature."""
        return [self.tokens.masses(self.found, feature) for feature in range(self.found.n_features)]

    @cached_property
    def effects(self) -> inspection.Effects:
        """Promoted and suppressed tokens of every feature."""
        return inspection.output_effects(self.material.model, self.subject.sae, self.material.tokenizer)

    @cached_property
    def atoms(self) -> Float[Tensor, "n_features d_model"]:
        """Unit atoms."""
        return F.normalize(self.subject.sae.atoms().detach().float(), dim=1).cpu()

    @cached_property
    def nearest(self) -> tuple[Int[Tensor, "n_features near"], Float[Tensor, "n_features near"]]:
        """Nearest other features of every feature: indices and cosines."""
        parts = []
        for start in range(0, len(self.atoms), COSINE_ROWS):
            cosine = self.atoms[start : start + COSINE_ROWS] @ self.atoms.T
            cosine[torch.arange(len(cosine)), start + torch.arange(len(cosine))] = -torch.inf
            parts.append(cosine.topk(min(NEAREST, len(self.atoms) - 1), dim=1))
        return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])

    @cached_property
    def matches(self) -> dict[int, _Matched]:
        """Partners in every other seed."""
        return {seed: self._match(sae) for seed, sae in self.subject.others.items()}

    def _match(self, other: SAE) -> _Matched:
        theirs, found = other.atoms().detach().cpu(), self._scan(other)
        cosine = cosines(self.atoms, theirs)
        centred = centred_cosines(self.atoms, theirs)
        pairs = match(centred)
        rows, cols = pairs.rows.numpy(), pairs.cols.numpy()
        size = len(self.atoms)
        partner, values = np.full(size, -1), np.full((3, size), np.nan)
        partner[rows] = cols
        correlation = pair_correlations(self.found.by_token(), found.by_token(), pairs)
        values[:, rows] = [cosine[rows, cols].numpy(), centred[rows, cols].numpy(), correlation]
        called = [self.tokens.name(self.tokens.masses(found, feature)[1]) for feature in range(found.n_features)]
        return _Matched(partner, *values, called)

    @cached_property
    def stability(self) -> Float[np.ndarray, " n_features"]:
        """Mean centred cosine with the partners; NaN where there is none."""
        centred = np.array([found.centred for found in self.matches.values()]).reshape(-1, len(self.atoms))
        known = ~np.isnan(centred)
        sums, counts = np.where(known, centred, 0).sum(axis=0), known.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @cached_property
    def probe(self) -> probing.SingleProbe | None:
        """How well each feature alone tells a topic."""
        probes = self.material.probes
        if probes is None:
            return None
        parts = (probes.train, probes.heldout)
        pooled = ((probing.pool(self.subject.sae, activations, about), about) for activations, about in parts)
        return probing.single_feature_probe(*pooled)

    @cached_property
    def mixtures(self) -> inspection.Mixtures | None:
        """Anchors of every feature; None where the dictionary has none."""
        sae = self.subject.sae
        return inspection.mixtures(sae, top=ANCHORS) if isinstance(sae.dictionary, ArchetypalDictionary) else None

    @cached_property
    def anchors(self) -> Int64[np.ndarray, " used"]:
        """Anchors that some feature shows, ascending."""
        if self.mixtures is None:
            return np.zeros(0, dtype=np.int64)
        return np.unique(self.mixtures.anchor[self.mixtures.weight > 0].numpy())

    @cached_property
    def anchor_rows(self) -> Int[Tensor, "used contexts"] | None:
        """Training rows nearest to each of `anchors`."""
        train, sae = self.material.train, self.subject.sae
        if train is None or self.mixtures is None:
            return None
        points = sae.dictionary.C[torch.from_numpy(self.anchors).to(sae.dictionary.C.device)]
        rows = torch.from_numpy(train.rows)
        return inspection.nearest_rows(sae, points, train.activations, rows, ANCHOR_CONTEXTS)

    @cached_property
    def entropy(self) -> list[float | None]:
        """Token entropy of every feature."""
        return inspection.token_entropy(self.found, self.material.heldout.activations)

    @cached_property
    def summaries(self) -> list[Summary]:
        """Of every feature."""
        table = inspection.table(self.found, top=0)
        return [self._summary(feature, table) for feature in range(self.found.n_features)]

    def _summary(self, feature: int, table: Mapping[str, list]) -> Summary:
        on, masses = self.masses[feature]
        auc, told = (None, None) if self.probe is None else self._told(feature)
        effects, stability = self.effects, self.stability[feature]
        return Summary(
            feature=feature,
            name=self.tokens.name(masses),
            density=table["firing_rate"][feature],
            maximum=table["max"][feature],
            mean_active=table["mean_active"][feature],
            stability=None if np.isnan(stability) else float(stability),
            probe=auc,
            probe_topic=told,
            purity=on[0][1] if on else None,
            entropy=self.entropy[feature],
            topic=feature_names.leading_topic(masses.topics, self.tokens.usual.topics),
            tokens=[TokenMass(self.tokens.text(token), share) for token, share in on],
            promoted=self._logits(effects.promoted[feature], effects.promoted_logit[feature]),
            suppressed=self._logits(effects.suppressed[feature], effects.suppressed_logit[feature]),
        )

    def _told(self, feature: int) -> tuple[float, str | None]:
        assert self.probe is not None
        assert self.material.probes is not None
        topic = int(self.probe.topic[feature])
        return float(self.probe.auc[feature]), self.material.probes.topics[topic] if topic >= 0 else None

    def _logits(self, ids: Int64[Tensor, " top"], logits: Float[Tensor, " top"]) -> list[TokenLogit]:
        return [TokenLogit(self.tokens.text(i), i, x) for i, x in zip(ids.tolist(), logits.tolist(), strict=True)]

    def formatting(self) -> Float[np.ndarray, "n_features kinds"]:
        """Share of every feature's activation mass on each of `artefacts.KINDS`."""
        found, kinds = self.found, len(artefacts.KINDS)
        feature = np.repeat(np.arange(found.n_features), np.diff(found.offsets))
        key = feature * (kinds + 1) + self.tokens.kind[found.rows] + 1
        mass = np.bincount(key, weights=found.values, minlength=found.n_features * (kinds + 1))
        mass = mass.reshape(found.n_features, kinds + 1)
        return mass[:, 1:] / np.maximum(mass.sum(axis=1, keepdims=True), 1e-30)

    def about(self) -> DictionaryAbout:
        """What the page says of the dictionary."""
        sae, subject = self.subject.sae, self.subject
        archetypal = isinstance(sae.dictionary, ArchetypalDictionary)
        return DictionaryAbout(
            key=subject.key,
            label=subject.label,
            kind="archetypal" if archetypal else "free",
            n_features=sae.n_features,
            d_model=sae.d_model,
            k=None if sae.about.k_recorded is False else sae.k,
            units=_units(sae),
            seed=subject.seed,
            other_seeds=sorted(subject.others),
            delta=subject.delta if archetypal else None,
            r2=subject.r2,
        )

    def histogram(self, feature: int) -> Histogram:
        """Of the non-zero codes."""
        values = self.found.firings(feature)[0]
        counts, edges = np.histogram(values, bins=BINS, range=(0, max(float(values.max(initial=0)), 1e-12)))
        return Histogram(edges.tolist(), counts.tolist())

    def topics(self, feature: int) -> list[TopicFiring]:
        """How it fires in every topic, most mass first."""
        topics, topic = self.tokens.topics
        rows = self.found.firings(feature)[1]
        if not topics or not len(rows):
            return []
        fired = np.bincount(topic[rows] + 1, minlength=len(topics) + 1)[1:]  # the first counts rows without a topic
        rates = fired / np.maximum(self.tokens.topic_tokens, 1)
        masses = self.masses[feature][1].topics
        firing = [TopicFiring(name, rate, masses[name]) for name, rate in zip(topics, rates.tolist(), strict=True)]
        return sorted(firing, key=lambda each: -each.rate)

    def bands(self, feature: int) -> list[Band]:
        """Contexts at quantiles of its codes; a context that a band above holds is not shown again."""
        shown: set[int] = set()
        bands = []
        for quantile, value, rows in inspection.band_rows(self.found, feature, self.material.heldout.activations):
            new = [row for row in rows if row not in shown]
            shown.update(new)
            if new:
                contexts = [self.tokens.context(row, self.found, feature) for row in new]
                bands.append(Band(quantile, value, contexts))
        return bands

    def neighbours(self, feature: int) -> list[Neighbour]:
        """Nearest features of the same dictionary."""
        indices, values = self.nearest
        pairs = zip(indices[feature].tolist(), values[feature].tolist(), strict=True)
        return [Neighbour(self.subject.key, index, cosine) for index, cosine in pairs]

    def matched(self, feature: int) -> list[Match]:
        """The partner in every other seed."""
        return [
            Match(
                seed=seed,
                feature=int(found.partner[feature]),
                cosine=float(found.cosine[feature]),
                centred_cosine=float(found.centred[feature]),
                firing_correlation=None if np.isnan(found.correlation[feature]) else float(found.correlation[feature]),
                name=found.names[int(found.partner[feature])],
            )
            for seed, found in sorted(self.matches.items())
            if found.partner[feature] >= 0
        ]

    def archetypes(self, feature: int) -> Archetypes | None:
        """What it is made of."""
        found = self.mixtures
        if found is None:
            return None
        parts = (part[feature].tolist() for part in (found.anchor, found.weight, found.cosine))
        weights = [AnchorWeight(*each) for each in zip(*parts, strict=True) if each[1] > 0]
        rest = (found.effective_anchors, found.relaxation, found.hull_share)
        return Archetypes(weights, *(float(part[feature]) for part in rest))


class Explorer:
    """Several dictionaries with every feature's summary, and its details on demand: a `page.Explorable`."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        material: Material,
        *,
        title: str = "Feature explorer",
        model: str = "",
        layer: int = 0,
        text: str = "",
        note: str = "",
        progress: bool = False,
    ) -> None:
        """Compute all that is computed for every feature at once. Raises ValueError for a key that occurs twice."""
        repeated = [key for key, count in Counter(subject.key for subject in subjects).items() if count > 1]
        if repeated:
            raise ValueError(f"subjects: the key {repeated[0]!r} occurs twice")
        self._tokens = Tokens(material.heldout, material.tokenizer, material.labels)
        self._train = material.train and Tokens(material.train, material.tokenizer, material.labels)
        self._dictionaries = {subject.key: _Dictionary(subject, material, self._tokens) for subject in subjects}
        steps = ("found", "masses", "effects", "nearest", "matches", "probe", "anchor_rows", "summaries")
        work = [(dictionary, step) for dictionary in self._dictionaries.values() for step in steps]
        bar = tqdm(work, desc="features", unit="step", disable=not progress)
        for dictionary, step in bar:
            bar.set_postfix_str(f"{dictionary.subject.label}: {STEPS[step]}")
            getattr(dictionary, step)
        self._counterparts = self._find_counterparts()
        heldout = material.heldout
        self.about = About(
            title=title,
            model=model,
            layer=layer,
            text=text,
            heldout_tokens=len(heldout.rows),
            heldout_documents=len(np.unique(heldout.activations.document.numpy()[heldout.rows])),
            topics=self._tokens.topics[0],
            dictionaries=[dictionary.about() for dictionary in self._dictionaries.values()],
            note=note,
        )

    def _find_counterparts(self) -> dict[str, list[tuple[str, Tensor, Tensor]]]:
        """For every dictionary, the nearest feature of each other one of the same width, with its cosine."""
        found: dict[str, list[tuple[str, Tensor, Tensor]]] = {key: [] for key in self._dictionaries}
        for key, dictionary in self._dictionaries.items():
            for other, theirs in self._dictionaries.items():
                if other != key and dictionary.atoms.shape[1] == theirs.atoms.shape[1]:
                    best = [(part @ theirs.atoms.T).max(dim=1) for part in dictionary.atoms.split(COSINE_ROWS)]
                    indices, values = (
                        torch.cat([getattr(part, name) for part in best]) for name in ("indices", "values")
                    )
                    found[key].append((other, indices, values))
        return found

    def summaries(self, key: str) -> list[Summary]:
        """Of every feature of a dictionary, in order."""
        return self._dictionaries[key].summaries

    def feature(self, key: str, feature: int) -> Feature:
        """One feature in full. Raises IndexError for one that the dictionary has not."""
        dictionary = self._dictionaries[key]
        firings = len(dictionary.found.firings(feature)[0])
        return Feature(
            summary=dictionary.summaries[feature],
            firings=firings,
            histogram=dictionary.histogram(feature),
            topics=dictionary.topics(feature),
            bands=dictionary.bands(feature),
            nearest=dictionary.neighbours(feature),
            counterparts=[
                Neighbour(other, int(indices[feature]), float(values[feature]))
                for other, indices, values in self._counterparts[key]
            ],
            matches=dictionary.matched(feature),
            archetypes=dictionary.archetypes(feature),
        )

    def formatting(self, key: str) -> Float[np.ndarray, "n_features kinds"]:
        """Share of the activation mass of every feature of a dictionary on each of `artefacts.KINDS`."""
        return self._dictionaries[key].formatting()

    def anchors(self, key: str) -> list[int]:
        """Anchors that the features of a dictionary name; empty where it has none or no training text is given."""
        dictionary = self._dictionaries[key]
        return [] if dictionary.anchor_rows is None else dictionary.anchors.tolist()

    def anchor(self, key: str, anchor: int) -> Anchor:
        """One of them with its nearest training contexts. Raises KeyError for another one."""
        dictionary = self._dictionaries[key]
        place = int(np.searchsorted(dictionary.anchors, anchor))
        rows = dictionary.anchor_rows
        if rows is None or self._train is None or dictionary.anchors[place : place + 1].tolist() != [anchor]:
            raise KeyError(f"no feature of {key} shows anchor {anchor}")
        return Anchor(anchor, [self._train.context(row) for row in rows[place].tolist()])


STEPS = {
    "found": "codes of the held-out tokens",
    "masses": "names",
    "effects": "promoted tokens",
    "nearest": "nearest features",
    "matches": "other seeds",
    "probe": "topics",
    "anchor_rows": "anchors",
    "summaries": "summaries",
}
"""What the progress bar says of each step."""


def _units(sae: SAE) -> str:
    """What an SAE's codes count in."""
    if sae.about.has_own_units:
        return "the threshold of each feature"
    scale = float(sae.scale)
    return "the activations" if scale == 1 else f"the activations times {scale:.3g}"
