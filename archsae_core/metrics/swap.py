"""Is a matched feature the same feature? Its part of a reconstruction is replaced by its partner's, one at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from archsae_core.data.splice import from_block, replaced_positions, run_body, run_prefix
from archsae_core.data.transformers_types import PreTrainedModel
from archsae_core.metrics.behaviour import padded, token_scores
from archsae_core.metrics.matching import cosines, match
from archsae_core.models.sae import SAE, Codes

VARIANTS = ("partner", "second", "random", "removed")
"""What takes the feature's place: its match, the next most similar feature, one that fires as often, or nothing."""
RATE_NEIGHBOURS = 10
"""The random feature is drawn from this many with the nearest firing rate."""


class Pairs(NamedTuple):
    """Features of one dictionary with what may replace each in another; −1 is nothing."""

    feature: Int[Tensor, " pairs"]
    replacement: Int[Tensor, "pairs 4"]
    """Features of the other dictionary, one column for each of `VARIANTS`."""
    cosine: Float[Tensor, "pairs 3"]
    """Of the decoder atoms, for all variants but the last."""


class Swapped(NamedTuple):
    """Sums over the scored tokens of a swap, one row a (window, pair)."""

    tokens: Float[np.ndarray, " rows"]
    kl: Float[np.ndarray, "rows 4"]
    """KL in nats from the model with the plain reconstruction spliced in, for each of `VARIANTS`."""
    ce: Float[np.ndarray, "rows 4"]
    """Increase of the CE over that model, in nats."""


def choose_pairs(
    a: SAE,
    b: SAE,
    rates: tuple[Float[Tensor, " n_a"], Float[Tensor, " n_b"]],
    eligible: Int[Tensor, " n"],
    count: int,
    seed: int = 0,
) -> Pairs:
    """At most `count` of the eligible features of `a`, spread evenly over the cosine with their match in `b`.

    The match is the Hungarian one on decoder atoms; `rates` are firing rates in `a` and in `b`, which
    needs at least 3 features.
    """
    cosine = cosines(a.atoms().detach(), b.atoms().detach())
    matching = match(cosine)
    partner = torch.full((len(cosine),), -1).scatter_(0, matching.rows, matching.cols)
    eligible = eligible[partner[eligible] >= 0]
    eligible = eligible[cosine[eligible, partner[eligible]].argsort()]
    places = torch.linspace(0, len(eligible) - 1, min(count, len(eligible)), dtype=torch.float32)
    feature = eligible[places.round().long()]
    partners = partner[feature]
    rest = cosine[feature].scatter(1, partners[:, None], -2.0)
    second = rest.argmax(dim=1)
    gap = (rates[1][None] - rates[0][feature][:, None]).abs()
    gap = gap.scatter(1, torch.stack([partners, second], dim=1), torch.inf)
    near = gap.topk(min(RATE_NEIGHBOURS, gap.shape[1] - 2), dim=1, largest=False).indices
    pick = torch.randint(near.shape[1], (len(feature), 1), generator=torch.Generator().manual_seed(seed))
    columns = [partners, second, near.gather(1, pick)[:, 0]]
    found = torch.stack([cosine[feature, column] for column in columns], dim=1)
    return Pairs(feature, torch.stack([*columns, torch.full_like(partners, -1)], dim=1), found)


def contribution(
    sae: SAE, atoms: Float[Tensor, "n_features d_model"], codes: Codes, feature: Int[Tensor, " positions"]
) -> Float[Tensor, "positions d_model"]:
    """z_i D_i in raw units at each position, of the feature named there; −1 names none and contributes 0."""
    code = ((codes.indices == feature[:, None]) * codes.values).sum(dim=1)
    return code[:, None] * atoms[feature.clamp_min(0)] / sae.scale


@torch.no_grad()
def swap(
    model: PreTrainedModel,
    layer: int,
    saes: tuple[SAE, SAE],
    pairs: Pairs,
    windows: Sequence[tuple[int, np.ndarray]],
    *,
    max_norm: float | None = None,
    batch_size: int = 16,
) -> Swapped:
    """Splice the first SAE's reconstruction in, and again with one feature's part replaced by that of each variant.

    `windows` holds (index into `pairs`, token ids): every row of a batch swaps a feature of its own, so effects stay
    attributable while many run together. x̂ + (z'_j D'_j − z_i D_i) / scale at every position but the first, b's codes
    encoded from the same activations. Windows where the feature fires miss firings of the partner elsewhere. Before the
    first position that some variant changes, a causal model gives what it gave: KL and CE there are 0, unmeasured.
    """
    rows = []
    for start in range(0, len(windows), batch_size):
        owners, ids = zip(*windows[start : start + batch_size], strict=True)
        rows.append(_swap_batch(model, layer, saes, pairs, torch.tensor(owners), padded(ids, model.device), max_norm))
    table = np.concatenate(rows)
    return Swapped(table[:, 0], table[:, 3::2], table[:, 2::2] - table[:, 1:2])


def _swap_batch(
    model: PreTrainedModel,
    layer: int,
    saes: tuple[SAE, SAE],
    pairs: Pairs,
    owners: Int[Tensor, " rows"],
    batch: tuple[Tensor, Tensor],
    max_norm: float | None,
) -> Float[np.ndarray, "rows columns"]:
    """Per row: tokens, CE of the plain splice, then CE and KL of each variant, summed over what may differ."""
    ids, mask = batch
    prefix, where = run_prefix(model, layer, ids, mask), replaced_positions(mask)
    scored = where & F.pad(mask[:, 1:], (0, 1)).bool()
    if max_norm is not None:
        where = where & (prefix.residual.float().norm(dim=2) <= max_norm)
    owner = where.nonzero()[:, 0].cpu()
    x = prefix.residual[where].float()
    (a, b), codes, atoms = saes, [sae.encode(x) for sae in saes], [sae.atoms() for sae in saes]
    x_hat = a.reconstruct(codes[0], atoms[0])
    without = x_hat - contribution(a, atoms[0], codes[0], pairs.feature[owners][owner].to(x.device))
    edited = {"plain": x_hat}
    for column, name in enumerate(VARIANTS):
        other = pairs.replacement[owners, column][owner].to(x.device)
        edited[name] = without + contribution(b, atoms[1], codes[1], other)
    changes = torch.stack([(residual != x_hat).any(dim=1) for residual in edited.values()]).any(dim=0)
    changed = torch.zeros_like(scored).masked_scatter(where, changes).cumsum(dim=1) > 0
    bodies = {}
    for name, residual in edited.items():
        with from_block(model, layer, prefix, lambda _, residual=residual: residual, where):
            bodies[name] = run_body(model, ids, mask)
    scores = token_scores(model, bodies.pop("plain"), bodies, ids, scored & changed).numpy()
    sums = np.zeros((len(ids), scores.shape[1]))
    np.add.at(sums, (scored & changed).nonzero()[:, 0].cpu().numpy(), scores)
    return np.insert(sums, 0, scored.sum(dim=1).cpu().numpy(), axis=1)
