"""Notebook 03: ways to move W, compared by R² on the validation documents, never by stability."""

from dataclasses import dataclass
from typing import Any

from archsae_core.config import FRAMES
from archsae_core.models.training import read_log
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run, cosines_with_start
from archsae_study.engine.study import Study
from archsae_study.protocol.arms import CHOSEN, PUBLISHED, main_arms
from archsae_study.settings.config import Config

STEPS = 500
"""Steps of a trial at most; fewer where the sweep over radii has fewer."""


@dataclass(frozen=True)
class Way:
    """One way to move W."""

    key: str
    label: str
    role: str
    """Of `main_arms`: the archetypal dictionary, or the free one from the same start to compare it with."""
    settings: dict[str, Any]
    """Parameters, by flat name."""


def _mirror(rate: float, smoothing: float, **more: Any) -> Way:
    key = f"mirror-{rate:g}-{smoothing:g}" + "".join(f"-{name}" for name in more)
    label = f"mirror, rate {rate:g}, smoothing {smoothing:g}" + ", free norms" * ("unit_norm" in more)
    return Way(key, label, "ra", {"w_step": "mirror", "w_lr": rate, "smoothing": smoothing} | more)


def _adam(rate: float | None, label: str, **more: Any) -> Way:
    return Way(f"adam-{rate or 'lr'}{'-unit' * bool(more)}", label, "ra", dict(PUBLISHED) | {"w_lr": rate} | more)


FREE_NORMS: dict[str, Any] = {"unit_norm": False, "learn_scale": True}
WAYS: tuple[Way, ...] = (
    _mirror(3e-3, 0.99), _mirror(3e-3, 0.9), _mirror(3e-3, 0.5), _mirror(3e-3, 0.1), _mirror(1e-2, 0.9),
    _mirror(1e-2, 0.1), _mirror(3e-3, 0.1, **FREE_NORMS),
    _adam(None, "Adam, published rate"), _adam(1e-5, "Adam, rate 1e-5"), _adam(1e-6, "Adam, rate 1e-6"),
    _adam(1e-6, "Adam, rate 1e-6, unit norms", unit_norm=True),
    Way("free", "no constraint, from the same centroids", "topk-kmeans", {}),
)  # fmt: skip
"""The grid goes past the setting in use on every side."""


@dataclass(frozen=True)
class Trial:
    """One way to move W in one frame."""

    way: str
    label: str
    frame: str
    r2_validation: float
    r2_heldout: float
    dead_share: float
    cosine_with_start: float
    effective_anchors: float | None
    relax_at_bound: float | None


@dataclass(frozen=True)
class WStepsResult:
    """Every trial of both frames."""

    steps: int
    trials: list[Trial]

    def of(self, frame: str) -> list[Trial]:
        """Trials of a frame, the best reconstruction first."""
        return sorted((trial for trial in self.trials if trial.frame == frame), key=lambda one: -one.r2_validation)

    def best(self, frame: str) -> Trial:
        """The constrained way with the largest R² on the validation documents."""
        return next(trial for trial in self.of(frame) if trial.way != "free")

    def in_use(self, frame: str) -> Trial:
        """The way that the arms of this frame use (`arms.CHOSEN`)."""
        key = next(way.key for way in WAYS if way.settings == dict(CHOSEN[frame]))
        return next(trial for trial in self.trials if (trial.frame, trial.way) == (frame, key))


def steps_of(config: Config) -> int:
    """Steps of a trial."""
    return min(STEPS, config.comparison.ablation_steps)


def run_of(config: Config, frame: str, way: Way) -> Run:
    """The run of one trial."""
    return Run(main_arms(frame)[way.role], 0, steps_of(config), tuple(way.settings.items()))


def runs(config: Config) -> list[Run]:
    """Every trial."""
    return [run_of(config, frame, way) for frame in FRAMES for way in WAYS]


def build(study: Study) -> WStepsResult:
    """Train and score every trial."""
    study.run_folders(runs(study.config))
    return WStepsResult(steps_of(study.config), [_trial(study, frame, way) for frame in FRAMES for way in WAYS])


def _trial(study: Study, frame: str, way: Way) -> Trial:
    run = run_of(study.config, frame, way)
    folder = study.run_folder(run)
    last = read_log(folder)[-1]
    validation = study.scores(run, "validation").quality
    return Trial(
        way=way.key,
        label=way.label,
        frame=frame,
        r2_validation=validation.r2,
        r2_heldout=study.scores(run).quality.r2,
        dead_share=validation.dead_share,
        cosine_with_start=cosines_with_start(folder, run.steps)[run.steps],
        effective_anchors=last.get("effective_anchors"),
        relax_at_bound=last.get("relax_at_bound"),
    )


TABLE = Table(
    name="w_steps",
    result=WStepsResult,
    build=build,
    runs=lambda study: runs(study.config),
    parts=("heldout", "validation"),
    fields=("ablation_steps", "heldout_tokens", "seed"),
)
