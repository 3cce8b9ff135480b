"""Published claims beside our numbers. † marks a published number known from secondary sources."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from archsae_study.pages.formatting import cell, markdown_table

Tables = Mapping[str, Mapping[str, Any]]
"""The report's tables by name: `activations`, `topk`, `ra`, `evaluation`, `stability`, `reappearance`, `ablation`."""

FEL = "Fel et al. 2025, arXiv 2502.12892"
BRZOZOWSKI = "Brzozowski & Chung 2026, arXiv 2606.02061"
PAULO = "Paulo & Belrose 2025, arXiv 2501.16615"
SONG = "Song et al. 2025, arXiv 2505.20254"
GERASIMOV = "Gerasimov et al. 2026, arXiv 2606.12138"
FROZEN = "arXiv 2602.14111"
GPT2 = "public GPT-2 small residual SAEs, layers 8–9"


ENOUGH_TOKENS = 8 * 10**8
"""A tenth of the smallest budget of Paulo & Belrose, whose features agree less and less with fewer tokens."""


class Claim(NamedTuple):
    """One published claim and what this run says about it."""

    claim: str
    source: str
    published: str
    ours: str
    outcome: str
    """`match`, `partly`, `no`, or `not testable here`."""


def _graded(value: float, match: float, partly: float) -> str:
    """Outcome for a value that should be large."""
    return "match" if value >= match else "partly" if value >= partly else "no"


def _end(tables: Tables, arm: str, score: str, kind: str = "raw", when: str = "end") -> float | None:
    row = tables["stability"]["arms"].get(arm)
    return row[when]["scores"][score][kind]["estimate"] if row else None


def massive_position_0(tables: Tables) -> Claim:
    """Position 0 carries an outlier."""
    train = tables["activations"]["train"]
    ratio = train["position0_norm"] / train["median_norm"]
    published = "norms hundreds of times the median"
    text = "the first position holds a massive activation that must be masked"
    return Claim(
        text, "Sun et al. 2024, arXiv 2402.17762", published, f"{ratio:.0f} × the median", _graded(ratio, 100, 10)
    )


def baseline_variance(tables: Tables) -> Claim:
    """Is the TopK baseline well enough trained?"""
    ours = tables["topk"]["quality"]["r2"]
    text, found = "a TopK baseline explains at least as much variance as public ones", f"{ours:.3f} (of another model)"
    return Claim(text, GPT2, "0.72–0.77", found, _graded(ours, 0.72, 0.67))


def reconstruction_cost(tables: Tables) -> Claim:
    """Fel et al.: the constraint costs almost no reconstruction."""
    ra, free = (tables[arm]["quality"]["r2"] for arm in ("ra", "topk"))
    ours, found = ra - free, f"{ra - free:+z.3f}"
    if "evaluation" in tables:
        ours = ra - tables["evaluation"]["saes"]["topk-kmeans"]["quality"]["r2"]
        found = f"{ours:+z.3f} against TopK from the same centroids ({ra - free:+z.3f} from a random start)"
    published = "−0.002 (0.895 → 0.893, DINOv2†)"
    text = "the archetypal constraint costs almost no R²"
    return Claim(text, FEL, published, found, _graded(ours, -0.01, -0.05))


def loss_recovered(tables: Tables) -> Claim:
    """Is the baseline faithful?"""
    ours = tables["evaluation"]["saes"]["topk"]["behaviour"]["recovered_zero"]
    outcome = "not testable here" if ours is None else _graded(ours, 0.97, 0.9)
    return Claim("CE loss recovered against zero ablation", GPT2, "about 0.98", cell(ours), outcome)


def more_stable(tables: Tables) -> Claim:
    """The headline of the archetypal SAE."""
    ra, topk = _end(tables, "ra", "hungarian"), _end(tables, "topk", "hungarian")
    text = "RA-SAE dictionaries agree far more between seeds than TopK ones"
    if ra is None or topk is None:
        return Claim(text, FEL, "0.542 → 0.927 (DINOv2†)", "arms not run", "not testable here")
    return Claim(text, FEL, "0.542 → 0.927 (DINOv2†)", f"{topk:.3f} → {ra:.3f}", _graded(ra - topk, 0.2, 0.05))


def equal_before_training(tables: Tables) -> Claim:
    """The challenge: agreement is there before the first step."""
    start = _end(tables, "ra", "hungarian", when="start")
    text = "RA-SAE runs are identical before training, since they share anchors and W = identity"
    if start is None:
        return Claim(text, BRZOZOWSKI, "distance 0", "arm not run", "not testable here")
    return Claim(text, BRZOZOWSKI, "distance 0 (cosine 1)", f"cosine {start:.3f}", _graded(start, 0.999, 0.95))


def initialisation_suffices(tables: Tables) -> Claim:
    """The challenge: a free dictionary from the same start is as stable."""
    ra, free = _end(tables, "ra", "hungarian"), _end(tables, "topk-kmeans", "hungarian")
    text = "a TopK SAE started from the same k-means centroids is about as stable as RA-SAE"
    published = "0.924 against 0.913 (DINOv2, n = 2†)"
    if ra is None or free is None:
        return Claim(text, BRZOZOWSKI, published, "arm not run", "not testable here")
    return Claim(text, BRZOZOWSKI, published, f"{free:.3f} against {ra:.3f}", _graded(-abs(free - ra), -0.05, -0.15))


def artefact(tables: Tables) -> Claim:
    """The dispute itself, by the rule fixed in advance."""
    found = tables["stability"]["verdict"]
    ours, published, independent = (found[name] for name in ("verdict", "published_gain", "independent_gain"))
    outcome = {"supported": "no", "explained by shared initialisation": "match"}.get(ours, "not testable here")
    if published and independent:
        if ours == "undetermined" and independent["high"] is not None:
            outcome = "partly" if independent["high"] < published["estimate"] / 2 else outcome
        ours += f"; {independent['estimate']:.3f} of {published['estimate']:.3f} is left without it"
    return Claim("the stability is an artefact of shared initialisation", BRZOZOWSKI, "yes", ours, outcome)


def _of_well_trained(tables: Tables, ours: float, match: float, partly: float) -> tuple[str, str]:
    """What we found and the outcome of a claim about free dictionaries that saw billions of tokens."""
    tokens = tables["stability"]["arms"]["topk"]["budgets"][-1]["tokens"]
    outcome = _graded(ours, match, partly) if tokens >= ENOUGH_TOKENS else "not testable here"
    return f"{ours:.2f} after {tokens / 1e6:.1f} M tokens", outcome


def shared_features(tables: Tables) -> Claim:
    """Agreement of free dictionaries in the language regime."""
    ours = _end(tables, "topk", "shared")
    published = "0.70 (Pythia-160M, 4 k latents, 8 B tokens or more)"
    text = "share of TopK features that two seeds have in common"
    if ours is None:
        return Claim(text, PAULO, published, "arm not run", "not testable here")
    return Claim(text, PAULO, published, *_of_well_trained(tables, ours, 0.6, 0.4))


def pairwise_mcc(tables: Tables) -> Claim:
    """Agreement of well-trained TopK SAEs."""
    ours = _end(tables, "topk", "pw_mcc")
    text = "PW-MCC of well-trained TopK SAEs"
    if ours is None:
        return Claim(text, SONG, "about 0.80", "arm not run", "not testable here")
    return Claim(text, SONG, "about 0.80", *_of_well_trained(tables, ours, 0.75, 0.6))


def reproducible_subspaces(tables: Tables) -> Claim:
    """Features that no other seed finds again: noise, or another basis of the same subspace?"""
    text, published = "TopK features that do not reappear lie in subspaces that do", "yes"
    found = tables["reappearance"]["arms"].get("topk", {}).get("subspace")
    if not found:
        return Claim(text, GERASIMOV, published, "too few such features", "not testable here")
    other, own, data = found["other"]["estimate"], found["own"], found["data"]
    ours = (
        f"{other:.3f} held, by the seed's own {own:.3f}, chance {found['chance']:.3f}, principal components {data:.3f}"
    )
    return Claim(text, GERASIMOV, published, ours, _graded((other - data) / max(own - data, 1e-9), 0.8, 0.4))


def frozen_decoders(tables: Tables) -> Claim:
    """A dictionary that never moves."""
    rows = {row["arm"]: row["r2"] for row in tables["ablation"]["references"]}
    ours = rows["frozen"] - rows["topk"]
    text = "a frozen decoder reconstructs about as well as a trained one"
    return Claim(text, FROZEN, "comparable on many scores", f"R² {ours:+z.3f}", _graded(ours, -0.02, -0.1))


def small_delta(tables: Tables) -> Claim:
    """Fel et al. report a small radius; does one suffice here?"""
    rows = {row["delta"]: row["r2"] for row in tables["ablation"]["rows"]}
    ours = rows[min(rows)] - max(rows.values())
    text = "a small relaxation suffices"
    published = "headline δ = 0.01"
    return Claim(
        text, FEL, published, f"R² {ours:+z.3f} at δ = {min(rows):g} against the best δ", _graded(ours, -0.01, -0.05)
    )


BY_NOTEBOOK: Mapping[str, tuple[Callable[[Tables], Claim], ...]] = {
    "01_anchors": (massive_position_0,),
    "02_standard_sae": (baseline_variance,),
    "03_archetypal_sae": (reconstruction_cost,),
    "04_evaluation": (reconstruction_cost, loss_recovered),
    "05_stability": (
        more_stable,
        equal_before_training,
        initialisation_suffices,
        artefact,
        shared_features,
        pairwise_mcc,
        reproducible_subspaces,
    ),
    "06_delta_ablation": (small_delta, frozen_decoders),
}
"""The claims that each notebook can speak to."""


def table(notebook: str | None, tables: Tables) -> str:
    """Markdown table of the claims of one notebook, or of all of them."""
    wanted = dict.fromkeys(sum(BY_NOTEBOOK.values(), ())) if notebook is None else BY_NOTEBOOK[notebook]
    rows = [[*claim[:4], f"**{claim.outcome}**"] for claim in (test(tables) for test in wanted)]
    return markdown_table(["claim", "source", "published", "this run", "outcome"], rows)
