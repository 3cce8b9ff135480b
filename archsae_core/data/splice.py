"""Replacing the residual stream after one block, in any decoder-only model of transformers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from archsae_core.data.language_model import blocks

Replace = Callable[[Float[Tensor, "positions d_model"]], Float[Tensor, "positions d_model"]]
"""Raw residuals in float32 to what takes their place."""


class Prefix(NamedTuple):
    """A batch run once: what every replacement starts from."""

    residual: Float[Tensor, "batch seq d_model"]
    """After block `layer`, in the model's dtype."""
    rest: tuple | None
    """What that block returned besides, where it returns a tuple."""
    body: Any
    """Output of the model without its head."""


@contextmanager
def _forward_as(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let `forward` stand in for the modules' own. The modules stay in place, so models may read their attributes."""
    replaced = [(module, module.__dict__.get("forward")) for module in modules]
    try:
        for module, _ in replaced:
            module.forward = forward
        yield
    finally:
        for module, own in replaced:
            del module.forward
            if own is not None:
                module.forward = own


def run_prefix(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]
) -> Prefix:
    """Run the whole model once, without its head, and keep the residual after block `layer`."""
    caught: list[Any] = []
    handle = blocks(model)[layer].register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        body = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    whole = caught[0]
    residual, rest = (whole[0], whole[1:]) if isinstance(whole, tuple) else (whole, None)
    return Prefix(residual, rest, body)


def replaced_positions(mask: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """Every position that is not padding, except the first of each row: no SAE is trained on that one."""
    return mask.bool() & (mask.cumsum(dim=1) > 1)


def from_block(
    model: PreTrainedModel, layer: int, prefix: Prefix, replace: Replace, where: Bool[Tensor, "batch seq"]
) -> AbstractContextManager[None]:
    """Context in which blocks 0 … layer do nothing but hand on the residual with `replace` applied at `where`."""
    residual = prefix.residual.clone()
    residual[where] = replace(prefix.residual[where].float()).to(residual)
    output = residual if prefix.rest is None else (residual, *prefix.rest)
    return _forward_as(blocks(model)[: layer + 1], lambda *args, **kwargs: output)


@torch.no_grad()
def splice(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"], replace: Replace
) -> Float[Tensor, "batch seq vocabulary"]:
    """Logits with the residual after block `layer` replaced at `replaced_positions(mask)`.

    Any decoder-only model of transformers: the model's own forward pass runs, with its first blocks passed over.
    """
    prefix = run_prefix(model, layer, ids, mask)
    with from_block(model, layer, prefix, replace, replaced_positions(mask)):
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def head(model: PreTrainedModel, body: Any, hidden: Float[Tensor, "positions d_model"]) -> Float[Tensor, "positions v"]:
    """Logits, in the model's dtype, of final hidden states: its head with whatever it does around it (scale, cap)."""
    output = type(body)(last_hidden_state=hidden[:, None])
    ids = torch.zeros(len(hidden), 1, dtype=torch.int64, device=hidden.device)
    with _forward_as([model.base_model], lambda *args, **kwargs: output):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, 0]


@torch.no_grad()
def readout(model: PreTrainedModel, residual: Float[Tensor, "positions d_model"]) -> Float[Tensor, "positions v"]:
    """Logits in float32 that the final norm and the unembedding alone give residual vectors: the logit lens."""
    ids = torch.zeros(len(residual), 1, dtype=torch.int64, device=residual.device)
    prefix = run_prefix(model, 0, ids[:1], torch.ones_like(ids[:1]))
    states = residual.to(prefix.residual)[:, None]
    output = states if prefix.rest is None else (states, *prefix.rest)
    with _forward_as(blocks(model), lambda *args, **kwargs: output):
        body = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return head(model, body, body.last_hidden_state[:, 0]).float()
