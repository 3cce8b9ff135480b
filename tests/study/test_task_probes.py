"""Task probes of the study: the rule at its headline size, tasks that cannot be scored, none asked for."""

import numpy as np
import pytest
import torch
from toy import unit_sae

from archsae_core.data.last_tokens import LabelledActivations, TaskActivations
from archsae_study.engine.study import Study
from archsae_study.engine.typed import from_json, to_json
from archsae_study.experiments import task_probes
from archsae_study.experiments.task_probes import ProbedTask, TaskProbeRow, TaskProbesResult
from archsae_study.protocol.contrasts import PRIMARY, Verdict
from archsae_study.settings.config import configure


def part(x, labels):
    return LabelledActivations(torch.as_tensor(x, dtype=torch.float32), np.array(labels))


def task(name, train, test):
    return TaskActivations(name, ("no", "yes"), train, test, leaked=0, unread=0)


def test_a_feature_that_reads_the_class_scores_1_and_the_rest_guess():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(40, 4, generator=draw) + 0.5
    labels = np.arange(40) % 2 == 0
    x[labels, 2] += 5
    found = task_probes.probe(unit_sae(4, 4, k=2), [task("one", part(x, labels), part(x + 0.01, labels))])
    assert found == {"1": [1.0], "5": [1.0], "16": [1.0]}  # more than there are features: all of them


def test_tasks_with_one_class_in_a_part_are_named_and_not_scored(tmp_path, monkeypatch):
    both, one = part([[1.0], [2.0]], [True, False]), part([[1.0], [2.0]], [True, True])
    tasks = [task("sound", both, both), task("no test", both, one), task("no train", one, both)]
    study = Study(configure({"preset": "smoke", "arms": "topk-random-own"}), tmp_path)
    monkeypatch.setattr(study, "task_activations", lambda: tasks)
    monkeypatch.setattr(study, "sae", lambda _: unit_sae(1, 1))
    monkeypatch.setattr(task_probes, "baselines", lambda _: {})
    monkeypatch.setattr(task_probes, "_regression", lambda _, tasks: {"all": [0.5] * len(tasks)})
    found = task_probes.build(study)
    assert ([one.name for one in found.tasks], found.dropped) == (["sound"], ("no test", "no train"))
    assert from_json(to_json(found), TaskProbesResult) == found
    del tasks[0]
    assert task_probes.build(study).reason == "no task has prompts of both classes"


def test_none_are_made_where_none_are_asked_for(tmp_path):
    study = Study(configure({"preset": "smoke", "probe_tasks": 0}), tmp_path)
    assert task_probes.build(study) == TaskProbesResult("probe_tasks is 0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, Verdict.SUPPORTED), (0.0, Verdict.NOT_SUPPORTED)])
def test_the_rule_compares_the_arms_of_a_contrast_at_5_features(gain, verdict):
    contrast, draw = PRIMARY[0], np.random.default_rng(0)
    base = draw.uniform(0.6, 0.8, (6, 3))
    other = {"1": np.zeros((6, 3)).tolist(), "16": np.ones((6, 3)).tolist()}
    rows = tuple(
        TaskProbeRow(key, key, (0, 1, 2), other | {"5": (base + more + draw.normal(0, 1e-3, (6, 3))).tolist()})
        for key, more in ((contrast.ra, gain), (contrast.free, 0.0))
    )
    tasks = tuple(ProbedTask(str(i), ("no", "yes"), 10, 10, 0, 0) for i in range(6))
    (first, *others) = TaskProbesResult("", tasks=tasks, rows=rows).decisions()
    assert (first.verdict, first.tasks, first.seeds) == (verdict, 6, (0, 1, 2))
    assert first.gain.estimate == pytest.approx(gain, abs=2e-3)
    assert {one.verdict for one in others} == {Verdict.UNDETERMINED}
