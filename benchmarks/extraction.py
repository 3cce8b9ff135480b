"""Reading activations: `python -m benchmarks.extraction`, tokens/s and share of the matrix rate of the block's shapes.

The rate is measured with the block's own matrices, alone, on as many tokens as a batch has, in the same arithmetic. A
forward pass stands next to it with the multiplications of all its blocks' matrices (attention scores left out) and its
whole time, the shares of its kinds of operation, and the same pass with blocks compiled by `torch.compile`, which fuses
what works element by element (left out without a C++ compiler). `extract` is the pass over real windows of text,
padding, checks and writing included. Training reads it in shuffled batches: `reading_share` is the part of a step that
waits for one.
"""

import copy
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.profiler import ProfilerActivity, profile

from archsae_core.data.activations import ActivationSet, open_activations
from archsae_core.data.extraction import BATCH_TOKENS, extract
from archsae_core.data.language_model import blocks, residuals_after
from archsae_core.data.tokens import TokenSet
from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.sae import SAE
from archsae_core.models.training import Trainer, as_batches
from archsae_study.engine.study import Study
from benchmarks import of_study
from benchmarks.machine import seconds_in_turns

KINDS = {"attention": ("scaled_dot_product",), "products": ("aten::mm", "addmm", "linear")}
"""Kinds of operation, by parts of their names; what has none of them works element by element."""


def matrices(block: nn.Module) -> list[tuple[nn.Module, int, int]]:
    """(module, d_in, d_out) of a block's matrices, GPT-2's `Conv1D` with its transposed weight included."""
    found = [module for module in block.modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 2]
    shapes = [module.weight.shape if isinstance(module, nn.Linear) else module.weight.shape[::-1] for module in found]
    return [(module, d_in, d_out) for module, (d_out, d_in) in zip(found, shapes, strict=True)]


def matrices_alone(block: nn.Module, tokens: int) -> Callable[[], None]:
    """Call that multiplies by a block's matrices, one after the other, on `tokens` tokens."""
    weight = next(block.parameters())
    inputs = [torch.randn(tokens, d_in, device=weight.device).to(weight.dtype) for _, d_in, _ in matrices(block)]

    @torch.inference_mode()
    def run() -> None:
        for (module, _, _), x in zip(matrices(block), inputs, strict=True):
            module(x)

    return run


def flops(block: nn.Module, tokens: int) -> int:
    return sum(2 * tokens * d_in * d_out for _, d_in, d_out in matrices(block))


def first_windows(tokens: TokenSet, budget: int) -> TokenSet:
    """Windows until they hold `budget` tokens, spread over the set."""
    step = max(1, tokens.n_tokens // budget)
    counts = itertools.accumulate(len(window) for window in tokens.ids[::step])
    taken = sum(1 for count in counts if count <= budget) or 1
    return TokenSet(tokens.ids[::step][:taken], tokens.document[::step][:taken])


def reading_share(study: Study, activations: ActivationSet, steps: int = 20) -> float:
    """Share of a TopK step, the shortest there is, that waits for its shuffled batch."""
    config = study.config
    points = torch.zeros(1, activations.x.shape[1])
    dictionary = make_dictionary(
        "free", "random", points, config.dictionary, config.training, torch.Generator().manual_seed(0)
    )
    trainer = Trainer(SAE(dictionary, config.dictionary.k, points[0], 1.0).to(study.device), config.training)
    batches = as_batches(activations, config.training.batch_size)
    trainer.train_step(batches(0).to(study.device))
    waited, begin = 0.0, time.perf_counter()
    for step in range(1, steps + 1):
        start = time.perf_counter()
        batch = batches(step)
        waited += time.perf_counter() - start
        trainer.train_step(batch.to(study.device))
    return waited / (time.perf_counter() - begin)


def operation_shares(run: Callable[[], object]) -> dict[str, float]:
    """Share of the time of `run` that each kind of operation takes, on the processor."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    found = dict.fromkeys([*KINDS, "element by element"], 0.0)
    for event in profiler.key_averages():
        named = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
        found[next(named, "element by element")] += event.self_cpu_time_total
    whole = sum(found.values())
    return {kind: time / whole for kind, time in found.items()}


def compiled_pass(model: nn.Module, layer: int, ids: torch.Tensor, mask: torch.Tensor) -> Callable[[], object] | None:
    """Forward pass with compiled blocks; None where they cannot be compiled, as without a compiler."""
    compiled = copy.deepcopy(model)
    for block in blocks(compiled):
        block.compile()

    def run() -> object:
        return residuals_after(compiled, [layer], ids, mask)

    try:
        run()
    except TorchDynamoException:
        return None
    return run


def run(study: Study, budget: int) -> dict[str, float | str | dict[str, float]]:
    """Rates of one forward pass on full windows and of `extract` on `budget` tokens of text."""
    model, layer, context = study.model, study.config.language_model.layer, study.config.language_model.context
    body, device = blocks(model)[: layer + 1], str(model.device)
    windows = max(1, BATCH_TOKENS // context)
    ids = torch.randint(model.config.vocab_size, (windows, context), device=device)
    mask = torch.ones_like(ids)
    calls = {
        "matrices": matrices_alone(body[layer], ids.numel()),
        "forward": lambda: residuals_after(model, [layer], ids, mask),
        "compiled": compiled_pass(model, layer, ids, mask),
    }
    times = seconds_in_turns({name: call for name, call in calls.items() if call is not None}, device)
    rate = flops(body[layer], ids.numel()) / times["matrices"]
    whole = sum(flops(block, ids.numel()) for block in body)
    text = first_windows(study.tokens.train, budget)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        extract({layer: Path(folder)}, model, text, progress=False)
        taken = time.perf_counter() - begin
        waiting = reading_share(study, open_activations(Path(folder), study.config.activations.outlier_factor))
    found = {"matrix_gflops": rate / 1e9, "reading_share": waiting, "tokens": text.n_tokens, "dtype": str(model.dtype)}
    for name in times.keys() - {"matrices"}:
        found |= {f"{name}_tokens_per_s": ids.numel() / times[name], f"{name}_share": whole / times[name] / rate}
    found |= {"extract_tokens_per_s": text.n_tokens / taken}
    found |= {"extract_share": found["extract_tokens_per_s"] / found["forward_tokens_per_s"] * found["forward_share"]}
    if device == "cpu":  # a GPU computes while its operations are still being named
        found |= {"operations": operation_shares(calls["forward"])}
    return found


if __name__ == "__main__":
    of_study.main("extraction", __doc__, run, tokens=50_000)
