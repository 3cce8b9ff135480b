"""Sparse probes of binary tasks: AUROC and ranking by hand, planted features, and nothing learned from the test."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from archsae_core.config import ConfigError
from archsae_core.metrics import task_probes
from archsae_core.metrics.probing import auc
from archsae_core.metrics.task_probes import STRENGTHS, class_difference, columns, regression_auc, sparse_probe_auc
from archsae_core.models.sae import Codes

POSITIVE = np.array([True, True, False, False])


def codes(dense):
    """Every code of a dense table, zeros included, feature by feature."""
    dense = torch.as_tensor(dense, dtype=torch.float32)
    return Codes(dense, torch.arange(dense.shape[1]).expand(dense.shape).contiguous())


def planted(n, seed, *, strength=3.0, n_features=12, feature=7):
    """Exponential codes of which a third is active, and one feature that is larger in the positive class."""
    draw = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    dense = draw.exponential(size=(n, n_features)) * (draw.random((n, n_features)) < 1 / 3)
    dense[:, feature] += strength * positive * draw.random(n)
    return codes(dense), positive


def test_auc_by_hand():
    scores = np.array([[0.8, 1.0, 0.1], [0.35, 1.0, 0.2], [0.4, 1.0, 0.3], [0.1, 1.0, 0.4]])
    assert auc(scores, POSITIVE).tolist() == [0.75, 0.5, 0.0]  # 3 of 4 pairs in order; all ties; none
    assert auc(scores, np.ones(4, dtype=bool)).tolist() == [0.5, 0.5, 0.5]
    draw = np.random.default_rng(0)
    many, positive = draw.integers(0, 5, (60, 3)).astype(float), draw.random(60) < 0.4
    assert auc(many, positive) == pytest.approx([roc_auc_score(positive, many[:, i]) for i in range(3)])


def test_features_are_ranked_by_the_difference_of_class_means_in_units_of_the_code_where_it_fires():
    #                                feature 0: means 3 and 1, 2 where it fires; 1: 1/2 and 0, 1; 2: never fires
    table = codes([[2, 1, 0], [4, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert class_difference(table, POSITIVE, 4).tolist() == [2 / 2, 0.5 / 1, 0, 0]
    sparse = Codes(torch.tensor([[4.0, 2.0], [3.0, 0.0]]), torch.tensor([[3, 1], [1, 0]]))
    assert columns(sparse, np.array([1, 3])).tolist() == [[2, 4], [3, 0]]
    assert class_difference(sparse, np.array([True, False]), 4).tolist() == [0, pytest.approx(1 / 2.5), 0, 1]


def test_a_planted_task_is_found_by_its_feature_and_noise_is_not():
    found = sparse_probe_auc(planted(300, 0), planted(200, 1), 12, (1, 5))
    assert class_difference(*planted(300, 0), 12).argmax() == 7
    assert found[1] > 0.85
    assert found[5] > 0.85
    noise = [
        sparse_probe_auc(planted(300, i, strength=0), planted(300, i + 50, strength=0), 12, (5,))[5] for i in range(5)
    ]
    assert abs(np.mean(noise) - 0.5) < 0.05


def test_a_feature_that_is_the_absence_of_a_class_counts_as_much():
    (train, positive), (test, other) = planted(300, 0), planted(200, 1)
    assert sparse_probe_auc((train, ~positive), (test, ~other), 12, (1,))[1] == pytest.approx(
        sparse_probe_auc((train, positive), (test, other), 12, (1,))[1]
    )


def test_the_choice_of_features_does_not_see_the_test_prompts():
    train, (test, positive) = planted(300, 0, strength=0), planted(200, 1, strength=0)
    chosen = np.argsort(-class_difference(*train, 12), kind="stable")[:5]
    honest = sparse_probe_auc(train, (test, positive), 12, (5,))[5]
    leaky = test.values.clone()
    others = np.setdiff1d(np.arange(12), chosen)
    leaky[:, others] = torch.as_tensor(positive, dtype=torch.float32)[:, None]  # they tell all, in the test alone
    assert sparse_probe_auc(train, (Codes(leaky, test.indices), positive), 12, (5,))[5] == honest


def test_one_column_needs_no_fit():
    (train, positive), (test, other) = planted(90, 2, strength=1.0), planted(80, 3)
    x, y = (columns(one, np.array([7])) for one in (train, test))
    for sign in (1, -1):
        fitted = LogisticRegression().fit(sign * x, positive).decision_function(sign * y)
        assert regression_auc((sign * x, positive), (sign * y, other)) == pytest.approx(roc_auc_score(other, fitted))


@pytest.mark.parametrize("n", [150, 60], ids=["one part for validation", "six folds"])
def test_the_penalty_is_the_best_on_training_prompts(n, monkeypatch):
    """Compared with fits by hand, for the number of prompts from which sae-probes takes one part for validation."""
    (train, positive), (test, other) = planted(n, 4, strength=0.7), planted(80, 5, strength=0.7)
    x, y = (columns(one, np.arange(12)) for one in (train, test))
    parts = list(task_probes._validation(positive))
    assert [len(held) for _, held in parts] == ([30] if n == 150 else [10] * 6)
    scores = [
        np.mean([
            roc_auc_score(positive[held], LogisticRegression(C=c, max_iter=1000).fit(x[kept], positive[kept])
                          .decision_function(x[held]))
            for kept, held in parts
        ])
        for c in STRENGTHS
    ]  # fmt: skip
    best = STRENGTHS[int(np.argmax(scores))]
    fitted = LogisticRegression(C=best, max_iter=1000).fit(x, positive).decision_function(y)
    assert regression_auc((x, positive), (y, other)) == pytest.approx(roc_auc_score(other, fitted))


def test_labels_of_0_and_1_are_those_of_false_and_true():
    """Type checks, which are on in tests alone, are passed over."""
    scored = inspect.unwrap(regression_auc)
    generator = np.random.default_rng(0)
    positive = generator.random(100) < 0.5
    x = generator.normal(size=(100, 3)) + 3 * positive[:, None]
    for width in (1, 3):
        found = [scored((x[:, :width], y), (x[:, :width], y)) for y in (positive, positive.astype(int))]
        assert found[0] == found[1] > 0.9
    for wrong in (np.arange(100), positive[:, None], np.ones(100)):
        with pytest.raises(ConfigError, match="train"):
            scored((x, wrong), (x, positive))
