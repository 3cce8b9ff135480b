"""The artefacts that a report needs: where each is, its size, the memory and the work that it takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from archsae_core.data.extraction import BATCH_TOKENS
from archsae_core.data.language_model import blocks, d_model
from archsae_core.models.snapshots import snapshot_steps
from archsae_core.storage import canonical_hash
from archsae_study.arms import ARMS, Arm
from archsae_study.config import FIELDS, Config
from archsae_study.experiments import TABLES
from archsae_study.plan import report_runs
from archsae_study.report import table_named
from archsae_study.runs import Run, arm_runs
from archsae_study.study import SCORE_BATCH, Study

INDEX_BYTES = 18
"""Of one row in index.safetensors: document, position, token, window, norm."""


class Stage(NamedTuple):
    """One artefact that a report needs."""

    name: str
    folder: Path
    """Where it is or will be."""
    disk: int
    """Bytes, checkpoints included."""
    memory: int
    """Bytes at the peak, beyond what the process holds with the language model loaded."""
    flops: float
    """Floating-point operations, as multiples of what a dense matrix product of the same time does."""

    @property
    def kind(self) -> str:
        """`activations`, `anchors`, `runs` or `tables`."""
        return self.folder.parent.name

    @property
    def kept(self) -> bool:
        """Whether an earlier run left it."""
        return self.folder.exists()


def report_stages(study: Study) -> list[Stage]:
    """Every artefact of a report of `study`, whose text is read and model loaded for it. Nothing is written."""
    runs = [(study.of(run), run) for run in report_runs(study, TABLES)]
    sources = {canonical_hash(own.source): own for own, _ in [*reversed(runs), (study, None)]}
    anchors = [(own, fold) for table in TABLES for own, fold in table.anchors(study)]
    anchors += [(own, own.fold(run)) for own, run in runs if ARMS[run.arm].anchors == "kmeans"]
    # ways to move W are compared on the validation documents, in the report's own layer alone
    found = [pair for part in ("train", "heldout") for pair in _reading(list(sources.values()), part)]
    found.append((study, _activations(study, "validation")))
    found += [(own, _anchor(own, fold)) for own, fold in anchors] + _runs(runs)
    stages = [stage._replace(name=stage.name + _changes(study, own)) for own, stage in found]
    stages += [_evaluation(study), _stability(study), _others(study)]
    return list({stage.folder: stage for stage in reversed(stages)}.values())[::-1]  # named by who needs it first


def _changes(study: Study, own: Study) -> str:
    """What sets `own` apart, for the name of a stage."""
    pairs = [(name, own.config[name], study.config[name]) for name in FIELDS]
    return "".join(f", {name} {value}" for name, value, usual in pairs if value != usual)


def _reading(studies: Sequence[Study], part: str) -> list[tuple[Study, Stage]]:
    """Activations of several layers: those that are missing come from one pass, which ends after the last of them."""
    stages = [_activations(study, part) for study in studies]
    longest = max((stage.flops for stage in stages if not stage.kept), default=0.0)
    return [(own, s if s.flops == longest else s._replace(flops=0.0)) for own, s in zip(studies, stages, strict=True)]


def _activations(study: Study, part: str) -> Stage:
    model, found = study.model, getattr(study.tokens, part)
    layers = blocks(model)[: study.config.language_model.layer + 1]
    weights = sum(parameter.numel() for parameter in layers.parameters())
    width, size = d_model(model), model.dtype.itemsize
    inner = getattr(model.config, "intermediate_size", None) or 4 * width
    rows = found.n_tokens - len(found.ids)
    attention = 4 * study.config.language_model.context * width * len(layers)
    # both halves of a gated MLP, its product, and about six copies of the residual stream
    memory = BATCH_TOKENS * (3 * inner + 6 * width) * 4 + rows * INDEX_BYTES
    folder = study.store.path("activations", study.source | {"part": part})
    # bfloat16, where the machine is fast in it, runs half again as fast as the rate of `_rate`
    flops = found.n_tokens * (2 * weights + attention) * (0.65 if model.dtype == torch.bfloat16 else 1.0)
    return Stage(f"activations, {part}", folder, rows * (width * size + INDEX_BYTES), memory, flops)


def _anchor(study: Study, fold: int | None) -> Stage:
    config, width = study.config, d_model(study.model)
    rows = study.tokens.train.n_tokens - len(study.tokens.train.ids)
    count = rows // config.anchors.anchor_folds
    count = min(count, config.anchors.anchor_tokens or count)
    # the sample, the raw rows it is made of, and a product or a copy in float32
    memory = 3 * count * width * 4
    flops = 2.0 * count * config.anchors.n_anchors * width * config.anchors.kmeans_iterations
    folder = study.store.path("anchors", study.anchor_recipe(fold))
    name = "anchors" if fold is None else f"anchors, part {fold}"
    return Stage(name, folder, config.anchors.n_anchors * (width + 2) * 4, memory, flops)


def _table_folder(study: Study, name: str) -> Path:
    return study.store.path("tables", table_named(name).recipe(study))


def _evaluation(study: Study) -> Stage:
    """Language model on held-out text, clean and with five replacements: its logits are the largest tensors of all."""
    config, weights = study.config, sum(parameter.numel() for parameter in study.model.parameters())
    vocabulary = study.model.get_input_embeddings().num_embeddings
    tokens = min(config.comparison.behaviour_tokens, study.tokens.heldout.n_tokens)
    memory = (
        2 * 16 * config.language_model.context * vocabulary * 4
    )  # logits of a batch of 16 windows, and their log-softmax
    # measured: the products that are run again after the splice, in bfloat16, take as long as two passes in float32
    return Stage("evaluation", _table_folder(study, "evaluation"), 2**16, memory, 2 * 2.0 * tokens * weights)


def _stability(study: Study) -> Stage:
    """Comparison of arms: all scores of every pair of seeds at the start and the end, the headline at four budgets."""
    config = study.config
    seeds = [len(arm_runs(config, arm)) for arm in config.comparison.arms]
    pairs = sum(n * (n - 1) // 2 for n in seeds)
    # measured: exact matchings take about 27 and 9 times the product of two dictionaries
    flops = pairs * (2 * 27 + 4 * 9) * 2.0 * config.dictionary.n_features**2 * d_model(study.model)
    memory = 6 * 4 * config.dictionary.n_features**2  # cosines of one pair: raw, centred, absolute, alive, encoder
    return Stage("stability", _table_folder(study, "stability"), 2**18, memory, flops)


def _others(study: Study) -> Stage:
    """Tables that take a minute or two each, in most of them the language model's: probes, reappearance, swaps."""
    found = _evaluation(study)
    # measured: together ten times the evaluation; the one that takes longest stands for all of them
    return found._replace(name="other tables", folder=_table_folder(study, "probing"), flops=10 * found.flops)


def _runs(runs: Sequence[tuple[Study, Run]]) -> list[tuple[Study, Stage]]:
    """A stage for each run."""
    return [(own, _run(own, run)) for own, run in runs]


def _scoring(study: Study) -> float:
    """Operations that it takes to score a dictionary on the held-out tokens."""
    heldout = min(
        study.tokens.heldout.n_tokens, study.config.comparison.heldout_tokens or study.tokens.heldout.n_tokens
    )
    return 4.0 * heldout * study.config.dictionary.n_features * d_model(study.model)


def step_flops(config: Config, arm: Arm, width: int) -> float:
    """Operations of a training step, as multiples of what a dense matrix product of the same time does."""
    encode = 2.0 * config.training.batch_size * config.dictionary.n_features * width
    # measured over whole runs where memory keeps up: a TopK step takes 1.5 times its encoder's dense product in
    # float32, and W this share of a dense W C and its gradient
    share = {"mirror": 0.15, "published": 1.05 if config.dictionary.unit_norm else 0.6}[config.training.w_step]
    hull = 4.0 * config.dictionary.n_features * config.anchors.n_anchors * width
    return 1.5 * encode + share * hull * (arm.dictionary == "archetypal")


def _run(study: Study, run: Run) -> Stage:
    config, width, arm = study.config, d_model(study.model), ARMS[run.arm]
    atoms, anchors = config.dictionary.n_features * width, config.anchors.n_anchors
    archetypal = arm.dictionary == "archetypal"
    numbers = 2 * atoms + (config.dictionary.n_features * anchors + anchors * width if archetypal else 0)
    flops = run.steps * step_flops(config, arm, width) + _scoring(study)
    # parameters, gradients and two moments of Adam; a batch's dense codes and their gradients
    memory = 4 * 4 * numbers + 4 * 3 * max(config.training.batch_size, SCORE_BATCH) * config.dictionary.n_features
    disk = 4 * numbers + 4 * atoms * len(snapshot_steps(run.steps))
    folder = study.store.path("runs", study.run_recipe(run))
    name = str(run)
    return Stage(name, folder, disk, memory, flops)
