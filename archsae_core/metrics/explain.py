"""Which features fire on a text that is given as it is, token by token."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from archsae_core.data.language_model import residuals_after
from archsae_core.data.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
from archsae_core.metrics.contexts import token_strings
from archsae_core.models.sae import SAE, Codes


class Explained(NamedTuple):
    """Codes of every token of a text."""

    tokens: list[str]
    """As text; those of a window join to its decoded text."""
    read: Bool[Tensor, " tokens"]
    """False at the first token of a window, which no dictionary is trained on, and at others with a norm like its."""
    values: Float[Tensor, "tokens width"]
    """Codes, largest first; 0 where fewer features fire and where `read` is False. `width` is k, or of a BatchTopK SAE
    as many as the token with the most has."""
    indices: Int64[Tensor, "tokens width"]
    """Feature of each code."""


@torch.no_grad()
def explain(
    model: PreTrainedModel,
    layer: int,
    sae: SAE,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    context: int,
    start: Sequence[int] = (),
    max_norm: float = float("inf"),
) -> Explained:
    """Codes of `sae` on the residual stream after `layer`, at every token of `text`.

    As in training, text is cut into windows of `context` tokens with `start` in front of each (`window_start`), no
    other special tokens are added, text that looks like one stays text, and residuals longer than `max_norm` are passed
    over. Raises ValueError where that makes fewer than 2 tokens.
    """
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    step = context - len(start)
    windows = [[*start, *found[i : i + step]] for i in range(0, len(found), step)]
    if sum(map(len, windows)) < 2:
        raise ValueError(f"text = {text!r}: give at least 2 tokens: the first of a window is not read")
    parts = [_window(model, layer, sae, tokenizer, ids, max_norm) for ids in windows]
    tokens = [token for part in parts for token in part.tokens]
    codes = Codes.joined([Codes(part.values, part.indices) for part in parts])
    return Explained(tokens, torch.cat([part.read for part in parts]), *codes)


def _window(
    model: PreTrainedModel,
    layer: int,
    sae: SAE,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    max_norm: float,
) -> Explained:
    batch = torch.tensor([ids], device=model.device)
    (residual,) = residuals_after(model, [layer], batch, torch.ones_like(batch))
    x = residual[0].float().to(sae.mean.device)
    read = (x.norm(dim=1) <= max_norm).cpu()
    read[0] = False
    codes = sae.encode(x)
    values, order = codes.values.cpu().clamp_min(0).sort(dim=1, descending=True, stable=True)
    indices = codes.indices.cpu().long().gather(1, order)
    return Explained(token_strings(tokenizer, ids), read, values * read[:, None], indices)
