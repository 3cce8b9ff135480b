"""Which features fire on a text that is given as it is, token by token."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from archsae_core.data.language_model import residuals_after
from archsae_core.metrics.contexts import token_strings
from archsae_core.models.sae import SAE


class Explained(NamedTuple):
    """Codes of every token of a text."""

    tokens: list[str]
    """As text, so that they join to the decoded text."""
    read: Bool[Tensor, " tokens"]
    """False at the first token, whose residual no dictionary is trained on, and at others with a norm like that."""
    values: Float[Tensor, "tokens k"]
    """Codes, largest first; 0 where fewer than k features fire and where `read` is False."""
    indices: Int64[Tensor, "tokens k"]
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
    """Codes of `sae` on the residual stream after `layer`, at every token of `text`, in one window of the model.

    As in training `start` stands in front (`window_start`), no other special tokens are added, text that looks like one
    stays text, and residuals longer than `max_norm` are passed over. Raises ValueError where that makes fewer than 2 or
    more than `context` tokens.
    """
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    ids = [*start, *found]
    if not 2 <= len(ids) <= context:
        fix = "give at least 2, the first is not read" if len(ids) < 2 else f"at most {context} fit: shorten it"
        raise ValueError(f"text = {text[:40]!r}: it has {len(ids)} tokens: {fix}")
    batch = torch.tensor([ids], device=model.device)
    (residual,) = residuals_after(model, [layer], batch, torch.ones_like(batch))
    x = residual[0].float().to(sae.mean.device)
    read = (x.norm(dim=1) <= max_norm).cpu()
    read[0] = False
    codes = sae.encode(x)
    values, order = codes.values.cpu().clamp_min(0).sort(dim=1, descending=True, stable=True)
    indices = codes.indices.cpu().long().gather(1, order)
    return Explained(token_strings(tokenizer, ids), read, values * read[:, None], indices)
