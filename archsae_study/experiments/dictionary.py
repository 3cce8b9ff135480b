"""One trained dictionary: its log, held-out quality, its atoms' cosine with their start (02 and 03)."""

from functools import partial
from pathlib import Path
from typing import Any

from archsae_core.models.training import read_log
from archsae_study.plan import Table
from archsae_study.runs import Run, cosines_with_start
from archsae_study.study import Study


def dictionary(study: Study, arm: str) -> dict[str, Any]:
    """The dictionary of an arm that notebooks 02 to 04 look at."""
    run = study.main_run(arm)
    folder, scores = study.run_folder(run), study.scores(run)
    table = {"arm": arm, "log": read_log(folder), "quality": scores.as_dict()}
    return table | {"cosine_with_start": cosines_with_start(folder, run.steps)}


def standard(study: Study) -> dict[str, Any]:
    """The free dictionary, from a random start."""
    return dictionary(study, "topk")


def archetypal(study: Study) -> dict[str, Any]:
    """The archetypal dictionary."""
    return dictionary(study, "ra")


def _main_runs(study: Study, arm: str) -> list[tuple[Study, Run]]:
    return [(study, study.main_run(arm))]


def _sae(study: Study, arm: str) -> Path:
    return study.run_folder(study.main_run(arm)) / "sae.safetensors"


STANDARD = Table(
    name="standard_sae",
    result=dict,
    build=standard,
    runs=partial(_main_runs, arm="topk"),
    fields=("seed", "heldout_tokens"),
    copies={"standard_sae.safetensors": partial(_sae, arm="topk")},
)
ARCHETYPAL = Table(
    name="archetypal_sae",
    result=dict,
    build=archetypal,
    runs=partial(_main_runs, arm="ra"),
    fields=("seed", "heldout_tokens"),
    copies={"archetypal_sae.safetensors": partial(_sae, arm="ra")},
)
