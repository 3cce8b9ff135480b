"""What every artefact of a report takes: bytes on the disk and in memory, and work, timed on the machine as it is now.

Work is counted in units that a short trial can time here: training steps of a kind, tokens through the language model,
matchings of two dictionaries. Nothing is assumed of the processor.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from archsae_core.data.extraction import BATCH_TOKENS
from archsae_core.data.language_model import blocks, d_model, residuals_after
from archsae_core.metrics.reconstruction import document_sums
from archsae_core.metrics.stability import hungarian_centred
from archsae_core.metrics.task_probes import regression_auc
from archsae_core.models.anchors import nearest_anchor
from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.sae import SAE
from archsae_core.models.snapshots import snapshot_steps
from archsae_core.models.training import Trainer
from archsae_study.engine.runs import Run
from archsae_study.engine.study import SCORE_BATCH, Study
from archsae_study.protocol.arms import ARMS, Arm, main_arms

INDEX_BYTES = 18
"""Of one row in index.safetensors: document, position, token, window, norm."""
ALL_TASKS, PROMPT_TOKENS = 113, 57
"""Binary tasks of `sae-probes`, and tokens of a prompt cut to 256: the mean of all, with SmolLM2's tokenizer."""
LARGEST = 4096
"""Features, anchors and tokens a batch of what is timed, at most."""
FINAL = 3
"""Iterations that the start of k-means and its last assignment, which is in float32, amount to; measured."""
TRIAL_RATE = 1e-6
"""Learning rates of the steps that are timed."""
TRIAL = 0.5
"""Seconds of each trial."""


@dataclass(frozen=True)
class Unit:
    """A kind of work, and the trial that times one of it."""

    name: str
    seconds: Callable[[], float] = field(compare=False)


class Cost(NamedTuple):
    """What it takes to make one artefact."""

    disk: int = 0
    """Bytes, checkpoints included."""
    memory: int = 0
    """Bytes at the peak, beyond what the process holds with the language model loaded."""
    work: tuple[tuple[float, Unit], ...] = ()
    """How much of each unit."""


def _trial(statement: str, **names: object) -> float:
    """Shortest time of a statement, a GPU waited for, with all threads: what others do meanwhile only lengthens it."""
    from torch.utils.benchmark import Timer  # brings setuptools, which reading results need not wait for

    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    found = timer.blocked_autorange(min_run_time=TRIAL).times
    return min(found)


def arithmetic(study: Study) -> Unit:
    """10⁹ operations of dense products in float32."""

    def seconds() -> float:
        x, weights = torch.ones(1024, 768, device=study.device), torch.ones(768, 1024, device=study.device)
        return _trial("x @ weights", x=x, weights=weights) / (2 * 1024 * 768 * 1024 / 1e9)

    return Unit("arithmetic", seconds)


def clustering(study: Study) -> Unit:
    """A row compared with all anchors, as an iteration of k-means does. It grows with their number."""
    count = study.config.anchors.n_anchors

    def seconds() -> float:
        width, device = d_model(study.model), study.device
        x, points = (torch.ones(size, width, device=device) for size in (2 * LARGEST, min(count, LARGEST)))
        names = {"nearest": nearest_anchor, "x": x, "points": points}
        return _excess(study, "n_anchors") * _trial("nearest(x, points)", **names) / len(x)

    return Unit(f"row among {count} anchors", seconds)


def reading(study: Study) -> Unit:
    """A token through the blocks of the language model up to the study's layer."""
    layer = study.config.language_model.layer

    def seconds() -> float:
        length = min(study.config.language_model.context, BATCH_TOKENS)
        ids = torch.ones(max(1, BATCH_TOKENS // length), length, dtype=torch.int64, device=study.device)
        names = {"read": residuals_after, "model": study.model, "layers": [layer], "ids": ids, "mask": ids}
        return _trial("read(model, layers, ids, mask)", **names) / ids.numel()

    return Unit(f"{study.config.language_model.model}, token to layer {layer}", seconds)


def language_model(study: Study) -> Unit:
    """A token through the whole language model, with its logits."""

    def seconds() -> float:
        length = min(study.config.language_model.context, 256)
        ids = torch.ones(4, length, dtype=torch.int64, device=study.device)
        with torch.no_grad():
            return _trial("model(ids).logits", model=study.model, ids=ids) / ids.numel()

    return Unit(f"{study.config.language_model.model}, token", seconds)


def _small(study: Study, arm: Arm) -> tuple[SAE, torch.Tensor]:
    """An autoencoder of the study's sizes, `LARGEST` at most, and a batch for it."""
    sizes = {name: min(study.config[name], LARGEST) for name in ("n_features", "n_anchors", "batch_size")}
    config = study.config.changed(**sizes, k=min(study.config.dictionary.k, LARGEST))
    generator, width = torch.Generator().manual_seed(0), d_model(study.model)
    anchors = torch.randn(config.anchors.n_anchors, width, generator=generator)
    x = torch.randn(config.training.batch_size, width, generator=generator)
    parts = (arm.dictionary, arm.start, anchors, config.dictionary, config.training, generator)
    sae = SAE(make_dictionary(*parts), config.dictionary.k, torch.zeros(width), 1.0).to(study.device)
    sae.calibrate(x)
    return sae, x.to(study.device)


def _excess(study: Study, *names: str) -> float:
    """How many times the size that is timed the study's own is."""
    found = 1.0
    for name in names:
        found *= max(1.0, study.config[name] / LARGEST)
    return found


def training_step(study: Study, arm: Arm) -> Unit:
    """A step of the optimiser. Larger than `LARGEST`, it is taken to grow with features, tokens and, for W, anchors."""
    archetypal = arm.dictionary == "archetypal"
    fields = ["n_features", "k", "batch_size"]
    fields += ["n_anchors", "w_step", "w_dtype", "unit_norm", "learn_scale"] if archetypal else []
    name = ", ".join(f"{name} {study.config[name]}" for name in fields)

    def seconds() -> float:
        sae, x = _small(study, arm)
        # at the study's own rates a trial could diverge, which is for the runs to find out
        trainer = Trainer(sae, replace(study.config.training, lr=TRIAL_RATE, w_lr=TRIAL_RATE))
        larger = _excess(study, "n_features", *(["n_anchors"] if archetypal else ["batch_size"]))
        return larger * _trial("trainer.train_step(x)", trainer=trainer, x=x)

    return Unit(f"step, {arm.dictionary}, {name}", seconds)


def encoding(study: Study) -> Unit:
    """A token encoded and decoded by a dictionary."""

    def seconds() -> float:
        sae, x = _small(study, ARMS[main_arms("centred")["topk"]])
        with torch.no_grad():
            return _excess(study, "n_features") * _trial("sae(x)", sae=sae, x=x) / len(x)

    config = study.config.dictionary
    return Unit(f"token of {config.n_features} features, k {config.k}", seconds)


def scoring(study: Study) -> Unit:
    """A token encoded, decoded and scored: `document_sums`."""

    def seconds() -> float:
        sae, x = _small(study, ARMS[main_arms("centred")["topk"]])
        batches = [(x, torch.zeros(len(x), dtype=torch.int64))]
        return _excess(study, "n_features") * _trial("score(sae, x)", score=document_sums, sae=sae, x=batches) / len(x)

    config = study.config.dictionary
    return Unit(f"scored token of {config.n_features} features, k {config.k}", seconds)


def matching(study: Study) -> Unit:
    """The best one-to-one assignment of the atoms of two dictionaries. It grows with the cube of their number."""
    count = study.config.dictionary.n_features

    def seconds() -> float:
        generator = torch.Generator().manual_seed(0)
        common = torch.randn(min(count, LARGEST), d_model(study.model), generator=generator)
        # as unlike as two runs, and in some directions more than in others: alike or even, they take half the time
        spread = torch.arange(1.0, common.shape[1] + 1).rsqrt()
        a, b = ((common + 3 * torch.randn(common.shape, generator=generator)) * spread for _ in range(2))
        return max(1.0, count / LARGEST) ** 3 * _trial("match(a, b)", match=hungarian_centred, a=a, b=b)

    return Unit(f"matching of {count} features", seconds)


def probe_fit(study: Study) -> Unit:
    """A probe of a task on a few features: regressions with every penalty, and the one that is kept."""
    count = study.config.comparison.probe_prompts

    def seconds() -> float:
        generator = np.random.default_rng(0)
        # rare, far from 1 and telling, as codes are: what is none of these is fitted in half the time
        codes = 10 * generator.exponential(size=(count, 16)) * (generator.random((count, 16)) < 0.2)
        prompts = codes, 2 * codes[:, 0] + codes[:, 1] + 10 * generator.normal(size=count) > 0.5
        return _trial("fit(prompts, prompts)", fit=regression_auc, prompts=prompts)

    return Unit(f"probe of {count} prompts", seconds)


def of_activations(study: Study, part: str) -> Cost:
    """Reading one part of the documents."""
    model, tokens = study.model, getattr(study.tokens, part)
    width, size = d_model(model), model.dtype.itemsize
    inner = getattr(model.config, "intermediate_size", None) or 4 * width
    rows = tokens.n_tokens - len(tokens.ids)
    # both halves of a gated MLP, its product, and about six copies of the residual stream
    memory = BATCH_TOKENS * (3 * inner + 6 * width) * 4 + rows * INDEX_BYTES
    return Cost(rows * (width * size + INDEX_BYTES), memory, ((tokens.n_tokens, reading(study)),))


def of_prompts(study: Study) -> Cost:
    """Reading the prompts of the probing tasks."""
    model, prompts = study.model, probe_prompts(study)
    disk = prompts * (d_model(model) * model.dtype.itemsize + 13) + 2**18
    tokens = prompts * min(PROMPT_TOKENS, study.config.language_model.context)
    return Cost(disk, 0, ((tokens, reading(study)),))


def probed_tasks(study: Study) -> int:
    """Binary tasks that are probed."""
    limit = study.config.comparison.probe_tasks
    return ALL_TASKS if limit is None else min(limit, ALL_TASKS)


def probe_prompts(study: Study) -> int:
    """Prompts of all probed tasks, for training and for the test."""
    return probed_tasks(study) * (study.config.comparison.probe_prompts * 3 // 2)


def of_normalizer(study: Study) -> Cost:
    """Two passes over the training activations: their speed is that of the disk, and seconds at most."""
    return Cost(4 * d_model(study.model), 0, ((_rows(study) * d_model(study.model) * 20 / 1e9, arithmetic(study)),))


def _rows(study: Study) -> int:
    return study.tokens.train.n_tokens - len(study.tokens.train.ids)


def of_anchors(study: Study) -> Cost:
    """k-means on as many activations as one of `anchor_folds` parts of the documents has, be it of one part or all."""
    config, width = study.config, d_model(study.model)
    count = _rows(study) // config.anchors.anchor_folds
    count = min(count, config.anchors.anchor_tokens or count)
    # the sample, the raw rows it is made of, and a product or a copy in float32
    memory = 3 * count * width * 4
    rows = count * (config.anchors.kmeans_iterations + FINAL)
    return Cost(config.anchors.n_anchors * (width + 2) * 4, memory, ((rows, clustering(study)),))


def of_run(study: Study, run: Run) -> Cost:
    """Training; `study` is that of the run's own parameters."""
    config, width, arm = study.config, d_model(study.model), ARMS[run.arm]
    atoms, anchors = config.dictionary.n_features * width, config.anchors.n_anchors
    archetypal = arm.dictionary == "archetypal"
    numbers = 2 * atoms + (config.dictionary.n_features * anchors + anchors * width if archetypal else 0)
    # parameters, gradients and two moments of Adam; a batch's dense codes and their gradients
    memory = 4 * 4 * numbers + 4 * 3 * max(config.training.batch_size, SCORE_BATCH) * config.dictionary.n_features
    disk = 4 * numbers + 4 * atoms * len(snapshot_steps(run.steps))
    return Cost(disk, memory, ((run.steps, training_step(study, arm)),))


def of_scores(study: Study, part: str) -> Cost:
    """Scoring one trained dictionary on one part of the documents."""
    tokens = getattr(study.tokens, part).n_tokens
    tokens = min(tokens, study.config.comparison.heldout_tokens or tokens)
    features = study.config.dictionary.n_features
    memory = 4 * (SCORE_BATCH * features + 2 * features * d_model(study.model))
    return Cost(8 * features + 8192, memory, ((tokens, scoring(study)),))


def seed_pairs(runs: Iterable[Run]) -> int:
    """Pairs of seeds of the same arm, length and parameters: what a table of agreement compares."""
    counts = Counter((run.arm, run.steps, run.changes) for run in runs)
    return sum(count * (count - 1) // 2 for count in counts.values())


READ_LOGITS = 1.5
"""Time of the head and of what is made of its logits, as a multiple of the head's; measured."""


def spliced(study: Study, tokens: int, passes: int) -> float:
    """Tokens through the whole language model that one pass to the layer and some from there on amount to.

    By the number of weights: the blocks up to the layer once, those after it and the head in each of the `passes`.
    """
    layers, width = blocks(study.model), d_model(study.model)
    of_blocks = sum(weights.numel() for weights in layers.parameters())
    of_head = width * study.model.get_input_embeddings().num_embeddings
    before = of_blocks * (study.config.language_model.layer + 1) / len(layers)
    each = of_blocks - before + READ_LOGITS * of_head
    return tokens * (before + passes * each) / (of_blocks + of_head)


Costing = Callable[[Study], Cost]
"""What a table costs, stated beside its builder."""


def together(costs: Sequence[Cost]) -> Cost:
    """Of tables' parts that are made one after the other: the work of all, on the disk and in the memory of one."""
    return costs[0]._replace(work=tuple(part for cost in costs for part in cost.work))


def table_cost(
    study: Study,
    *,
    matchings: int | float = 0,
    encoded: int | float = 0,
    scored: int | float = 0,
    model_tokens: int | float = 0,
    memory: int = 0,
    disk: int = 2**18,
) -> Cost:
    """Cost of a table from how much it does of each kind of work.

    `matchings` counts assignments of two dictionaries' atoms, `encoded` tokens that a dictionary encodes,
    `scored` tokens on which its R² is taken, `model_tokens` tokens through the whole language model; `memory` and
    `disk` are bytes.
    """
    of_dictionaries = ((matchings, matching(study)), (encoded, encoding(study)), (scored, scoring(study)))
    counts = (*of_dictionaries, (model_tokens, language_model(study)))
    return Cost(disk, memory, tuple((float(count), unit) for count, unit in counts if count))


nothing: Costing = partial(lambda cost, _: cost, Cost(disk=2**16))
"""Of a table that reads what is there."""
