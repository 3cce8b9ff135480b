"""Replacing the residual stream after one block, in any decoder-only model of transformers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from archsae_core.data.language_model import (
    StopForward,
    alone,
    blocks,
    parts_around_blocks,
    require_evaluating,
    residual_of,
    run,
    run_until_stopped,
)
from archsae_core.data.model_files import ModelError
from archsae_core.data.transformers_types import PreTrainedModel

Replace = Callable[[Float[Tensor, "positions d_model"]], Float[Tensor, "positions d_model"]]
"""Raw residuals in float32 to what takes their place."""


class Body(NamedTuple):
    """One pass through the model without its head."""

    part: nn.Module
    """The outermost module around the blocks that the model's forward pass calls: what its head reads."""
    output: Any
    """What that module returned."""

    @property
    def hidden(self) -> Float[Tensor, "batch seq width"]:
        """Final hidden states, as the head reads them: after the final norm, and after a projection if there is one."""
        return self.output.last_hidden_state


class Prefix(NamedTuple):
    """A batch run once: what every replacement starts from."""

    residual: Float[Tensor, "batch seq d_model"]
    """After block `layer`, in the model's dtype."""
    rest: tuple | None
    """What that block returned besides, where it returns a tuple."""


@contextmanager
def _forward_as(model: PreTrainedModel, modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let `forward` stand in for the modules' own. The modules stay in place, so models may read their attributes."""
    with alone(model):
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


def run_body(model: PreTrainedModel, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]) -> Body:
    """Run the model up to its head, called by its own forward pass and thus with whatever that passes on.

    Which part that is shows in the pass alone: an OPT's `base_model` is never called, its `decoder` is. Raises
    ModelError where no part around the blocks gives final hidden states.
    """
    entered: list[nn.Module] = []
    left: list[Any] = []

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if module is entered[0]:
            left.append(output)
            raise StopForward

    with alone(model):
        hooks = []
        for part in parts_around_blocks(model):
            hooks.append(part.register_forward_pre_hook(lambda module, inputs: entered.append(module)))
            hooks.append(part.register_forward_hook(leave))
        run_until_stopped(model, ids, mask, hooks)
    if not left or not hasattr(left[0], "last_hidden_state"):
        raise ModelError(f"model: {type(model).__name__} has no body apart from its head: use another model")
    return Body(entered[0], left[0])


def run_prefix(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]
) -> Prefix:
    """Run blocks 0 … `layer`, and no more of the model. Raises ModelError for a model in training mode."""
    require_evaluating(model)
    caught: list[Any] = []

    def catch(module: nn.Module, inputs: Any, output: Any) -> None:
        caught.append(output)
        raise StopForward

    with alone(model):
        run_until_stopped(model, ids, mask, [blocks(model)[layer].register_forward_hook(catch)])
    return Prefix(*residual_of(caught[0]))


def replaced_positions(mask: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """Every position that is not padding, except the first of each row: no SAE is trained on that one."""
    return mask.bool() & (mask.cumsum(dim=1) > 1)


def from_block(
    model: PreTrainedModel,
    layer: int,
    prefix: Prefix,
    replace: Replace | None = None,
    where: Bool[Tensor, "batch seq"] | None = None,
) -> AbstractContextManager[None]:
    """Context in which blocks 0 … layer do nothing but hand on the residual, with `replace` applied at `where`, and no
    other thread reads or splices the model.

    Without `replace` the residual stays as it is.
    """
    residual = prefix.residual.clone()
    if replace is not None:
        residual[where] = replace(prefix.residual[where].float()).to(residual)
    output = residual if prefix.rest is None else (residual, *prefix.rest)
    return _forward_as(model, blocks(model)[: layer + 1], lambda *args, **kwargs: output)


@torch.no_grad()
def splice(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"], replace: Replace
) -> Float[Tensor, "batch seq vocabulary"]:
    """Logits with the residual after block `layer` replaced at `replaced_positions(mask)`.

    Any decoder-only model of transformers: the model's own forward pass runs, with its first blocks passed over.
    """
    prefix = run_prefix(model, layer, ids, mask)
    with from_block(model, layer, prefix, replace, replaced_positions(mask)):
        return run(model, ids, mask).logits


def head(model: PreTrainedModel, body: Body, hidden: Float[Tensor, "positions width"]) -> Float[Tensor, "positions v"]:
    """Logits, in the model's dtype, of final hidden states: its head with whatever it does around it (scale, cap)."""
    output = type(body.output)(last_hidden_state=hidden[:, None])
    ids = torch.zeros(len(hidden), 1, dtype=torch.int64, device=hidden.device)
    with _forward_as(model, [body.part], lambda *args, **kwargs: output):
        return run(model, ids, torch.ones_like(ids)).logits[:, 0]


@torch.no_grad()
def readout(model: PreTrainedModel, residual: Float[Tensor, "positions d_model"]) -> Float[Tensor, "positions v"]:
    """Logits in float32 that the final norm and the unembedding alone give residual vectors: the logit lens."""
    ids = torch.zeros(len(residual), 1, dtype=torch.int64, device=residual.device)
    prefix = run_prefix(model, 0, ids[:1], torch.ones_like(ids[:1]))
    states = residual.to(prefix.residual)[:, None]
    output = states if prefix.rest is None else (states, *prefix.rest)
    with _forward_as(model, blocks(model), lambda *args, **kwargs: output):
        body = run_body(model, ids, torch.ones_like(ids))
    return head(model, body, body.hidden[:, 0]).float()
