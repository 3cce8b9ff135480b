"""Notebook 04: the dictionaries on held-out text in both frames, with the reconstruction spliced into the model."""

from dataclasses import dataclass
from typing import Any

from archsae_core.config import FRAMES
from archsae_core.metrics.behaviour import behaviour
from archsae_study.engine.costs import Cost, spliced, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.checks import Flag, flags
from archsae_study.experiments.dictionaries import main_runs

ROLES = ("topk", "topk-kmeans", "ra")
"""Free from a random start, free from the centroids that the archetypal one starts from, archetypal."""


@dataclass(frozen=True)
class EvaluatedSAE:
    """One dictionary."""

    role: str
    frame: str
    arm: str
    quality: dict[str, Any]
    """`Quality` with intervals over documents."""
    behaviour: dict[str, Any]
    """CE and KL in nats a token, CE recovered against mean and zero ablation, with intervals over documents."""
    flags: list[Flag]
    """Expectations that do not hold."""


@dataclass(frozen=True)
class EvaluationResult:
    """All dictionaries on the same tokens."""

    n_tokens: int
    """On which CE and KL are measured."""
    n_documents: int
    n_scored: int
    """Held-out tokens on which the rest is measured."""
    n_kept_outliers: int
    """Positions that kept their residual, since no dictionary is trained on norms like theirs."""
    clean: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    """`mean` and `zero` ablation."""
    saes: list[EvaluatedSAE]

    def of(self, role: str, frame: str) -> EvaluatedSAE:
        """One dictionary."""
        return next(sae for sae in self.saes if (sae.role, sae.frame) == (role, frame))


def runs(study: Study) -> list[Run]:
    """The dictionaries of both frames."""
    return main_runs(study, *ROLES)


def build(study: Study) -> EvaluationResult:
    """One pass of the language model over the held-out tokens for all of them."""
    named = {(frame, role): study.main_run(role, frame) for frame in FRAMES for role in ROLES}
    spliced = behaviour(
        study.model,
        study.config.language_model.layer,
        study.tokens.heldout,
        {f"{frame} {role}": study.sae(run) for (frame, role), run in named.items()},
        study.normalizer.mean,
        max_tokens=study.config.comparison.behaviour_tokens,
        max_norm=study.train_activations.threshold,
    )
    saes = [
        EvaluatedSAE(
            role,
            frame,
            run.arm,
            study.scores(run).as_dict(),
            spliced["arms"][f"{frame} {role}"],
            flags(study.scores(run), study.config.dictionary.k, None),
        )
        for (frame, role), run in named.items()
    ]
    counts = {name: spliced[name] for name in ("n_tokens", "n_documents", "n_kept_outliers", "clean")}
    usable = len(study.heldout_activations.kept)
    counts["n_scored"] = min(usable, study.config.comparison.heldout_tokens or usable)
    return EvaluationResult(**counts, baselines={name: spliced["arms"][name] for name in ("mean", "zero")}, saes=saes)


def _cost(study: Study) -> Cost:
    """Every dictionary, the mean and zero in place of the residual. Logits are the largest tensors of the report."""
    config, vocabulary = study.config, study.model.get_input_embeddings().num_embeddings
    tokens = min(config.comparison.behaviour_tokens, study.tokens.heldout.n_tokens)
    memory = 2 * 16 * config.language_model.context * vocabulary * 4
    return table_cost(study, model_tokens=spliced(study, tokens, len(runs(study)) + 3), memory=memory)


TABLE = Table(
    name="evaluation",
    result=EvaluationResult,
    build=build,
    runs=runs,
    fields=("seed", "heldout_tokens", "behaviour_tokens"),
    file="eval_results.json",
    cost=_cost,
)
