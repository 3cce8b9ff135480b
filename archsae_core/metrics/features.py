"""Looking at features: where they fire, what they do to the output, which anchors they are made of."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, Int64
from scipy.sparse import csc_array
from torch import Tensor

from archsae_core.checks import require_indices
from archsae_core.config import ConfigError
from archsae_core.data.activations import ActivationSet
from archsae_core.data.splice import readout
from archsae_core.data.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE

SCAN_ROWS = 4096
"""Activations encoded at a time."""
LENS_ATOMS = 128
"""Atoms whose logits are held at a time."""
BANDS = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1)
"""Quantiles of a feature's non-zero codes at which contexts are shown: top contexts alone flatter a feature."""


class Scan(NamedTuple):
    """Every non-zero code of an SAE on a set of activations, grouped by feature, largest first."""

    values: Float32[np.ndarray, " firings"]
    rows: Int64[np.ndarray, " firings"]
    """Row of the ActivationSet of each value."""
    offsets: Int64[np.ndarray, " features_and_end"]
    """Firings of feature i are `offsets[i]:offsets[i + 1]`."""
    scanned: Int64[np.ndarray, " tokens"]
    """All rows that were encoded."""

    @property
    def n_features(self) -> int:
        """Features of the SAE, dead ones included."""
        return len(self.offsets) - 1

    def firings(self, feature: int) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Codes of one feature, largest first, and their rows. Raises IndexError for a feature there is not."""
        if not 0 <= feature < self.n_features:
            raise IndexError(f"feature = {feature}: the dictionary has features 0 … {self.n_features - 1}")
        part = slice(self.offsets[feature], self.offsets[feature + 1])
        return self.values[part], self.rows[part]

    def codes_at(self, feature: int, rows: Int64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Codes of one feature at some rows; 0 where it does not fire or the row was not scanned."""
        values, fired = self.firings(feature)
        if not len(fired):
            return np.zeros(rows.shape, dtype=np.float32)
        order = np.argsort(fired)
        place = order[np.minimum(np.searchsorted(fired, rows, sorter=order), len(fired) - 1)]
        return np.where(fired[place] == rows, values[place], np.float32(0))

    def by_token(self) -> Float32[csc_array, "tokens n_features"]:
        """All codes as a sparse matrix; its rows are `scanned`. Raises ConfigError where these do not ascend."""
        if (np.diff(self.scanned) <= 0).any():
            raise ConfigError("rows: they must ascend, each once, for codes by token: give scan() rows.unique()")
        place = np.searchsorted(self.scanned, self.rows)
        return csc_array((self.values, place, self.offsets), shape=(len(self.scanned), self.n_features))


def scan(sae: SAE, activations: ActivationSet, rows: Int[Tensor, " n"] | None = None) -> Scan:
    """Encode `rows` of the activations (None: all kept ones). Holds k entries of 16 bytes a token while sorting."""
    rows = activations.kept if rows is None else rows
    require_indices("rows", rows, len(activations.norm), "for a mask give mask.nonzero()[:, 0]")
    values, features, fired = [], [], []
    for part in rows.split(SCAN_ROWS):
        codes = sae.encode(activations.gather(part).to(sae.mean.device))
        on = (codes.values > 0).cpu()
        values.append(codes.values.cpu()[on])
        features.append(codes.indices.cpu()[on])
        fired.append(part[on.nonzero()[:, 0]])
    value, feature, row = (torch.cat(pieces) for pieces in (values, features, fired))
    order = value.argsort(descending=True, stable=True)
    order = order[feature[order].argsort(stable=True)]
    offsets = F.pad(torch.bincount(feature, minlength=sae.n_features).cumsum(0), (1, 0))
    return Scan(value[order].numpy(), row[order].numpy(), offsets.numpy(), rows.numpy())


def table(found: Scan, top: int = 5) -> dict[str, list]:
    """Per feature: `firing_rate`, `max`, `mean_active` (0 where it never fires), `top_rows`. JSON-able."""
    counts = np.diff(found.offsets)
    totals = np.add.reduceat(np.append(found.values, 0).astype(float), found.offsets[:-1]) * (counts > 0)
    largest = np.append(found.values, 0)[found.offsets[:-1]] * (counts > 0)
    return {
        "firing_rate": (counts / len(found.scanned)).tolist(),
        "max": largest.astype(float).tolist(),
        "mean_active": (totals / np.maximum(counts, 1)).tolist(),
        "top_rows": [found.firings(feature)[1][:top].tolist() for feature in range(found.n_features)],
    }


def token_entropy(found: Scan, activations: ActivationSet, top: int = 20) -> list[float | None]:
    """Entropy in bits of the token under each feature's `top` largest codes; None for fewer firings than that.

    0: always the same token. log2(top): all different. Compare only at equal `top`.
    """
    entropies: list[float | None] = []
    for feature in range(found.n_features):
        rows = found.firings(feature)[1][:top]
        counts = np.unique(activations.token[rows].numpy(), return_counts=True)[1] / top
        entropies.append(float(-(counts * np.log2(counts)).sum()) + 0.0 if len(rows) == top else None)
    return entropies


def band_rows(
    found: Scan, feature: int, activations: ActivationSet, per_band: int = 3
) -> list[tuple[float, float, list[int]]]:
    """For every quantile of `BANDS`: the quantile, the code there, and rows from there downwards.

    The rows are of different windows. Empty for a feature that never fires.
    """
    values, rows = found.firings(feature)
    starts = [(quantile, round((1 - quantile) * (len(values) - 1))) for quantile in BANDS if len(values)]
    return [
        (quantile, float(values[start]), _one_a_window(activations, rows[start:], per_band))
        for quantile, start in starts
    ]


def _one_a_window(activations: ActivationSet, rows: Int64[np.ndarray, " n"], count: int) -> list[int]:
    seen: dict[int, int] = {}
    for row in rows.tolist():
        if len(seen) == count:
            break
        seen.setdefault(int(activations.window[row]), row)
    return list(seen.values())


class Effects(NamedTuple):
    """Output tokens that the direct paths of some atoms change most."""

    promoted: Int64[Tensor, "features top"]
    promoted_logit: Float[Tensor, "features top"]
    suppressed: Int64[Tensor, "features top"]
    suppressed_logit: Float[Tensor, "features top"]


def known_ids(tokenizer: PreTrainedTokenizerBase, n_logits: int) -> Int64[Tensor, " tokens"]:
    """Ids below `n_logits` that the tokenizer has an entry for, in order; special tokens, which a model may write, too.

    Models round their vocabulary up to a size that suits the hardware: the ids beyond are no tokens, and no training
    example ever held one.
    """
    return torch.tensor(sorted({i for i in tokenizer.get_vocab().values() if i < n_logits}), dtype=torch.int64)


def output_effects(
    model: PreTrainedModel,
    sae: SAE,
    tokenizer: PreTrainedTokenizerBase,
    features: Int[Tensor, " features"] | None = None,
    top: int = 10,
) -> Effects:
    """Logits of the `top` tokens that each atom promotes and suppresses most (None: of all atoms), in batches.

    The atom in raw units, through the final norm and the unembedding, less what a zero residual gives; logits are
    relative to their mean over the tokens that the tokenizer knows, and only those are ranked. The blocks in between
    are passed over: an effect through them is not seen, and the norm makes the size of the logits that of a residual
    that is all atom.
    """
    atoms = sae.atoms().detach() / sae.scale
    atoms = (atoms if features is None else atoms[features.to(atoms.device)]).to(model.device)
    nothing = torch.zeros_like(atoms[:1])
    parts = []
    for part in atoms.split(LENS_ATOMS):
        logits = readout(model, torch.cat([part, nothing]))
        known = known_ids(tokenizer, logits.shape[1]).to(logits.device)
        effect = (logits[:-1] - logits[-1])[:, known]
        effect -= effect.mean(dim=1, keepdim=True)
        up, down = (effect.topk(min(top, len(known)), largest=largest) for largest in (True, False))
        parts.append([tensor.cpu() for tensor in (known[up.indices], up.values, known[down.indices], down.values)])
    return Effects(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


class Mixtures(NamedTuple):
    """What some archetypal atoms are made of."""

    anchor: Int64[Tensor, "features top"]
    """Anchors with the largest weights, largest first."""
    weight: Float[Tensor, "features top"]
    """0 where a row of W has fewer positive weights."""
    cosine: Float[Tensor, "features top"]
    """Of the anchor with the atom."""
    effective_anchors: Float[Tensor, " features"]
    """exp of the entropy of the row of W."""
    relaxation: Float[Tensor, " features"]
    """Norm of the row of Λ."""
    hull_share: Float[Tensor, " features"]
    """‖W_i C‖ / (‖W_i C‖ + ‖Λ_i‖)."""


@torch.no_grad()
def mixtures(sae: SAE, features: Int[Tensor, " features"] | None = None, top: int = 5) -> Mixtures:
    """The anchors in each atom (None: of every feature). Raises TypeError for a dictionary without anchors."""
    dictionary = sae.dictionary
    if not isinstance(dictionary, ArchetypalDictionary):
        raise TypeError(f"a {type(dictionary).__name__} has no anchors: use an archetypal SAE")
    chosen = torch.arange(sae.n_features) if features is None else features
    chosen = chosen.to(dictionary.C.device)
    weights, atoms = dictionary.rows(chosen), F.normalize(sae.atoms()[chosen], dim=1)
    relaxation, hull = dictionary.relax[chosen].norm(dim=1), (weights @ dictionary.C).norm(dim=1)
    largest = weights.topk(min(top, weights.shape[1]))
    directions = F.normalize(dictionary.C, dim=1)
    # One column of anchors at a time: all of them at once would be `top` times the dictionary.
    cosines = [(directions[anchor] * atoms).sum(dim=1) for anchor in largest.indices.T]
    effective = torch.special.entr(weights).sum(dim=1).exp()
    share = hull / (hull + relaxation).clamp_min(1e-12)
    found = (largest.indices, largest.values, torch.stack(cosines, dim=1), effective, relaxation, share)
    return Mixtures(*(tensor.cpu() for tensor in found))


def nearest_rows(
    sae: SAE,
    points: Float[Tensor, "points d_model"],
    activations: ActivationSet,
    rows: Int[Tensor, " n"] | None,
    count: int,
) -> Int[Tensor, "points count"]:
    """Activations nearest to each point in normalised units, nearest first, among `rows` (None: all kept)."""
    rows = activations.kept if rows is None else rows
    best, where = points.new_full((len(points), 0), 0.0), torch.zeros(len(points), 0, dtype=torch.int64)
    for part in rows.split(SCAN_ROWS):
        distance = torch.cdist(points, sae.normalize(activations.gather(part).to(points.device)))
        best = torch.cat([best, distance], dim=1)
        where = torch.cat([where, part.expand(len(points), -1)], dim=1)
        best, order = best.topk(min(count, best.shape[1]), dim=1, largest=False)
        where = where.gather(1, order.cpu())
    return where
