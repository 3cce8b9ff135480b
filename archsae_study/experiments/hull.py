"""What the hull of the anchors excludes: a trained free dictionary rewritten inside it (03)."""

from typing import Any

from safetensors.torch import load_file

from archsae_core.metrics import stability
from archsae_core.metrics.reconstruction import document_sums, summarise
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.hull import weights_for
from archsae_study.config import ConfigError
from archsae_study.plan import Table
from archsae_study.runs import Run
from archsae_study.study import Study


def hull(study: Study) -> dict[str, Any]:
    """The trained free dictionary rewritten as an archetypal one with delta = 0: what does the hull exclude?"""
    run = study.main_run("topk")
    sae, stored = study.sae(run), load_file(study.anchor_folder() / "anchor_points.safetensors")
    try:
        weights = weights_for(sae.atoms().detach().cpu(), stored["anchors"], stored["occupancy"])
    except ConfigError as error:
        return {"reason": str(error)}
    inside = ArchetypalDictionary(stored["anchors"], weights.float(), delta=0.0)
    norms = inside.hull_points().norm(dim=1)
    cosine = stability.cosine_with_start(sae.atoms().cpu(), inside.atoms())
    sae.dictionary = inside.to(study.device)
    return {
        "r2_free": study.scores(run).quality.r2,
        "r2_inside": summarise(document_sums(sae, study.scored_batches("heldout"))).r2,
        "cosine": cosine,
        "violation": inside.violation(),
        "norm": float(norms.median()),
        "anchor_norm": float(stored["anchors"].norm(dim=1).median()),
    }


def _runs(study: Study) -> list[tuple[Study, Run]]:
    return [(study, study.main_run("topk"))]


def _all_documents(_: Study) -> list[None]:
    return [None]


TABLE = Table(name="hull", result=dict, build=hull, runs=_runs, folds=_all_documents, fields=("seed", "heldout_tokens"))
