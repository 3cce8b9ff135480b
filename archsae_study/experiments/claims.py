"""Published claims beside this run's numbers, each judged once, by a rule that is the same in every notebook.

† marks a published number that is known from secondary sources. A claim about another model, or about dictionaries that
saw far more tokens, is *not comparable*: its number is shown and not judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from archsae_core.metrics.stability import HEADLINE
from archsae_core.metrics.subspaces import Subspaces
from archsae_study.experiments.ablation import AblationResult
from archsae_study.experiments.activations import ActivationsResult
from archsae_study.experiments.dictionaries import BindingResult, DictionaryResult
from archsae_study.experiments.evaluation import EvaluationResult
from archsae_study.experiments.reappearance import ReappearanceResult
from archsae_study.experiments.stability import StabilityResult
from archsae_study.experiments.task_probes import RAW, TaskProbesResult
from archsae_study.formatting import signed
from archsae_study.protocol.arms import sweep_references
from archsae_study.protocol.contrasts import UNMOVED, Verdict

FEL = "Fel et al. 2025, arXiv 2502.12892"
BRZOZOWSKI = "Brzozowski & Chung 2026, arXiv 2606.02061"
PAULO = "Paulo & Belrose 2025, arXiv 2501.16615"
SONG = "Song et al. 2025, arXiv 2505.20254"
KANTAMNENI = "Kantamneni et al. 2025, arXiv 2502.16681"
GERASIMOV = "Gerasimov et al. 2026, arXiv 2606.12138"
FROZEN = "arXiv 2602.14111"
CHESS = "sam-kapusta/chess-deck-research, self-published"
SUN = "Sun et al. 2024, arXiv 2402.17762"


class Outcome(StrEnum):
    """What this run says of a claim."""

    MATCH = "match"
    PARTLY = "partly"
    NO = "no"
    OPEN = "undetermined"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"
    STILL = "the atoms did not move"
    OWN = "nothing published to compare with"


@dataclass(frozen=True)
class Results:
    """The results that claims are judged by; None where a notebook has not read one."""

    activations: ActivationsResult | None = None
    standard: DictionaryResult | None = None
    binding: BindingResult | None = None
    evaluation: EvaluationResult | None = None
    stability: StabilityResult | None = None
    reappearance: ReappearanceResult | None = None
    ablation: AblationResult | None = None
    task_probes: TaskProbesResult | None = None


NOT_REPORTED = "not reported"
"""What is published of a claim that follows from the published ones, and that nobody has put a number to."""


@dataclass(frozen=True)
class Claim:
    """One published claim."""

    claim: str
    source: str
    published: str
    notebooks: tuple[str, ...]
    """Where it is judged; the table of notebook 07 has all."""
    judge: Callable[[Results], tuple[str, Outcome]]
    """What this run found, and what that says of the claim."""

    def judged(self, results: Results) -> tuple[str, Outcome]:
        """The same; where nobody has published a number, there is nothing that one could match."""
        ours, outcome = self.judge(results)
        graded = outcome in (Outcome.MATCH, Outcome.PARTLY, Outcome.NO)
        return ours, Outcome.OWN if graded and self.published == NOT_REPORTED else outcome


def graded(value: float, match: float, partly: float) -> Outcome:
    """Outcome for a value that should be large."""
    return Outcome.MATCH if value >= match else Outcome.PARTLY if value >= partly else Outcome.NO


NOT_RUN = ("not run", Outcome.NOT_RUN)
BASELINE = 0.2
"""A baseline further than this below the published one is another comparison: its gap to RA-SAE may be its own."""


def _arm(results: Results, arm: str, metric: str = HEADLINE, *, start: bool = False, raw: bool = True) -> float | None:
    if results.stability is None:
        return None
    found = results.stability.by_key().get(arm)
    if found is None or len(found.seeds) < 2:
        return None
    score = (found.start if start else found.end).get(metric)
    return None if score is None else score.interval(normalised=not raw).estimate


def _position_0(results: Results) -> tuple[str, Outcome]:
    if results.activations is None:
        return NOT_RUN
    train = results.activations.train
    ratio = train["position0_norm"] / train["median_norm"]
    return f"{ratio:.0f} × the median", graded(ratio, 100.0, 10.0)


def _baseline(results: Results) -> tuple[str, Outcome]:
    if results.standard is None:
        return NOT_RUN
    return f"{results.standard.quality['r2']:.3f}, of another model", Outcome.NOT_COMPARABLE


def _cost(frame: str) -> Callable[[Results], tuple[str, Outcome]]:
    def judge(results: Results) -> tuple[str, Outcome]:
        if results.evaluation is None:
            return NOT_RUN
        ra, free = (results.evaluation.of(role, frame).quality["r2"] for role in ("ra", "topk-kmeans"))
        ours = f"{signed(float(ra - free))} against TopK from the same centroids, one seed"
        return ours, graded(ra - free, -0.01, -0.05)

    return judge


def _cost_as_published(results: Results) -> tuple[str, Outcome]:
    found = None if results.stability is None else results.stability.decisions()
    decision = None if found is None else next((one for one in found if one.contrast.key == "g2"), None)
    if decision is None or decision.delta_r2 is None:
        return NOT_RUN
    return f"{signed(decision.delta_r2)} against TopK from the same centroids", graded(
        decision.delta_r2.estimate, -0.01, -0.05
    )


def _from_own_anchors(results: Results) -> tuple[str, Outcome]:
    """Beside the two steps from random starts: own centroids as a start, then the constraint."""
    arms = ("raw-topk-random-own", "raw-topk-kmeans-own", "raw-ra-published-own")
    scores = [_arm(results, arm, raw=False) for arm in arms]
    if None in scores:
        return NOT_RUN
    ours = "less chance {:.3f} (TopK, random) → {:.3f} (TopK, own centroids) → {:.3f} (RA-SAE)".format(*scores)
    g2 = next(one for one in results.stability.decisions() if one.contrast.key == "g2")
    if g2.ra_cosine is not None and g2.ra_cosine.estimate >= UNMOVED:
        return (
            f"{ours}; RA-SAE's atoms keep a cosine of {g2.ra_cosine.estimate:.3f} with their start",
            Outcome.STILL,
        )
    return ours, graded(scores[2] - scores[1], 0.2, 0.05)


def _more_stable(ra: str, topk: str, published: float | None = None) -> Callable[[Results], tuple[str, Outcome]]:
    """Judged less chance, which differs between dictionaries; a baseline far below a published one leaves it partly."""

    def judge(results: Results) -> tuple[str, Outcome]:
        gains = [_arm(results, arm, raw=False) for arm in (topk, ra)]
        cosines = [_arm(results, arm, "hungarian") for arm in (topk, ra)]
        if None in gains or None in cosines:
            return NOT_RUN
        ours = "less chance {:.3f} → {:.3f} (cosine {:.3f} → {:.3f})".format(*gains, *cosines)
        outcome = graded(gains[1] - gains[0], 0.2, 0.05)
        if published is not None and cosines[0] < published - BASELINE and outcome is Outcome.MATCH:
            return f"{ours}; the baseline is short of training: {published} as published", Outcome.PARTLY
        return ours, outcome

    return judge


def _before_training(results: Results) -> tuple[str, Outcome]:
    start = _arm(results, "raw-ra-published-shared", "hungarian", start=True)
    return NOT_RUN if start is None else (f"cosine {start:.3f}", graded(start, 0.999, 0.95))


def _start_suffices(results: Results) -> tuple[str, Outcome]:
    ra, free = (
        _arm(results, "raw-ra-published-shared", "hungarian"),
        _arm(results, "raw-topk-kmeans-shared", "hungarian"),
    )
    if ra is None or free is None:
        return NOT_RUN
    return f"cosine {free:.3f} against {ra:.3f}", graded(-abs(free - ra), -0.05, -0.15)


def _artefact(results: Results) -> tuple[str, Outcome]:
    if results.stability is None:
        return NOT_RUN
    decisions = [one for one in results.stability.decisions() if one.gain is not None]
    if not decisions:
        return NOT_RUN
    said = "; ".join(f"{one.contrast.key} {one.verdict}" for one in decisions)
    verdicts = {one.verdict for one in decisions} - {Verdict.UNDETERMINED}
    if not verdicts:
        return said, Outcome.OPEN
    if verdicts & {Verdict.SUPPORTED, Verdict.AT_A_COST}:
        return said, Outcome.NO
    # runs that agree as the centroids do show it; runs that agree no more than free ones are merely consistent with it
    return (said, Outcome.MATCH) if verdicts == {Verdict.FROZEN} else (f"consistent with it: {said}", Outcome.PARTLY)


def _any_shared_start(results: Results) -> tuple[str, Outcome]:
    own, shared = _arm(results, "topk-random-own", "greedy"), _arm(results, "topk-random-shared", "greedy")
    if own is None or shared is None:
        return NOT_RUN
    return f"greedy cosine {own:.2f} → {shared:.2f} by sharing a random start", graded(shared - own, 0.4, 0.1)


def _of_tokens(metric: str) -> Callable[[Results], tuple[str, Outcome]]:
    def judge(results: Results) -> tuple[str, Outcome]:
        ours = _arm(results, "topk-random-own", metric)
        if ours is None:
            return NOT_RUN
        tokens = results.stability.by_key()["topk-random-own"].trajectory[-1].tokens
        return f"{ours:.2f} after {tokens / 1e6:.1f} M tokens", Outcome.NOT_COMPARABLE

    return judge


def _subspaces(results: Results) -> tuple[str, Outcome]:
    """Graded in every arm alike; the claim is about all features, so that one arm alone makes it partly."""
    rows = [] if results.reappearance is None else [row for row in results.reappearance.rows if row.subspace]
    if not rows:
        return "too few such features", Outcome.NOT_RUN
    shares = [_held(row.subspace) for row in rows]
    grades = {graded(share, 0.8, 0.4) for share in shares}
    ours = (
        f"of what the own subspace holds beyond principal components, another seed's holds {min(shares):.0%} to "
        f"{max(shares):.0%} in {len(rows)} arms (a match from 80 %)"
    )
    return ours, grades.pop() if len(grades) == 1 else Outcome.PARTLY


def _held(found: Subspaces) -> float:
    return (found.other.estimate - found.data) / max(found.own - found.data, 1e-9)


def _frozen(results: Results) -> tuple[str, Outcome]:
    if results.ablation is None:
        return NOT_RUN
    rows = {row.arm: row.mean("r2") for row in results.ablation.sweep("centred").references}
    free, frozen = sweep_references("centred")
    if None in rows.values() or not {free, frozen} <= rows.keys():
        return NOT_RUN
    ours = rows[frozen] - rows[free]
    return f"centred: R² {signed(ours)} against TopK from the same centroids", graded(ours, -0.02, -0.1)


def _small_delta(results: Results) -> tuple[str, Outcome]:
    if results.ablation is None:
        return NOT_RUN
    sweep = results.ablation.sweep("raw")
    rows = [(row.relative, row.mean("r2")) for row in sweep.rows if row.mean("r2") is not None]
    if not rows:
        return NOT_RUN
    at, r2 = min(rows, key=lambda pair: abs(pair[0] - 0.01))
    best = float(np.max([value for _, value in rows]))
    return f"raw: R² {signed(r2 - best)} at {at:.1%} of ‖C‖ against the best radius", graded(r2 - best, -0.01, -0.05)


def _binds(results: Results) -> tuple[str, Outcome]:
    if results.binding is None:
        return NOT_RUN
    medians = {frame: results.binding.of(frame).reaches[0].cosine["0.5"] for frame in ("centred", "raw")}
    others = "".join(f" ({one.cosine['0.5']:.2f} {one.label})" for one in results.binding.of("raw").reaches[1:])
    said = (
        "median cosine of a free atom with the hull's cone: "
        f"{medians['raw']:.2f} raw{others}, the published frame, which decides; {medians['centred']:.2f} centred"
    )
    return said, graded(medians["raw"], 0.95, 0.8)


def _regression_wins(results: Results) -> tuple[str, Outcome]:
    probes = results.task_probes
    found = None if probes is None or probes.made_up else (probes.of(RAW), probes.of("topk-kmeans-own"))
    if found is None or None in found:
        return NOT_RUN
    raw, topk = (np.array(row.auc[size]).mean(axis=1) for row, size in zip(found, ("all", "16"), strict=True))
    wins = float((raw > topk).mean())
    return f"in {wins:.0%} of {len(raw)} tasks against 16 TopK features", graded(wins, 0.75, 0.5)


CLAIMS: tuple[Claim, ...] = (
    Claim("the first position holds a massive activation that must be masked", SUN, "hundreds of times the median",
          ("01_anchors",), _position_0),
    Claim("a TopK baseline explains this much variance", "public GPT-2 small residual SAEs, layers 8–9", "0.72–0.77",
          ("02_standard_sae",), _baseline),
    Claim("the hull of the data holds the features that a free dictionary learns", FEL, "assumed",
          ("03_archetypal_sae",), _binds),
    Claim("the constraint costs almost no R² (raw, published step)", FEL, "−0.002 (0.895 → 0.893, DINOv2†)",
          ("05_stability",), _cost_as_published),
    Claim("the constraint costs almost no R² with the step chosen for W (raw)", FEL, NOT_REPORTED, ("04_evaluation",),
          _cost("raw")),
    Claim("the constraint costs almost no R² with the step chosen for W (centred)", FEL, NOT_REPORTED,
          ("04_evaluation",), _cost("centred")),
    Claim("RA-SAE agrees far more between runs than TopK (shared anchors, raw, published step)", FEL,
          "0.542 → 0.927 (DINOv2†)", ("05_stability",),
          _more_stable("raw-ra-published-shared", "raw-topk-random-own", 0.542)),
    Claim("RA-SAE agrees far more when each run has anchors of its own (raw, published step)", FEL, NOT_REPORTED,
          ("05_stability",), _from_own_anchors),
    Claim("runs of RA-SAE are identical before training", BRZOZOWSKI, "distance 0 (cosine 1)", ("05_stability",),
          _before_training),
    Claim("TopK from the same shared centroids is about as stable as RA-SAE", BRZOZOWSKI,
          "0.924 against 0.913 (DINOv2, n = 2†)", ("05_stability",), _start_suffices),
    Claim("the stability is an artefact of the start", BRZOZOWSKI, "yes", ("05_stability",), _artefact),
    Claim("sharing any start suffices, a random one too", CHESS, "0.41 → 0.95 (greedy)", ("05_stability",),
          _any_shared_start),
    Claim("share of TopK features that two runs have in common", PAULO, "0.70 (4 k latents, ≥ 8 B tokens)",
          ("05_stability",), _of_tokens("shared")),
    Claim("PW-MCC of well-trained TopK SAEs", SONG, "about 0.80", ("05_stability",), _of_tokens("pw_mcc")),
    Claim("features that do not come back lie in subspaces that do", GERASIMOV, "yes", ("05_stability",), _subspaces),
    Claim("a small radius suffices", FEL, "headline δ = 0.01", ("06_delta_ablation",), _small_delta),
    Claim("a frozen decoder reconstructs about as well as a trained one", FROZEN, "comparable on many scores",
          ("06_delta_ablation",), _frozen),
    Claim("a regression on raw activations beats sparse probes on SAE features", KANTAMNENI, "on most tasks",
          ("07_features",), _regression_wins),
)  # fmt: skip
