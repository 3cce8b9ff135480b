"""Notebook 05: every arm over seeds. Do seeds find the same dictionary, and did they move to get there?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from archsae_core.config import FRAMES
from archsae_core.metrics import intervals, stability
from archsae_core.metrics.behaviour import behaviour
from archsae_core.metrics.features import mixtures
from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.reconstruction import document_sums, summarise
from archsae_core.metrics.stability import HEADLINE
from archsae_core.metrics.structure import Collapse, collapse
from archsae_core.models.sae import SAE, Codes
from archsae_core.models.snapshots import snapshot_sae, snapshot_steps, snapshots
from archsae_core.models.training import read_log
from archsae_core.progress import track
from archsae_study.engine.costs import Cost, seed_pairs, spliced, table_cost
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, arm_runs
from archsae_study.engine.study import SCORE_BATCH, Study
from archsae_study.protocol import contrasts, equal_terms
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import ArmOutcome, Decision, Interaction
from archsae_study.protocol.equal_terms import OnEqualTerms, Trajectory
from archsae_study.settings.config import Config

FIRING_TOKENS = 4096
"""Held-out tokens on which matched features' codes are correlated."""
KEPT_TOKENS = 10_000
"""Held-out tokens on which R² is measured along training; `behaviour_tokens`, or a batch, where those are fewer."""


@dataclass(frozen=True)
class Score:
    """One score of every pair of an arm's seeds."""

    raw: list[list[float]]
    """[n_seeds][n_seeds]"""
    chance: float
    """What unrelated dictionaries of the same mean and covariance score."""

    @property
    def normalised(self) -> np.ndarray:
        """`chance_normalised`: 0 for unrelated dictionaries, 1 for equal ones."""
        return stability.chance_normalised(np.array(self.raw), self.chance)

    def interval(self, *, normalised: bool = True) -> Interval:
        """Mean over pairs with its interval over seeds."""
        return intervals.seed_interval(self.normalised if normalised else np.array(self.raw))


@dataclass(frozen=True)
class AtStep:
    """An arm at one kept training step."""

    step: int
    tokens: int
    r2: list[float]
    """Held-out R² of each seed, on `kept_tokens` tokens, of the model as it was kept (bfloat16)."""
    cosine_with_start: list[float]
    """Mean cosine of each seed's atoms with where they started: 1 has not moved."""
    stability: list[list[float]]
    """Headline score of every pair of seeds, chance-normalised."""


@dataclass(frozen=True)
class ArmResult:
    """One arm. Lists have one entry a seed."""

    arm: str
    seeds: list[int]
    r2: list[float]
    mse: list[float]
    mse_normalised: list[float]
    l0: list[float]
    """Mean number of active codes of a token: below k where some tokens have fewer positive codes."""
    dead_share: list[float]
    ce_recovered: list[float] | None
    """Share of the CE loss of mean ablation that the reconstruction recovers; only of arms that a contrast names."""
    cosine_with_start: list[float]
    effective_anchors: list[float] | None
    """exp of the entropy of a row of W, median over atoms."""
    relaxation_share: list[float] | None
    """‖Λ_i‖ / (‖W_i C‖ + ‖Λ_i‖), median over atoms: how much of an atom is not of the hull."""
    collapse: Collapse
    """Of the first seed."""
    collapse_corrected: list[list[float]]
    """Headline score once duplicates within a dictionary count once."""
    start: dict[str, Score]
    end: dict[str, Score]
    trajectory: list[AtStep]

    def outcome(self, metric: str = HEADLINE, *, normalised: bool = True) -> ArmOutcome:
        """What the contrasts need of the arm, in one score."""
        score = self.end[metric]
        return ArmOutcome(
            seeds=tuple(self.seeds),
            stability=score.normalised if normalised else np.array(score.raw),
            r2=tuple(self.r2),
            cosine_with_start=tuple(self.cosine_with_start),
            ce_recovered=None if self.ce_recovered is None else tuple(self.ce_recovered),
        )

    def path(self) -> Trajectory:
        """The arm along training."""
        kept = (
            equal_terms.Kept(at.step, tuple(at.r2), tuple(at.cosine_with_start), np.array(at.stability))
            for at in self.trajectory
        )
        return Trajectory(tuple(self.seeds), tuple(kept))


@dataclass(frozen=True)
class BetweenArms:
    """Agreement of one arm's dictionary with another's, of different seeds."""

    first: str
    second: str
    score: float
    """Headline score, chance-normalised: seed 0 of the first arm with seed 1 of the second."""


@dataclass(frozen=True)
class StabilityResult:
    """Every arm of the comparison, and how arms agree with each other."""

    arms: list[ArmResult]
    between: list[BetweenArms]

    def by_key(self) -> dict[str, ArmResult]:
        """The arms by their keys."""
        return {arm.arm: arm for arm in self.arms}

    def decisions(self, metric: str = HEADLINE, *, normalised: bool = True) -> list[Decision]:
        """What the rule says of each primary contrast, in one score."""
        outcomes = {arm.arm: arm.outcome(metric, normalised=normalised) for arm in self.arms if len(arm.seeds) > 1}
        return [contrasts.decide(contrast, outcomes) for contrast in contrasts.PRIMARY]

    def interactions(self) -> dict[str, Interaction]:
        """The 2 × 2 of start and dictionary, by the key of its square, where its arms were run."""
        outcomes = {arm.arm: arm.outcome() for arm in self.arms if len(arm.seeds) > 1}
        found = {square.key: contrasts.interaction(square, outcomes) for square in contrasts.SQUARES}
        return {key: value for key, value in found.items() if value is not None}

    def on_equal_terms(self) -> dict[str, dict[str, OnEqualTerms | None]]:
        """Each primary contrast where both arms reconstruct equally well, and where both have moved equally far."""
        paths = {arm.arm: arm.path() for arm in self.arms if len(arm.seeds) > 1}
        return {
            contrast.key: equal_terms.equal_terms(paths, contrast.ra, contrast.free) for contrast in contrasts.PRIMARY
        }


def runs(config: Config) -> list[Run]:
    """Every run of the comparison of arms."""
    return [run for arm in config.comparison.arms for run in arm_runs(config, arm)]


def build(study: Study) -> StabilityResult:
    """Compare the seeds of every arm, and the arms of each frame with each other."""
    config = study.config
    study.run_folders(runs(config))
    recovered = ce_recovered(study, _of_contrasts(config))
    arms = [
        arm_result(study, arm_runs(config, arm), recovered)
        for arm in track(config.comparison.arms, "stability", unit="arm")
    ]
    return StabilityResult(arms, between_arms(study))


def _of_contrasts(config: Config) -> list[Run]:
    named = {arm for contrast in contrasts.PRIMARY for arm in (contrast.ra, contrast.free)}
    return [run for arm in config.comparison.arms if arm in named for run in arm_runs(config, arm)]


def ce_recovered(study: Study, compared: Sequence[Run]) -> dict[Run, float]:
    """CE loss recovered against mean ablation by each run's reconstruction, on a quarter of `behaviour_tokens`.

    Empty where mean ablation does no harm, so that nothing can be recovered.
    """
    if not compared:
        return {}
    spliced = behaviour(
        study.model,
        study.config.language_model.layer,
        study.tokens.heldout,
        {str(run): study.sae(run) for run in compared},
        study.normalizer.mean,
        max_tokens=max(1, study.config.comparison.behaviour_tokens // 4),
        max_norm=study.train_activations.threshold,
    )
    found = {run: spliced["arms"][str(run)]["recovered_mean"] for run in compared}
    return {} if None in found.values() else found


def arm_result(study: Study, of_arm: Sequence[Run], recovered: Mapping[Run, float]) -> ArmResult:
    """All that is said of one arm."""
    folders = [study.run_folder(run) for run in of_arm]
    kept = [snapshots(folder, run.steps) for folder, run in zip(folders, of_arm, strict=True)]
    quality = [study.scores(run).quality for run in of_arm]
    atoms, steps = [found[of_arm[0].steps] for found in kept], list(kept[0])
    effective = [read_log(folder)[-1].get("effective_anchors") for folder in folders]
    return ArmResult(
        arm=of_arm[0].arm,
        seeds=[run.seed for run in of_arm],
        **{name: [getattr(q, name) for q in quality] for name in ("r2", "mse", "mse_normalised", "l0", "dead_share")},
        ce_recovered=[recovered[run] for run in of_arm] if set(of_arm) <= recovered.keys() else None,
        cosine_with_start=[stability.cosine_with_start(found[0], end) for found, end in zip(kept, atoms, strict=True)],
        effective_anchors=None if None in effective else effective,
        relaxation_share=None if None in effective else [_relaxation_share(study.sae(run)) for run in of_arm],
        collapse=collapse(atoms[0]),
        collapse_corrected=_pairwise(atoms, lambda a, b: stability.collapse_corrected(a, b).normalised),
        start=scores([stability.Side(found[0]) for found in kept]),
        end=scores([_side(study, run) for run in of_arm]),
        trajectory=[at_step(study, of_arm, folders, kept, step) for step in steps],
    )


def _relaxation_share(sae: SAE) -> float:
    return float(1 - mixtures(sae, top=1).hull_share.median())


def _pairwise(items: Sequence, score) -> list[list[float]]:
    pairs = {(i, j): score(items[i], items[j]) for i, j in combinations(range(len(items)), 2)}
    return intervals.pair_matrix(pairs, len(items)).tolist()


def headline_matrix(atoms: Sequence[Tensor]) -> list[list[float]]:
    """Headline score of every pair of dictionaries, less the chance level of the first pair."""
    if len(atoms) < 2:
        return [[0.0]]
    unrelated = [stability.unrelated(stability.Side(found), seed).atoms for seed, found in enumerate(atoms[:2])]
    chance = stability.hungarian_centred(*unrelated)
    return _pairwise(atoms, lambda a, b: stability.chance_normalised(stability.hungarian_centred(a, b), chance))


def kept_tokens(config: Config) -> int:
    """Held-out tokens on which R² is measured along training."""
    return min(KEPT_TOKENS, max(SCORE_BATCH, config.comparison.behaviour_tokens))


def at_step(
    study: Study, of_arm: Sequence[Run], folders: Sequence[Path], kept: Sequence[Mapping[int, Tensor]], step: int
) -> AtStep:
    """An arm at one kept step; `kept` holds the snapshots of each run."""
    own, tokens = study.of(of_arm[0]), kept_tokens(study.config)
    saes = (kept_sae(study, run, folder, step) for run, folder in zip(of_arm, folders, strict=True))
    return AtStep(
        step=step,
        tokens=step * own.config.training.batch_size,
        r2=[summarise(document_sums(sae, own.scored_batches("heldout", tokens))).r2 for sae in saes],
        cosine_with_start=[stability.cosine_with_start(found[0], found[step]) for found in kept],
        stability=headline_matrix([found[step] for found in kept]),
    )


def kept_sae(study: Study, run: Run, folder: Path, step: int) -> SAE:
    """The autoencoder of a run as it was at a kept step."""
    own = study.of(run)
    return snapshot_sae(folder, step, own.config.dictionary.k, own.normalizer).to(own.device)


def _side(study: Study, run: Run) -> stability.Side:
    sae = study.sae(run)
    return stability.side(sae, study.alive(run), firing_codes(study.of(run), sae))


def firing_codes(study: Study, sae: SAE) -> Codes:
    """Codes of the first held-out tokens, the same for every dictionary."""
    heldout = study.heldout_activations
    return sae.encode(heldout.gather(torch.as_tensor(heldout.kept)[:FIRING_TOKENS]))


def scores(sides: Sequence[stability.Side]) -> dict[str, Score]:
    """Every score of every pair of an arm's dictionaries; none of a single one."""
    if len(sides) < 2:
        return {}
    chance = stability.chance_levels(sides[0], sides[1])
    pairs = list(combinations(range(len(sides)), 2))
    found = {pair: stability.scores(sides[pair[0]], sides[pair[1]]) for pair in pairs}
    return {
        name: Score(
            intervals.pair_matrix({pair: found[pair][name] for pair in pairs}, len(sides)).tolist(), chance[name]
        )
        for name in chance
    }


def between_arms(study: Study) -> list[BetweenArms]:
    """Do free and archetypal dictionaries find the same features? Every two arms of a frame, an arm with itself too."""
    config, found = study.config, []
    for frame in FRAMES:
        arms = [arm for arm in config.comparison.arms if ARMS[arm].frame == frame and len(arm_runs(config, arm)) > 1]
        atoms = {arm: [study.sae(run).atoms().detach().cpu() for run in arm_runs(config, arm)[:2]] for arm in arms}
        found += [
            BetweenArms(first, second, headline_matrix([atoms[first][0], atoms[second][1]])[0][1])
            for i, first in enumerate(arms)
            for second in arms[i:]
        ]
    return found


def _cost(study: Study) -> Cost:
    """Every score at the start and the end, the headline at each kept step, chance levels, and arms with each other.

    All scores of a pair take the time of three matchings, with their chance levels of another three.
    """
    needed, config = runs(study.config), study.config
    kept = len(snapshot_steps(config.training.steps))
    several = [arm for arm in config.comparison.arms if len(arm_runs(config, arm)) > 1]
    counts = [sum(ARMS[arm].frame == frame for arm in several) for frame in FRAMES]
    between = sum(count * (count + 1) // 2 for count in counts)
    return table_cost(
        study,
        matchings=seed_pairs(needed) * (9 + kept) + len(several) * (9 + 2 * kept) + 3 * between,
        scored=len(needed) * kept * kept_tokens(config),
        model_tokens=spliced(study, config.comparison.behaviour_tokens // 4, len(_of_contrasts(config)) + 3),
        memory=6 * 4 * config.dictionary.n_features**2,  # cosines of a pair: raw, centred, absolute, alive, encoder
    )


TABLE = Table(
    name="stability",
    result=StabilityResult,
    build=build,
    runs=lambda study: runs(study.config),
    fields=("arms", "n_seeds", "behaviour_tokens", "heldout_tokens"),
    file="stability_results.json",
    cost=_cost,
)
