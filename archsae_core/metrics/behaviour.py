"""What a reconstruction does to the language model: CE and KL with it spliced into the residual stream."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from archsae_core.checks import require_shape
from archsae_core.config import ConfigError, require_choice, require_number, require_whole
from archsae_core.data.language_model import check_layer, d_model, require_evaluating
from archsae_core.data.splice import Body, Replace, from_block, head, replaced_positions, run_body, run_prefix
from archsae_core.data.tokens import TokenSet
from archsae_core.data.transformers_types import PreTrainedModel
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.reconstruction import bootstrap_interval
from archsae_core.models.sae import SAE

LOGITS_AT_ONCE = 2**23
"""Positions × vocabulary that the head makes in one piece, where 16 windows of 256 tokens would take 800 MB."""
SCORED_AT_ONCE = 2**18
"""Positions × vocabulary that are scored in one piece, so that it stays in a processor's cache."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Summed columns [..., columns] to a score [...]; nan where it is not defined."""


def token_scores(
    model: PreTrainedModel, clean: Body, spliced: Mapping[str, Body], ids: Tensor, where: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "positions columns"]:
    """For each scored position: CE of the clean model, then CE and KL(clean ‖ spliced) in nats of each replacement."""
    targets, pieces, vocabulary = ids.roll(-1, dims=1)[where], [], model.config.get_text_config().vocab_size
    states = [(body, body.hidden[where]) for body in (clean, *spliced.values())]
    for part in torch.arange(len(targets)).split(max(1, LOGITS_AT_ONCE // vocabulary)):
        logits = [head(model, body, hidden[part]) for body, hidden in states]
        at_once = len(part) if targets.is_cuda else max(1, SCORED_AT_ONCE // vocabulary)
        split = (tensor.split(at_once) for tensor in (targets[part], *logits))
        pieces += [_scores(target, *found) for target, *found in zip(*split, strict=True)]
    return torch.cat(pieces).double().cpu()


def _scores(target: Tensor, clean: Tensor, *spliced: Tensor) -> Float[Tensor, "positions columns"]:
    """Columns of `token_scores` from logits [positions, vocabulary]."""
    true = F.log_softmax(clean.float(), dim=1)
    columns, probability = [F.nll_loss(true, target, reduction="none")], true.exp()
    for logits in spliced:
        found = F.log_softmax(logits.float(), dim=1)
        columns.append(F.nll_loss(found, target, reduction="none"))
        columns.append(found.sub_(true).mul_(probability).sum(dim=1).neg_())
    return torch.stack(columns, dim=1)


def choose_windows(tokens: TokenSet, max_tokens: int | None, seed: int = 0) -> list[int]:
    """Windows in random order until they hold `max_tokens` tokens, so that many documents are seen; longest first."""
    order = np.random.default_rng(seed).permutation(len(tokens.ids)).tolist()
    lengths = np.array([len(tokens.ids[window]) for window in order])
    needed = len(order) if max_tokens is None else int(np.searchsorted(lengths.cumsum(), max_tokens)) + 1
    return sorted(order[:needed], key=lambda window: -len(tokens.ids[window]))


def padded(windows: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Windows of token ids as one batch, padded on the right, and its mask."""
    rows = [torch.from_numpy(window.astype(np.int64)) for window in windows]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids.to(device), mask.to(device)


class SplicedSums(NamedTuple):
    """Sums over the scored tokens of each document, for any set of replacements."""

    documents: Int[np.ndarray, " n_documents"]
    table: Float[np.ndarray, "n_documents columns"]
    """Columns: `tokens`, `clean_ce`, then `<name>_ce` and `<name>_kl` of every replacement."""
    names: list[str]
    n_kept_outliers: int

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return ["tokens", "clean_ce", *(f"{name}_{kind}" for name in self.names for kind in ("ce", "kl"))]


@torch.no_grad()
def spliced_sums(
    model: PreTrainedModel,
    layer: int,
    tokens: TokenSet,
    replacements: Mapping[str, Replace],
    *,
    max_tokens: int | None = None,
    max_norm: float | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> SplicedSums:
    """CE and KL of the model with each replacement in place of its residual, added up by document.

    Position 0 of a window keeps its residual, and so do positions with a norm above `max_norm` where that is given: no
    SAE is trained on either. Scored are the positions from 1 on that have a next token. The blocks up to `layer` run
    once a batch, only the later ones for each replacement. Logits come in the model's dtype, all sums in float32 or
    better. Raises ValueError where no position can be scored, ConfigError for a layer that is not there, counts below 1
    and a norm below 0, and ModelError for a model in training mode.
    """
    check_layer(model, layer)
    require_evaluating(model)
    require_whole("batch_size", batch_size)
    if max_tokens is not None:
        require_whole("max_tokens", max_tokens)
    if max_norm is not None:
        require_number("max_norm", max_norm, 0.0, "must be 0 or larger, and finite")
    if "clean" in replacements:
        raise ConfigError("replacements: 'clean' is the model as it is: give another name")
    owners, scores, kept = [np.zeros(0, dtype=np.int32)], [], 0
    windows = choose_windows(tokens, max_tokens, seed)
    for start in range(0, len(windows), batch_size):
        chosen = windows[start : start + batch_size]
        ids, mask = padded([tokens.ids[window] for window in chosen], model.device)
        found, scored, outliers = _score_batch(model, layer, ids, mask, replacements, max_norm)
        scores.append(found)
        owners.append(tokens.document[chosen][scored.nonzero()[:, 0].cpu().numpy()])
        kept += outliers
    documents, owner = np.unique(np.concatenate(owners), return_inverse=True)
    if not len(documents):
        raise ValueError("no position to score: every window has fewer than 3 tokens")
    table = np.zeros((len(documents), 2 + 2 * len(replacements)))
    np.add.at(table, owner, np.insert(torch.cat(scores).numpy(), 0, 1.0, axis=1))
    return SplicedSums(documents, table, list(replacements), kept)


def behaviour(
    model: PreTrainedModel,
    layer: int,
    tokens: TokenSet,
    saes: Mapping[str, SAE],
    mean: Float[Tensor, " d_model"],
    **options: Any,
) -> dict[str, Any]:
    """CE and KL of the model with each SAE's reconstruction, the training mean, or zero in place of its residual.

    `options` go to `spliced_sums`. Returns a JSON-able dict: see `summarise`. Warns of an SAE that was trained at
    another layer.
    """
    for name, sae in saes.items():
        if sae.about.layer not in (None, layer):
            fix = f"its reconstruction is spliced in after layer {layer}, whose activations it does not know"
            warnings.warn(f"saes: {name!r} was trained at layer {sae.about.layer}: {fix}", stacklevel=2)
    require_shape("mean", mean, (d_model(model),))
    replacements: dict[str, Replace] = {"mean": lambda x: mean.to(x).expand_as(x), "zero": torch.zeros_like}
    if clash := (replacements.keys() | {"clean"}) & saes.keys():
        raise ValueError(f"saes: {clash} are names of baselines")
    replacements |= {name: sae.forward for name, sae in saes.items()}
    sums = spliced_sums(model, layer, tokens, replacements, **options)
    found = summarise(sums.documents, sums.table, sums.names, options.get("seed", 0))
    return found | {"n_kept_outliers": sums.n_kept_outliers}


def contrast(sums: SplicedSums, plus: str, minus: str, *, seed: int = 0) -> Interval:
    """Mean difference a token of two columns, such as `a_ce` and `b_ce`, with a 95 % interval over documents.

    Raises ConfigError that names the columns for one that there is not.
    """
    for name, column in (("plus", plus), ("minus", minus)):
        require_choice(name, column, sums.columns)
    weights = np.array([float(column == plus) - float(column == minus) for column in sums.columns])
    statistic = partial(_ratio, weights, np.array([float(column == "tokens") for column in sums.columns]))
    estimate = statistic(sums.table.sum(axis=0, keepdims=True)).item()
    return Interval(estimate, *(bootstrap_interval(sums.table, statistic, seed=seed) or (None, None)))


def _score_batch(
    model: PreTrainedModel,
    layer: int,
    ids: Tensor,
    mask: Tensor,
    replacements: Mapping[str, Replace],
    max_norm: float | None,
) -> tuple[Float[Tensor, "positions columns"], Bool[Tensor, "batch seq"], int]:
    """Scores of a batch's positions, which positions those are, and how many outliers kept their residual."""
    prefix, where = run_prefix(model, layer, ids, mask), replaced_positions(mask)
    scored = where & F.pad(mask[:, 1:], (0, 1)).bool()
    outliers = torch.zeros_like(where)
    if max_norm is not None:
        outliers = where & (prefix.residual.float().norm(dim=2) > max_norm)
    with from_block(model, layer, prefix):
        clean = run_body(model, ids, mask)
    spliced = {}
    for name, replace in replacements.items():
        with from_block(model, layer, prefix, replace, where & ~outliers):
            spliced[name] = run_body(model, ids, mask)
    return token_scores(model, clean, spliced, ids, scored), scored, int(outliers.sum())


def summarise(
    documents: Int[np.ndarray, " n_documents"],
    table: Float[np.ndarray, "n_documents columns"],
    names: list[str],
    seed: int,
) -> dict[str, Any]:
    """Scores from per-document sums: tokens, clean CE, then CE and KL of each of `names` (`mean`, `zero`, the SAEs).

    `arms[name]`: `ce` and `kl` in nats a token, `ce_increase` over the clean model, `recovered_mean` and
    `recovered_zero` = (CE_ablated − CE) / (CE_ablated − CE_clean): 1 is the clean model, 0 the ablation, None where the
    ablation does no harm. `intervals` in each holds 95 % [low, high] over documents. `per_document` keeps the sums.
    """
    columns = ["tokens", "clean_ce", *(f"{name}_{kind}" for name in names for kind in ("ce", "kl"))]
    clean, *arms = (_with_intervals(table, _statistics(columns, name), seed) for name in ("clean", *names))
    return {
        "n_tokens": int(table[:, 0].sum()),
        "n_documents": len(documents),
        "clean": clean,
        "arms": dict(zip(names, arms, strict=True)),
        "per_document": {"document": documents.tolist()} | dict(zip(columns, table.T.tolist(), strict=True)),
    }


def _statistics(columns: list[str], name: str) -> dict[str, Statistic]:
    """Scores of one arm as ratios of sums over tokens: both parts are combinations of columns."""

    def weights(plus: str, minus: str | None = None) -> np.ndarray:
        return np.array([(column == plus) - float(column == minus) for column in columns])

    ce, tokens = f"{name}_ce", weights("tokens")
    if name == "clean":
        return {"ce": partial(_ratio, weights(ce), tokens)}
    return {
        "ce": partial(_ratio, weights(ce), tokens),
        "kl": partial(_ratio, weights(f"{name}_kl"), tokens),
        "ce_increase": partial(_ratio, weights(ce, "clean_ce"), tokens),
        "recovered_mean": partial(_ratio, weights("mean_ce", ce), weights("mean_ce", "clean_ce")),
        "recovered_zero": partial(_ratio, weights("zero_ce", ce), weights("zero_ce", "clean_ce")),
    }


def _ratio(above: np.ndarray, below: np.ndarray, sums: np.ndarray) -> np.ndarray:
    under = sums @ below
    return np.where(under > 0, sums @ above, np.nan) / np.where(under > 0, under, 1.0)


def _with_intervals(table: np.ndarray, statistics: Mapping[str, Statistic], seed: int) -> dict[str, Any]:
    values = {name: statistic(table.sum(axis=0, keepdims=True)).item() for name, statistic in statistics.items()}
    intervals = {name: bootstrap_interval(table, statistic, seed=seed) for name, statistic in statistics.items()}
    found: dict[str, Any] = {name: None if np.isnan(value) else value for name, value in values.items()}
    return found | {"intervals": {name: interval and list(interval) for name, interval in intervals.items()}}
