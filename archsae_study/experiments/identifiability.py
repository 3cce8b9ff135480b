"""Which true atoms are found again: sparse mixtures of a planted dictionary, inside and outside the anchors' hull."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from archsae_core.metrics.intervals import Interval, t_interval
from archsae_core.metrics.matching import cosines, match
from archsae_core.models.anchors import fit_anchors
from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.hull import reach
from archsae_core.models.sae import SAE, load_sae
from archsae_core.models.training import train
from archsae_core.storage import Store, recomputing
from archsae_study.engine.costs import Cost, Unit
from archsae_study.engine.plan import Table
from archsae_study.engine.study import Study
from archsae_study.settings.config import Config, configure

D_MODEL, N_ATOMS, ACTIVE = 24, 24, 2
"""The planted dictionary: complete, so that no two atoms are close, two of them in every sample."""
STEPS, BATCH, SEEDS = 500, 256, 3
FIRST_START = 10**5
"""Seeds of starts begin here. A start with the seed of `plant` would draw the planted atoms."""
RECIPE = 2
"""Raised whenever the code changes what is learned."""
RECOVERED = 0.9
"""An atom counts as found when a feature of its own has at least this cosine with it."""
CASES = {
    "inside": "hull holds every atom: anchors are samples of single atoms",
    "outside": "hull excludes atoms: few anchors, each a mixture of several",
    "centred": "as in the study: centred samples, more anchors than dimensions",
}


class Learner(NamedTuple):
    """One way to learn the dictionary."""

    kind: str
    """`free` or `archetypal`."""
    start: str
    """`random` or `centroids`."""
    label: str
    options: dict[str, Any]
    """Fields of `Config`. Rates of W are the best of a few for it on the case `centred`, not those of the study."""


LEARNERS = (
    Learner("free", "random", "TopK, random start", {}),
    Learner("free", "centroids", "TopK, k-means start", {}),
    Learner("archetypal", "centroids", "RA-SAE, mirror step, δ = 0", {"w_step": "mirror", "w_lr": 0.03, "delta": 0.0}),
    Learner(
        "archetypal", "centroids", "RA-SAE, published step, δ = 0", {"w_step": "published", "w_lr": 1e-3, "delta": 0.0}
    ),
    Learner("archetypal", "centroids", "RA-SAE, mirror step, δ = 1", {"w_step": "mirror", "w_lr": 0.03, "delta": 1.0}),
)


@dataclass(frozen=True)
class Learned:
    """One learner in one case."""

    kind: str
    """`free` or `archetypal`."""
    label: str
    share: Interval
    """Of the planted atoms that were found, over seeds."""
    cosine: float
    """Of a planted atom with the feature matched to it, mean."""


@dataclass(frozen=True)
class Case:
    """All learners on one kind of planted data."""

    key: str
    label: str
    anchors: int
    allowed: Interval
    """Share of the planted atoms that the hull allows at δ = 0."""
    rows: list[Learned]

    def best(self, kind: str) -> float:
        """Largest share that a kind of dictionary finds."""
        return max(row.share.estimate for row in self.rows if row.kind == kind)


@dataclass(frozen=True)
class IdentifiabilityResult:
    """All cases, and their sizes."""

    cases: list[Case]
    seeds: int
    steps: int
    threshold: float
    d_model: int
    atoms: int
    features: int
    active: int

    def of(self, key: str) -> Case:
        """One case."""
        return next(case for case in self.cases if case.key == key)


class Planted(NamedTuple):
    """A planted dictionary with data from it, in units where E‖x‖² = d_model."""

    atoms: Float[Tensor, "n_atoms d_model"]
    mean: Float[Tensor, " d_model"]
    """Subtracted from every sample: 0, so that codes are distances from the origin, or the samples' own mean."""
    scale: float
    anchors: Float[Tensor, "n_anchors d_model"]
    """In normalised units."""

    def samples(self, n: int, seed: int) -> Float[Tensor, "n d_model"]:
        """Raw samples: two random atoms each, with codes between 3 and 4."""
        return _mixtures(self.atoms, n, torch.Generator().manual_seed(seed))


def _mixtures(atoms: Tensor, n: int, generator: torch.Generator) -> Float[Tensor, "n d_model"]:
    chosen = torch.rand(n, len(atoms), generator=generator).topk(ACTIVE, dim=1).indices
    codes = torch.zeros(n, len(atoms)).scatter_(1, chosen, 3 + torch.rand(n, ACTIVE, generator=generator))
    return codes @ atoms


def plant(case: str, seed: int) -> Planted:
    """Atoms, data and anchors of one of `CASES`. Raises KeyError for another name."""
    if case not in CASES:
        raise KeyError(f"case = {case!r}: known are {', '.join(CASES)}")
    generator = torch.Generator().manual_seed(seed)
    atoms = F.normalize(torch.randn(N_ATOMS, D_MODEL, generator=generator), dim=1)
    x = _mixtures(atoms, 4096, generator)
    mean = x.mean(dim=0) if case == "centred" else torch.zeros(D_MODEL)
    scale = float((D_MODEL / (x - mean).square().sum(dim=1).mean()).sqrt())
    if case == "inside":
        points = 3.5 * atoms + 0.1 * torch.randn(N_ATOMS, D_MODEL, generator=generator)
    else:
        count = 4 * D_MODEL if case == "centred" else D_MODEL // 2
        points = fit_anchors(x - mean, count, iterations=20, seed=seed).points
    return Planted(atoms, mean, scale, points * scale)


def learn(planted: Planted, learner: Learner, seed: int, work: Path, steps: int = STEPS) -> SAE:
    """Train on fresh samples; files go to `work`, and a checkpoint found there is continued."""
    given = {"preset": "smoke", "n_features": 2 * N_ATOMS, "n_anchors": len(planted.anchors), "k": ACTIVE}
    config: Config = configure(given | {"lr": 3e-3, "dead_after": 10} | learner.options)
    start = make_dictionary(
        learner.kind,
        learner.start,
        planted.anchors,
        config.dictionary,
        config.training,
        torch.Generator().manual_seed(FIRST_START + seed),
    )
    sae = SAE(start, ACTIVE, planted.mean, planted.scale)
    training = replace(config.training, steps=steps)
    return train(sae, lambda step: planted.samples(BATCH, 10**6 * (seed + 1) + step), training, work)


def recovered(planted: Planted, sae: SAE) -> Float[np.ndarray, " n_atoms"]:
    """Cosine of every planted atom with the feature matched to it (one to one)."""
    similarity = cosines(planted.atoms, sae.atoms().detach())
    pairs = match(similarity)
    found = np.zeros(N_ATOMS)
    found[pairs.rows.numpy()] = similarity[pairs.rows, pairs.cols].numpy()
    return found


def mean_share(values: Sequence[float]) -> Interval:
    """Mean share over seeds with Student's interval, cut to 0 … 1; none for fewer than 3 seeds."""
    mean = float(np.mean(values))
    if len(values) < 3:
        return Interval(mean, None, None)
    _, low, high = t_interval(mean, float(np.var(values, ddof=1)) / len(values), len(values))
    return Interval(mean, max(0.0, low), min(1.0, high))


def _learned(store: Store, case: str, planted: Planted, learner: Learner, seed: int, steps: int) -> SAE:
    recipe = {"case": case, "learner": learner._asdict(), "seed": seed, "steps": steps, "recipe": RECIPE}
    folder = store.artifact("planted", recipe, lambda work: learn(planted, learner, seed, work, steps))
    return load_sae(folder / "sae.safetensors", fix=recomputing(folder))


def planted_table(store: Store, steps: int = STEPS, seeds: int = SEEDS) -> IdentifiabilityResult:
    """Share of planted atoms found, by case and learner, with the share that the hull allows.

    At most `steps` and at most `STEPS` steps. Every seed has a dictionary, data, anchors and a start of its own.
    What is trained is kept in `store`.
    """
    steps = min(steps, STEPS)
    cases = [_case(store, case, label, steps, seeds) for case, label in CASES.items()]
    return IdentifiabilityResult(cases, seeds, steps, RECOVERED, D_MODEL, N_ATOMS, 2 * N_ATOMS, ACTIVE)


def _case(store: Store, case: str, label: str, steps: int, seeds: int) -> Case:
    planted = [plant(case, seed) for seed in range(seeds)]
    allowed = [float((reach(one.atoms, one.anchors).cosine > RECOVERED).double().mean()) for one in planted]
    rows = []
    for learner in LEARNERS:
        saes = [_learned(store, case, one, learner, seed, steps) for seed, one in enumerate(planted)]
        cosine = [recovered(one, sae) for one, sae in zip(planted, saes, strict=True)]
        shares = [float((found > RECOVERED).mean()) for found in cosine]
        rows.append(Learned(learner.kind, learner.label, mean_share(shares), float(np.mean(cosine))))
    return Case(case, label, len(planted[0].anchors), mean_share(allowed), rows)


def build(study: Study) -> IdentifiabilityResult:
    """The planted dictionaries of a study: twice the steps of its shortest runs, and no more seeds than it has."""
    return planted_table(study.store, _steps(study), min(SEEDS, study.config.comparison.n_seeds))


def _steps(study: Study) -> int:
    return min(STEPS, 2 * study.config.comparison.ablation_steps)


def _cost(study: Study) -> Cost:
    """Steps of autoencoders so small that each takes the time of its calls, whatever the machine multiplies."""
    runs = len(CASES) * len(LEARNERS) * min(SEEDS, study.config.comparison.n_seeds)
    return Cost(2**16, 0, ((runs * _steps(study), Unit("planted step", _step_seconds)),))


def _step_seconds() -> float:
    """Time of a step of the slowest learner, among those that a short training takes."""
    steps, planted = 50, plant("centred", 0)
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        learn(planted, LEARNERS[2], 0, Path(folder), steps)
        return (time.perf_counter() - start) / steps


TABLE = Table(
    name="identifiability", result=IdentifiabilityResult, build=build, only=("ablation_steps", "n_seeds"), cost=_cost
)
