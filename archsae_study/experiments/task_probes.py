"""Notebook 07: sparse probes of binary tasks, of every arm and with baselines. Which features read better?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from archsae_core.data.last_tokens import LabelledActivations, TaskActivations
from archsae_core.metrics.intervals import Interval, crossed_interval
from archsae_core.metrics.task_probes import regression_auc, sparse_probe_auc
from archsae_core.models.sae import SAE
from archsae_core.progress import track
from archsae_study.engine.costs import Cost, encoding, probe_fit, probe_prompts, probed_tasks
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import arm_runs
from archsae_study.engine.study import Study
from archsae_study.experiments.probing import baselines, needed
from archsae_study.protocol import contrasts
from archsae_study.protocol.arms import ARMS
from archsae_study.protocol.contrasts import ProbeDecision, ProbeOutcome

SIZES = (1, 5, 16)
"""Features a probe may use."""
HEADLINE_SIZE = 5
"""Of the primary contrasts."""
RAW = "raw activations"
"""Key of the regression on all coordinates of the residual stream."""


@dataclass(frozen=True)
class ProbedTask:
    """What was asked, of how many prompts."""

    name: str
    classes: tuple[str, str]
    train: int
    test: int
    leaked: int
    """Test prompts left out since they are training prompts too."""
    unread: int
    """Prompts left out since their last token is at position 0, or its activation is an outlier."""


@dataclass(frozen=True)
class TaskProbeRow:
    """One arm, or one baseline."""

    key: str
    """Of an arm, or `RAW`, or the label of another baseline."""
    label: str
    seeds: tuple[int, ...]
    """Of an arm; a baseline has seed 0 alone."""
    auc: dict[str, list[list[float]]]
    """Test AUROC of each task and seed, by the number of features, `all` where there is no limit."""

    @property
    def trained(self) -> bool:
        """Whether it is an arm."""
        return self.key in ARMS

    def mean(self, size: str) -> Interval:
        """Mean AUROC over tasks and seeds, both taken as drawn at random."""
        return crossed_interval(np.array(self.auc[size]))


@dataclass(frozen=True)
class TaskProbesResult:
    """Probes of every task, or why there are none."""

    reason: str
    """Empty where there are."""
    made_up: bool = False
    """The prompts are those of the synthetic text, which no package has published."""
    tasks: tuple[ProbedTask, ...] = ()
    dropped: tuple[str, ...] = ()
    """Tasks of which a part has prompts of one class only."""
    rows: tuple[TaskProbeRow, ...] = ()

    def of(self, key: str) -> TaskProbeRow | None:
        """Row of an arm or a baseline."""
        return next((row for row in self.rows if row.key == key), None)

    def decisions(self, size: int = HEADLINE_SIZE) -> list[ProbeDecision]:
        """What the rule for interpretability says of each primary contrast."""
        names = tuple(task.name for task in self.tasks)
        arms = [row for row in self.rows if row.trained]
        outcomes = {row.key: ProbeOutcome(names, row.seeds, np.array(row.auc[str(size)])) for row in arms}
        return [contrasts.decide_probes(contrast, outcomes) for contrast in contrasts.PRIMARY]


def build(study: Study) -> TaskProbesResult:
    """Probe every arm over its seeds, and the baselines."""
    if study.config.comparison.probe_tasks == 0:
        return TaskProbesResult("probe_tasks is 0")
    found = study.task_activations()
    tasks = [task for task in found if _has_both(task.train) and _has_both(task.test)]
    if not tasks:
        return TaskProbesResult("no task has prompts of both classes")
    rows = []
    for arm in track(study.config.comparison.arms, "task probes", unit="arm"):
        runs = arm_runs(study.config, arm)
        scores = [probe(study.sae(run), tasks) for run in runs]
        rows.append(_row(arm, ARMS[arm].title, [run.seed for run in runs], scores))
    rows += [_row(label, label, [0], [probe(sae, tasks)]) for label, sae in baselines(study).items()]
    return TaskProbesResult(
        reason="",
        made_up=study.prompts_are_made_up,
        tasks=tuple(_about(task) for task in tasks),
        dropped=tuple(task.name for task in found if not (_has_both(task.train) and _has_both(task.test))),
        rows=(*rows, _row(RAW, RAW, [0], [_regression(study, tasks)])),
    )


def _has_both(part: LabelledActivations) -> bool:
    return len(np.unique(part.labels)) == 2


def _about(task: TaskActivations) -> ProbedTask:
    counts = len(task.train.labels), len(task.test.labels)
    return ProbedTask(task.name, task.classes, *counts, task.leaked, task.unread)


def _row(key: str, label: str, seeds: Sequence[int], scores: Sequence[dict[str, list[float]]]) -> TaskProbeRow:
    """A row from the scores of each seed."""
    auc = {size: np.array([one[size] for one in scores]).T.tolist() for size in scores[0]}
    return TaskProbeRow(key, label, tuple(seeds), auc)


def probe(sae: SAE, tasks: Sequence[TaskActivations]) -> dict[str, list[float]]:
    """Test AUROC of the probes on a dictionary's codes: by the number of features, in the order of the tasks."""
    scores: dict[str, list[float]] = {str(size): [] for size in SIZES}
    for task in tasks:
        parts = ((sae.encode(part.x), part.labels) for part in (task.train, task.test))
        for size, score in sparse_probe_auc(*parts, sae.n_features, SIZES).items():
            scores[str(size)].append(score)
    return scores


def _regression(study: Study, tasks: Sequence[TaskActivations]) -> dict[str, list[float]]:
    """Test AUROC of regressions on all coordinates of the residual stream, in the units of the centred frame."""
    normalize = study.variant(frame="centred").normalizer.normalize

    def part(activations: LabelledActivations) -> tuple[Float[np.ndarray, "n_prompts d_model"], np.ndarray]:
        return normalize(activations.x.float()).double().numpy(), activations.labels

    return {"all": [regression_auc(part(task.train), part(task.test)) for task in tasks]}


def _cost(study: Study) -> Cost:
    """Every dictionary reads all prompts and has its probes fitted."""
    dictionaries = len(needed(study)) + 3
    fits = dictionaries * probed_tasks(study) * (len(SIZES) - 1)
    return Cost(2**20, 0, ((dictionaries * probe_prompts(study), encoding(study)), (fits, probe_fit(study))))


TABLE = Table(
    name="task_probes",
    result=TaskProbesResult,
    build=build,
    runs=needed,
    prompts=True,
    fields=("arms", "n_seeds", "seed", "probe_tasks", "probe_prompts"),
    cost=_cost,
)
