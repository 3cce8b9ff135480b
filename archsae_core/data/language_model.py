"""Language models: loading one by name, finding its blocks, and reading the residual stream after some of them."""

import functools
import inspect
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from archsae_core.config import ConfigError, LanguageModelConfig
from archsae_core.data import random_model
from archsae_core.data.hub import quiet_transformers
from archsae_core.data.model_files import ModelError, model_files
from archsae_core.data.model_files import model_fingerprint as model_fingerprint
from archsae_core.data.transformers_types import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from archsae_core.kernels.processor import fast_bfloat16


class StopForward(Exception):
    """Raised inside a forward pass to end it once the wanted block has run."""


_IN_USE: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""Lock of each model that was run."""
if hasattr(os, "register_at_fork"):  # a lock that another thread holds would be held for ever in a child
    os.register_at_fork(after_in_child=_IN_USE.clear)
ADAPTER = "adapter_config.json"
QUANTISED = re.compile(r"(scale|scales|scale_inv|zero_point|zeros|absmax|qweight|SCB)$")
"""Ends of the names of weights that quantised ones are to be multiplied with, or come in place of them."""


def load_tokenizer(config: LanguageModelConfig) -> PreTrainedTokenizerBase:
    """Tokenizer of `config.model`. Raises ModelError naming `model` where there is none."""
    if config.model == "random-gpt2":
        return random_model.tokenizer()
    from transformers import AutoTokenizer

    tokenizer = _load(config, "tokenizer", AutoTokenizer.from_pretrained)
    if not tokenizer("text", add_special_tokens=False)["input_ids"]:
        # without tokenizer files, transformers makes an empty tokenizer from config.json and says nothing
        raise ModelError(f"model = {config.model!r}: has no tokenizer files: add tokenizer.json to its folder")
    return tokenizer


def load_model(config: LanguageModelConfig) -> PreTrainedModel:
    """Language model `config.model`, in evaluation mode, on the device and in the dtype that `config` resolves to.

    Code from a repository is never run and nothing is unpickled. Raises ModelError naming `model` where it cannot be
    had or lacks a weight, ConfigError where `layer`, `context`, `dtype` or `device` do not suit it or the machine.
    """
    device = resolve_device(config)
    dtype = resolve_dtype(config, device)
    if config.model == "random-gpt2":
        model = random_model.gpt2(config.context).to(dtype)
        _check_config(model.config, config)
    else:
        from transformers import AutoConfig

        _check_config(_load(config, "configuration", AutoConfig.from_pretrained), config)
        model = _load(config, "model", functools.partial(_complete_model, dtype=dtype))
    return model.to(device).eval().requires_grad_(False)


def resolve_device(config: LanguageModelConfig) -> torch.device:
    """Device that `config.device` means on this machine. Raises ConfigError for `cuda` where there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': no GPU is usable here: set it to auto or cpu")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def resolve_dtype(config: LanguageModelConfig, device: torch.device) -> torch.dtype:
    """Arithmetic that `config.dtype` means on `device`: `auto` is bfloat16 where the hardware has instructions for it.

    Raises ConfigError for bfloat16 on a GPU that lacks it (a processor merely runs it slowly).
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        if config.dtype == "bfloat16" and not fast:
            raise ConfigError("dtype = 'bfloat16': this GPU has no bfloat16 arithmetic: set it to auto or float32")
    else:
        fast = fast_bfloat16()
    if config.dtype == "auto":
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, whatever the architecture calls them: the outermost list of `num_hidden_layers` modules.

    Lists in what transformers calls the decoder come first: a vision encoder may have as many blocks. Raises ModelError
    where there is none.
    """
    return model.get_submodule(_path_of_blocks(model))


def parts_around_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Every module between `model` itself and its list of blocks, the outermost first."""
    names = _path_of_blocks(model).split(".")[:-1]
    return [model.get_submodule(".".join(names[: depth + 1])) for depth in range(len(names))]


def residual_of(output: Any) -> tuple[Any, tuple | None]:
    """What a block returned, as its residual stream and whatever it returned besides (None: nothing)."""
    return (output[0], tuple(output[1:])) if isinstance(output, tuple | list) else (output, None)


def run(model: PreTrainedModel, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"], **options: Any) -> Any:
    """Output of the model's own forward pass, without a cache of keys and values. `mask` is 0 at padding."""
    accepted = inspect.signature(model.forward).parameters
    if "use_cache" in accepted or any(kind.kind is kind.VAR_KEYWORD for kind in accepted.values()):
        options["use_cache"] = False
    return model(input_ids=ids, attention_mask=mask, **options)


def run_until_stopped(
    model: PreTrainedModel,
    ids: Int[Tensor, "batch seq"],
    mask: Int[Tensor, "batch seq"],
    hooks: Iterable[RemovableHandle],
) -> None:
    """Run the model until a hook raises StopForward, or to its end; then remove the hooks."""
    try:
        with suppress(StopForward):
            run(model, ids, mask)
    finally:
        for hook in hooks:
            hook.remove()


def require_evaluating(model: PreTrainedModel) -> None:
    """Raise ModelError where dropout would change every number."""
    if model.training:
        raise ModelError("model: it is in training mode, in which dropout is active: call model.eval()")


def check_layer(model: PreTrainedModel | PretrainedConfig, layer: int) -> None:
    """Raise ConfigError naming `layer` and its range where the model has no such block."""
    n_blocks = _n_blocks(model.config if isinstance(model, nn.Module) else model)
    if not 0 <= layer < n_blocks:
        raise ConfigError(f"layer = {layer}: the model has {n_blocks} blocks: use 0 … {n_blocks - 1}")


def alone(model: PreTrainedModel) -> AbstractContextManager[Any]:
    """Context in which no other thread reads or splices the model: hooks are on the modules, which threads share."""
    return _IN_USE.setdefault(getattr(model, "_orig_mod", model), threading.RLock())


@torch.inference_mode()
def residuals_after(
    model: PreTrainedModel, layers: Sequence[int], ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]
) -> list[Float[Tensor, "batch seq d_model"]]:
    """Residual stream after each block of `layers`, in the model's dtype; blocks after the last of them are not run.

    `mask` is 0 at padding. Equals transformers' `hidden_states[layer + 1]` except after the last block, where that
    entry has the final norm applied and this one has not: SAEs are trained on what blocks write, not on what the
    unembedding reads. Raises ModelError where a block returns anything but one vector of d_model numbers a token.
    """
    require_evaluating(model)
    caught: dict[int, Tensor] = {}

    def catch(layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        caught[layer], _ = residual_of(output)
        if layer == max(layers):
            raise StopForward

    with alone(model):
        hooks = [blocks(model)[layer].register_forward_hook(functools.partial(catch, layer)) for layer in layers]
        run_until_stopped(model, ids, mask, hooks)
    for layer in layers:
        if getattr(caught.get(layer), "shape", None) != (*ids.shape, d_model(model)):
            raise ModelError(f"model: block {layer} of {type(model).__name__} does not return one vector a token")
    return [caught[layer] for layer in layers]


def d_model(model: PreTrainedModel) -> int:
    """Width of the residual stream."""
    return model.config.get_text_config(decoder=True).hidden_size


def _path_of_blocks(model: PreTrainedModel) -> str:
    n_blocks = _n_blocks(model.config)
    lists = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    names = [name for name, module in lists if len(module) == n_blocks]
    if not names:
        raise ModelError(f"model: {type(model).__name__} has no list of {n_blocks} blocks: use a decoder-only model")
    decoder = {id(module) for module in model.get_decoder().modules()}
    return min(names, key=lambda name: (id(model.get_submodule(name)) not in decoder, name.count(".")))


def _n_blocks(config: PretrainedConfig) -> int:
    found = config.get_text_config(decoder=True)
    # of an encoder and a decoder, `num_hidden_layers` counts the encoder's blocks
    names = ("decoder_layers", "num_decoder_layers", "num_hidden_layers")
    n_blocks = next((value for name in names if (value := getattr(found, name, None)) is not None), None)
    if not n_blocks:
        raise ModelError(f"model: this {config.model_type} has no decoder blocks: use a decoder-only language model")
    return n_blocks


def _check_config(found: PretrainedConfig, config: LanguageModelConfig) -> None:
    if found.is_encoder_decoder:
        raise ModelError(f"model = {config.model!r}: an encoder-decoder: use a decoder-only language model")
    check_layer(found, config.layer)
    positions = getattr(found.get_text_config(decoder=True), "max_position_embeddings", None)
    # architectures without a limit say None or −1
    if positions is not None and 1 <= positions < config.context:
        raise ConfigError(f"context = {config.context}: {config.model!r} takes at most {positions} tokens: lower it")


def _complete_model(folder: Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """The model with every weight read from `folder`: transformers itself would fill gaps with random numbers."""
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, by name
        **options,
    )
    if wrong := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise OSError(f"{len(wrong)} weights are missing or of the wrong shape, such as {wrong[0]}")
    if other := sorted(name for name in report["unexpected_keys"] if _changes_the_model(name, model)):
        raise OSError(f"config.json has no place for {len(other)} weights, such as {other[0]}")
    model.config.return_dict = True  # whatever config.json says: outputs are read by name
    return model


def _changes_the_model(name: str, model: PreTrainedModel) -> bool:
    """Whether a weight that a model has no place for is of one more of its blocks, or a scale of quantised weights.

    Others change nothing: masks that older versions saved, a classifier's head, a vision encoder.
    """
    path = _path_of_blocks(model)
    block = re.search(rf"(^|\.){re.escape(path.rpartition('.')[2])}\.(\d+)\.", name)
    elsewhere = re.search("vision|visual|image|audio", name)
    surplus = block is not None and elsewhere is None and int(block[2]) >= len(model.get_submodule(path))
    return surplus or QUANTISED.search(name) is not None


def _load(config: LanguageModelConfig, what: str, read: Callable[..., Any]) -> Any:
    """`read` the model's folder, quietly and without network; whatever goes wrong there becomes a ModelError."""
    folder = model_files(config)
    try:
        if (folder / ADAPTER).exists():
            raise OSError(f"{ADAPTER}: it is an adapter, which would not be applied: merge it into its base model")
        with quiet_transformers():
            return read(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a folder of anybody's makes transformers raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "give a complete folder in the hub's layout (config.json, *.safetensors, tokenizer.json)"
        raise ModelError(f"model = {config.model!r}: its {what} cannot be loaded ({reason}): {fix}") from error
