"""Whether a language model is put together as everything here assumes, asked of the model itself on one small batch."""

import weakref

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from archsae_core.config import ConfigError
from archsae_core.data.language_model import (
    blocks,
    check_layer,
    d_model,
    require_evaluating,
    residual_of,
    residuals_after,
    run,
)
from archsae_core.data.model_files import ModelError
from archsae_core.data.splice import from_block, head, replaced_positions, run_body, run_prefix, splice
from archsae_core.data.transformers_types import PreTrainedModel

TOKENS = 12
"""Length of the sequences that are tried; the last third of them is changed or padded."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Relative error of a row that rounding explains where other kernels, or more rows at once, compute the same."""

_passed: weakref.WeakKeyDictionary[PreTrainedModel, dict[int, int]] = weakref.WeakKeyDictionary()
"""Longest context with which each block of a model passed."""


@torch.no_grad()
def check_model(model: PreTrainedModel, layer: int, context: int) -> None:
    """Raise ModelError, saying which property fails, unless splicing after block `layer` means what it says.

    The model runs, up to `context` tokens; its numbers are finite; it is causal, so that neither later tokens nor
    padding on the right change earlier rows; block `layer` returns one vector a token, equal to
    `hidden_states[layer + 1]` (except after the last block, where that entry has the final norm applied; a model that
    leaves the embedding out of its hidden states has it one place earlier); the head on the body's final states gives
    the model's own logits; the residual spliced into itself changes no logit, and zeros in its place change some.
    About eight passes over a dozen tokens. A model that has passed is not tried again.

    Raises ConfigError naming `layer` or `context` where the model has no such block or takes fewer tokens.
    """
    check_layer(model, layer)
    require_evaluating(model)
    if _passed.get(model, {}).get(layer, 0) >= context:
        return
    try:
        _check(model, layer, min(context, TOKENS))
        _check_context(model, context)
    except ConfigError:
        raise
    except Exception as error:  # whatever a model that does not fit raises
        raise _refusal(model, f"cannot be run or spliced ({_first_line(error)})", "use another model") from error
    _passed.setdefault(model, {})[layer] = context


def _check(model: PreTrainedModel, layer: int, length: int) -> None:
    whole, late = _sequences(model, length)
    early = length - late
    every = torch.ones_like(whole)
    padding = every[:1].clone()
    padding[:, early:] = 0
    logits, residual, hidden = _states(model, layer, whole, every)
    if not (logits.isfinite().all() and _is_finite(residual)):
        name = str(model.dtype).removeprefix("torch.")
        raise _refusal(model, f"gives NaN or infinity in {name}", "set dtype to float32, or check the weights")
    fix = "use a decoder-only language model, or set is_decoder in config.json where the weights are of one"
    if not _alike(logits[0, :early], logits[1, :early]):
        raise _refusal(model, "sees later tokens: they change the logits of earlier ones", fix)
    padded, padded_residual, _ = _states(model, layer, whole[:1] * padding, padding)
    if not _alike(padded[0, :early], logits[0, :early]):
        raise _refusal(model, "lets padding on the right change the logits of earlier tokens", "use another model")
    if getattr(residual, "shape", None) != (*whole.shape, d_model(model)):
        raise _refusal(model, f"returns no vector of d_model numbers a token from block {layer}", "use another model")
    if not _alike(residual[0, :early], residual[1, :early]):
        raise _refusal(model, f"sees later tokens: they change what block {layer} writes for earlier ones", fix)
    if not _alike(padded_residual[0, :early], residual[0, :early]):
        raise _refusal(model, f"lets padding on the right change what block {layer} writes", "use another model")
    _check_block(model, layer, residual, hidden)
    body = run_body(model, whole[:1], every[:1])
    if not _alike(head(model, body, body.hidden[0]), logits[0]):
        raise _refusal(model, "has a head that gives other logits on the body's final states", "use another model")
    _check_splice(model, layer, whole[:1], every[:1], logits[0])


def _check_block(model: PreTrainedModel, layer: int, residual: Tensor, hidden: tuple[Tensor, ...] | None) -> None:
    last = len(blocks(model)) - 1
    if hidden is None or len(hidden) <= layer + 1:
        raise _refusal(model, f"gives no hidden_states[{layer + 1}] to compare with", "use another model")
    # after the last block that entry has the final norm applied, and the residual has not
    places = hidden[layer : layer + 2]
    if layer < last and not any(found.shape == residual.shape and _alike(residual, found) for found in places):
        fix = "choose another layer or model"
        raise _refusal(model, f"returns from block {layer} what is not hidden_states[{layer + 1}]", fix)


def _check_splice(
    model: PreTrainedModel,
    layer: int,
    ids: Int[Tensor, "1 seq"],
    mask: Int[Tensor, "1 seq"],
    logits: Float[Tensor, "seq vocabulary"],
) -> None:
    prefix, where = run_prefix(model, layer, ids, mask), replaced_positions(mask)
    for _ in range(2):  # many replacements start from one prefix, so that none may use up what its blocks left
        with from_block(model, layer, prefix, lambda x: x, where):
            spliced = run(model, ids, mask).logits[0]
        if not _alike(spliced, logits):
            raise _refusal(model, f"changes when what block {layer} writes is spliced into itself", "use another model")
    if _alike(splice(model, layer, ids, mask, torch.zeros_like)[0], logits):
        fix = "choose another layer or model"
        raise _refusal(model, f"ignores what is spliced in after block {layer}: zeros change no logit", fix)


def _check_context(model: PreTrainedModel, context: int) -> None:
    """One sequence as long as will be read, through the first block: positions are looked up before or in it."""
    ids = _sequences(model, TOKENS)[0][:1].repeat(1, -(-context // TOKENS))[:, :context]
    try:
        residuals_after(model, [0], ids, torch.ones_like(ids))
    except Exception as error:
        name = type(model).__name__
        raise ConfigError(
            f"context = {context}: {name} fails on so many tokens ({_first_line(error)}): lower it"
        ) from error


def _states(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch seq vocabulary"], Tensor, tuple[Tensor, ...] | None]:
    """Logits, what block `layer` writes, and the model's own hidden states, from one pass."""
    caught: list[Tensor] = []
    handle = blocks(model)[layer].register_forward_hook(
        lambda module, inputs, output: caught.append(residual_of(output)[0])
    )
    try:
        output = run(model, ids, mask, output_hidden_states=True)
    finally:
        handle.remove()
    if len(caught) != 1:
        raise _refusal(model, f"runs block {layer} {len(caught)} times in one pass", "use another model")
    return output.logits, caught[0], getattr(output, "hidden_states", None)


def _sequences(model: PreTrainedModel, length: int) -> tuple[Int[Tensor, "2 seq"], int]:
    """Two sequences of ordinary tokens that differ in the last third only, and how many tokens that is."""
    allowed = _ordinary(model).nonzero()[:, 0]
    late = max(1, length // 3)
    steps = torch.arange(length + late) * max(1, len(allowed) // (length + late))
    drawn = allowed[steps % len(allowed)]
    other = torch.cat([drawn[: length - late], drawn[length:]])
    return torch.stack([drawn[:length], other]).to(model.device), late


def _ordinary(model: PreTrainedModel) -> Bool[Tensor, " vocabulary"]:
    """Which ids stand for text: not those that the configuration gives a meaning, such as padding or an image."""
    allowed = torch.ones(model.get_input_embeddings().num_embeddings, dtype=torch.bool)
    for config in (model.config, model.config.get_text_config(decoder=True)):
        for name, value in config.to_dict().items():
            if name.endswith(("_token_id", "_token_ids", "_token_index")) and value is not None:
                for number in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(number, int) and 0 <= number < len(allowed):
                        allowed[number] = False
    return allowed


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether each row of `a` equals that of `b` up to rounding. Row by row, since position 0 may dwarf the others."""
    tolerance = TOLERANCE.get(a.dtype, TOLERANCE[torch.bfloat16])
    a, b = a.float(), b.float()
    return bool(((a - b).norm(dim=-1) <= tolerance * b.norm(dim=-1)).all())


def _is_finite(x: object) -> bool:
    return not isinstance(x, Tensor) or bool(x.isfinite().all())


def _refusal(model: PreTrainedModel, fault: str, fix: str) -> ModelError:
    return ModelError(f"model: {type(model).__name__} {fault}: {fix}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
