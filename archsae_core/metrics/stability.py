"""Do two dictionaries hold the same features? Every score on the same pair, raw and against chance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from archsae_core.checks import (
    require_codes,
    require_finite,
    require_matrix,
    require_rows,
    require_same_shape,
    require_shape,
)
from archsae_core.config import ConfigError, require, require_number, require_whole
from archsae_core.metrics.matching import (
    SMALLEST,
    Matching,
    centred_cosines,
    cosines,
    directions,
    greedy,
    match,
    mean_of,
)
from archsae_core.metrics.structure import DUPLICATE, merge_duplicates
from archsae_core.models.sae import SAE, Codes

SAME_FEATURE = 0.7
"""A matched pair counts as one feature above this cosine, in decoder and encoder (Paulo & Belrose 2025)."""
HEADLINE = "hungarian_centred"
"""The score that verdicts rest on: signed Hungarian cosine of centred atoms."""
SCORES = {
    HEADLINE: "matched one to one, atoms less their mean",
    "hungarian": "matched one to one",
    "pw_mcc": "matched one to one, sign ignored",
    "greedy_centred": "best partner, atoms less their mean",
    "greedy": "best partner, mean of both directions",
    "greedy_ab": "best partner of each atom of the first",
    "greedy_ba": "best partner of each atom of the second",
    "hungarian_centred_alive": "as the first, features that fire",
    "hungarian_alive": "as the second, features that fire",
    "greedy_alive": "best partner, features that fire",
    "encoder_cosine": "encoder rows of matched atoms",
    "shared": f"share of pairs above {SAME_FEATURE} in atoms and encoder",
    "firing_correlation": "correlation of the codes of matched features",
}
"""Every score of `scores`, the headline first, and what it compares: mean cosines, where it says nothing else."""

Level = TypeVar("Level", float, np.ndarray)
"""One score, or an array of them."""


class Side(NamedTuple):
    """One of two dictionaries to compare. Scores depend on directions only, so any units will do."""

    atoms: Float[Tensor, "n_features d_model"]
    encoder: Float[Tensor, "n_features d_model"] | None = None
    alive: Bool[Tensor, " n_features"] | None = None
    """Features that fire at least once on the held-out set; None takes all."""
    codes: Codes | None = None
    """Codes of held-out tokens, the same tokens in the same order for both sides."""


def side(sae: SAE, alive: Bool[Tensor, " n_features"] | None = None, codes: Codes | None = None) -> Side:
    """A trained SAE as one side of a comparison, as it is now: training it further leaves the side alone."""
    return Side(sae.atoms().detach(), sae.W_enc.detach().clone(), alive, codes)


def gamma(atoms: Float[Tensor, "n_features d_model"]) -> float:
    """γ = ‖ā‖ / mean ‖a_i − ā‖: how much of the atoms is a mean that they share. 0 is none."""
    mean = atoms.double().mean(dim=0)
    return (mean.norm() / (atoms.double() - mean).norm(dim=1).mean().clamp_min(1e-30)).item()


def shared_share(cosine: Tensor, decoder: Matching, encoder_cosine: Tensor, encoder: Matching) -> float:
    """Share of pairs that decoder and encoder both match, with cosine > 0.7 in both (Paulo & Belrose 2025)."""
    partner = torch.full((len(cosine),), -1).scatter_(0, encoder.rows, encoder.cols)
    rows, cols = decoder.rows, decoder.cols
    both = (cosine[rows, cols] > SAME_FEATURE).cpu() & (encoder_cosine[rows, cols] > SAME_FEATURE).cpu()
    same = (partner[rows] == cols) & both
    return same.double().mean().item() if len(rows) else 0.0


def firing_correlation(a: Codes, b: Codes, matching: Matching, n_a: int, n_b: int) -> float:
    """Mean over matched pairs of the Pearson correlation of their codes over tokens.

    Pairs of which neither feature fires are left out; a pair of which one never fires (or never varies) counts 0.
    """
    correlation = pair_correlations(_by_feature(a, n_a), _by_feature(b, n_b), matching)
    fires = ~np.isnan(correlation)
    return float(correlation[fires].mean()) if fires.any() else 0.0


def pair_correlations(
    a: Float[csc_array, "tokens n_a"], b: Float[csc_array, "tokens n_b"], matching: Matching
) -> Float[np.ndarray, " pairs"]:
    """Pearson correlation over tokens of the codes of each matched pair.

    NaN where neither feature fires; 0 where one of them never fires or never varies.
    """
    x = a[:, matching.rows.numpy()].astype(float)
    y = b[:, matching.cols.numpy()].astype(float)
    tokens = x.shape[0]
    mean_x, mean_y = x.sum(axis=0) / tokens, y.sum(axis=0) / tokens
    covariance = x.multiply(y).sum(axis=0) / tokens - mean_x * mean_y
    variance = (x.power(2).sum(axis=0) / tokens - mean_x**2) * (y.power(2).sum(axis=0) / tokens - mean_y**2)
    varies = variance > 1e-12 * (mean_x * mean_y) ** 2
    correlation = np.where(varies, covariance / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
    return np.where((mean_x > 0) | (mean_y > 0), correlation, np.nan)


def _by_feature(codes: Codes, n_features: int) -> csc_array:
    values, indices = codes.values.cpu().double().numpy(), codes.indices.cpu().numpy()
    starts = np.arange(0, values.size + 1, values.shape[1])
    rows = csr_array((values.ravel(), indices.ravel(), starts), shape=(len(values), n_features), copy=True)
    rows.sum_duplicates()  # a token that names a feature twice has the sum, as in `Codes.dense`
    return rows.tocsc()


def scores(a: Side, b: Side) -> dict[str, float]:
    """Every raw score of a pair. Scores that need an encoder or codes are there where both sides have them.

    - `greedy_ab` = mean_i max_j cos(a_i, b_j), `greedy_ba` the other way, `greedy` their mean;
    - `hungarian` = 1/n max_Π Σ_i cos(a_i, b_Π(i)) over permutations Π: one minus overcomplete's `cosine_hungarian_loss`
      over n. Fel et al. (2025) write signed permutations, whose maximum is `pw_mcc`; codes are non-negative here, so a
      flipped atom is another feature;
    - `pw_mcc`: the same with |cos| (Song et al. 2025);
    - `greedy_centred`, `hungarian_centred`: of atoms less their mean (Brzozowski & Chung 2026);
    - `greedy_alive`, `hungarian_alive`, `hungarian_centred_alive`: among features alive on either side, matched anew;
    - `encoder_cosine`: mean cosine of encoder rows under the decoder's matching; `shared`: see `shared_share`;
    - `firing_correlation`: under the decoder's matching.

    Raises ConfigError that names what does not fit: atoms of another width, `alive`, encoder rows or codes of other
    features or tokens, NaN or infinity.
    """
    _require_comparable(a, b)
    cosine = cosines(a.atoms, b.atoms)
    centred = centred_cosines(a.atoms, b.atoms)
    matching, (forward, backward) = match(cosine), greedy(cosine)
    found = {"greedy_ab": forward, "greedy_ba": backward, "greedy": (forward + backward) / 2}
    absolute = cosine.abs()
    found |= {"hungarian": mean_of(cosine, matching), "pw_mcc": mean_of(absolute, match(absolute))}
    of_centred = match(centred, matching.prices)
    found |= {"greedy_centred": sum(greedy(centred)) / 2, "hungarian_centred": mean_of(centred, of_centred)}
    found |= _alive_scores(a, b, cosine, found, (matching.prices, of_centred.prices))
    if a.encoder is not None and b.encoder is not None:
        encoder = cosines(a.encoder, b.encoder)
        found["encoder_cosine"] = mean_of(encoder, matching)
        found["shared"] = shared_share(cosine, matching, encoder, match(encoder))
    if a.codes is not None and b.codes is not None:
        found["firing_correlation"] = firing_correlation(a.codes, b.codes, matching, *cosine.shape)
    return found


def _require_comparable(a: Side, b: Side) -> None:
    for name, side in (("a", a), ("b", b)):
        require_rows(f"{name}.atoms", side.atoms)
        if len(side.atoms) < 2:
            raise ConfigError(f"{name}.atoms is one row: atoms are compared less their mean, which takes at least two")
        if side.encoder is not None:
            require_rows(f"{name}.encoder", side.encoder)
            if len(side.encoder) != len(side.atoms):
                rows = f"{name}.encoder has {len(side.encoder)} rows"
                raise ConfigError(f"{rows}: it must have one for each of the {len(side.atoms)} atoms")
        if side.alive is not None:
            require_shape(f"{name}.alive", side.alive, (len(side.atoms),))
            if side.alive.dtype != torch.bool:
                raise ConfigError(f"{name}.alive holds {side.alive.dtype}: it must be bool, such as counts > 0")
        if side.codes is not None:
            require_codes(f"{name}.codes", side.codes, len(side.atoms))
    require_matrix("b.atoms", b.atoms, width=a.atoms.shape[1], width_of="as many as a.atoms")
    if a.codes is not None and b.codes is not None and len(a.codes.values) != len(b.codes.values):
        tokens = f"a.codes are of {len(a.codes.values)} tokens, b.codes of {len(b.codes.values)}"
        raise ConfigError(f"{tokens}: encode the same ones, in the same order")


def hungarian_centred(a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"]) -> float:
    """The one score `hungarian_centred` of `scores`, for where it alone is needed, such as along training."""
    _require_comparable(Side(a), Side(b))
    centred = centred_cosines(a, b)
    return mean_of(centred, match(centred))


def _alive_scores(
    a: Side, b: Side, cosine: Tensor, everything: Mapping[str, float], prices: Sequence[Tensor | None]
) -> dict[str, float]:
    """The three scores among alive features; those of all features again where none is dead."""
    names = ("greedy", "hungarian", "hungarian_centred")
    if _all_alive(a) and _all_alive(b):
        return {f"{name}_alive": everything[name] for name in names}
    alive_a, alive_b = _alive(a), _alive(b)
    among = cosine[alive_a][:, alive_b]
    centred = centred_cosines(a.atoms[alive_a], b.atoms[alive_b])
    like = [None if price is None else price[alive_b] for price in prices]
    matched = [mean_of(part, match(part, start)) for part, start in zip((among, centred), like, strict=True)]
    return {f"{name}_alive": value for name, value in zip(names, (sum(greedy(among)) / 2, *matched), strict=True)}


def _all_alive(side: Side) -> bool:
    return side.alive is None or bool(side.alive.all())


def _alive(side: Side) -> Bool[Tensor, " n_features"]:
    return torch.ones(len(side.atoms), dtype=torch.bool) if side.alive is None else side.alive.cpu()


def unrelated(side: Side, seed: int, *, covariance: bool = True) -> Side:
    """A random dictionary with the mean and covariance of `side`'s unit atoms (and encoder rows, jointly).

    Each new atom is ā + g R / √n with standard normal g, where the centred atoms are Q R: Gaussian with these moments.
    `covariance=False` spreads the same variance evenly over all directions instead. Seeded; alive as `side` is.
    """
    require_whole("seed", seed, 0)
    parts = [directions(rows) for rows in (side.atoms, side.encoder) if rows is not None]
    rows = torch.cat(parts, dim=1)
    n, mean = len(rows), rows.mean(dim=0)
    generator = torch.Generator().manual_seed(int(seed))
    if covariance:
        root = torch.linalg.qr(rows - mean, mode="r").R
        drawn = torch.randn(n, len(root), generator=generator, dtype=torch.float32)
        with torch.autocast(rows.device.type, enabled=False):
            noise = drawn.to(rows.device) @ root / n**0.5
    else:
        spread = [(part - part.mean(dim=0)).square().mean().sqrt().expand(part.shape[1]) for part in parts]
        drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float32)
        noise = drawn.to(rows.device) * torch.cat(spread)
    found = (mean + noise).split(side.atoms.shape[1], dim=1)
    return Side(found[0], found[1] if len(found) > 1 else None, side.alive)


def chance_levels(a: Side, b: Side, *, seed: int = 0, covariance: bool = True) -> dict[str, float]:
    """What `scores` gives unrelated dictionaries of the same sizes, means and covariances: the s₀ of each score.

    For `firing_correlation`: features paired at random. About as dear as `scores`; all pairs of an arm can share it.
    Raises ConfigError as `scores` does.
    """
    _require_comparable(a, b)
    require_whole("seed", seed, 0)
    found = scores(unrelated(a, 2 * seed, covariance=covariance), unrelated(b, 2 * seed + 1, covariance=covariance))
    if a.codes is not None and b.codes is not None:
        n_a, n_b = len(a.atoms), len(b.atoms)
        generator = torch.Generator().manual_seed(int(seed))
        pairs = (torch.randperm(n, generator=generator)[: min(n_a, n_b)] for n in (n_a, n_b))
        found["firing_correlation"] = firing_correlation(a.codes, b.codes, Matching(*pairs), n_a, n_b)
    return found


def chance_normalised(score: Level, chance: float) -> Level:
    """(s − s₀) / (1 − s₀): 0 for unrelated dictionaries, 1 for equal ones. 0 where chance itself is 1."""
    return (score - chance) / (1 - chance) if chance < 1 else 0.0 * score


def compare(a: Side, b: Side, *, chance: Mapping[str, float] | None = None, seed: int = 0) -> dict:
    """All scores of a pair: `raw`, `chance`, `normalised` (each a dict, keys as in `scores`), γ, sizes. JSON-able.

    `chance` takes the levels of another pair of the same arm (`chance_levels`); None measures them on this pair.
    """
    if chance is not None:
        _require_levels(chance, a, b)
    raw = scores(a, b)
    chance = dict(chance_levels(a, b, seed=seed) if chance is None else chance)
    about = {
        f"{name}_{which}": value
        for which, side in (("a", a), ("b", b))
        for name, value in (
            ("gamma", gamma(directions(side.atoms))),
            ("n", len(side.atoms)),
            ("alive", int(_alive(side).sum())),
        )
    }
    normalised = {name: chance_normalised(value, chance[name]) for name, value in raw.items()}
    return {"raw": raw, "chance": {name: chance[name] for name in raw}, "normalised": normalised} | about


def _require_levels(chance: Mapping[str, float], a: Side, b: Side) -> None:
    of_encoder, of_codes = ("encoder_cosine", "shared"), ("firing_correlation",)
    absent = () if a.encoder is not None and b.encoder is not None else of_encoder
    absent += () if a.codes is not None and b.codes is not None else of_codes
    for name in (name for name in SCORES if name not in absent):
        fix = "pass what chance_levels gives for two such sides, or None"
        require(name in chance, "chance", f"{len(chance)} levels", f"{name} is missing: {fix}")
        require_number(f"chance[{name!r}]", chance[name], -1.0, f"must be a finite number: {fix}")


class CollapseCorrected(NamedTuple):
    """The headline score of two dictionaries in which duplicates count once; `_asdict()` is JSON-able."""

    normalised: float
    """`raw` against `chance`: 0 for unrelated dictionaries, 1 for equal ones."""
    raw: float
    """`hungarian_centred` of the merged dictionaries: mean over the pairs of the smaller one."""
    chance: float
    """The same score of unrelated dictionaries of the merged sizes, means and covariances."""
    distinct: tuple[int, int]
    """Atoms of either side that are left."""


def collapse_corrected(
    a: Float[Tensor, "n_a d_model"], b: Float[Tensor, "n_b d_model"], *, above: float = DUPLICATE, seed: int = 0
) -> CollapseCorrected:
    """Stability once atoms that coincide within a dictionary are merged: many copies of few features agree by number.

    Duplicates are centred atoms with a cosine larger than `above` (`merge_duplicates`), merged in each dictionary by
    itself; then `hungarian_centred` and its chance are those of what is left. With unequal numbers left, every atom of
    the smaller side is matched and the rest of the larger side is not counted; chance has the same sizes. All three
    scores are 0 where one atom is left of a dictionary: less its mean, nothing is.
    """
    merged = [merge_duplicates(atoms, above).atoms for atoms in (a, b)]
    distinct = (len(merged[0]), len(merged[1]))
    if min(distinct) < 2:
        return CollapseCorrected(0.0, 0.0, 0.0, distinct)
    raw = hungarian_centred(*merged)
    chance = hungarian_centred(*(unrelated(Side(atoms), 2 * seed + i).atoms for i, atoms in enumerate(merged)))
    return CollapseCorrected(chance_normalised(raw, chance), raw, chance, distinct)


def cosine_with_start(start: Float[Tensor, "n_features d_model"], atoms: Float[Tensor, "n_features d_model"]) -> float:
    """Mean cosine of every atom with where it started, whatever their norms: 1 for a dictionary that has not moved.

    Raises ConfigError for dictionaries of different sizes, and for NaN and infinity.
    """
    require_same_shape("start and atoms", start, atoms)
    require_finite("start", start)
    require_finite("atoms", atoms)
    return F.cosine_similarity(start.detach().double(), atoms.detach().double(), dim=1, eps=SMALLEST).mean().item()
