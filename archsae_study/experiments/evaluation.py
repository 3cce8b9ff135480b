"""Dictionaries on held-out text: quality, and CE and KL with the reconstruction spliced in (04)."""

from typing import Any

from archsae_core.metrics.behaviour import behaviour
from archsae_study.arms import MAIN_ARMS
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study


def evaluation(study: Study) -> dict[str, Any]:
    """Dictionaries on held-out text: quality, and CE and KL with the reconstruction spliced in.

    The free one is there twice: from a random start, and from the centroids that the archetypal one starts from.
    """
    runs = {arm: study.main_run(arm) for arm in MAIN_ARMS}
    spliced = behaviour(
        study.model,
        study.config.language_model.layer,
        study.tokens.heldout,
        {arm: study.sae(run) for arm, run in runs.items()},
        study.normalizer.mean,
        max_tokens=study.config.comparison.behaviour_tokens,
        max_norm=study.train_activations.threshold,
    )
    quality = {arm: study.scores(run).as_dict() for arm, run in runs.items()}
    saes = {arm: {"quality": quality[arm], "behaviour": spliced["arms"][arm]} for arm in runs}
    kept = {name: spliced[name] for name in ("n_tokens", "n_documents", "n_kept_outliers", "clean")}
    return kept | {"saes": saes, "baselines": {name: spliced["arms"][name] for name in ("mean", "zero")}}


def main_runs(study: Study) -> list[tuple[Study, Run]]:
    """The runs that notebooks 02 to 04 look at."""
    return [(study, study.main_run(arm)) for arm in MAIN_ARMS]


TABLE = Table(
    name="evaluation",
    result=dict,
    build=evaluation,
    runs=main_runs,
    fields=("seed", "heldout_tokens", "behaviour_tokens"),
    file="eval_results.json",
)
