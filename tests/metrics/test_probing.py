"""Probes against scikit-learn and by hand; nothing may leak from the held-out side."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from toy import activation_set, token_set, unit_sae

from archsae_core.metrics import probing
from archsae_core.metrics.features import scan
from archsae_core.metrics.probing import Hits, Passages


def labelled(n=240, n_features=12, n_documents=24, seed=0):
    """Feature t tells topic t of 3; the rest is noise. Passages of a document share its topic."""
    generator = np.random.default_rng(seed)
    document = np.sort(generator.integers(0, n_documents, n))
    topic = document % 3
    x = generator.exponential(size=(n, n_features))
    x[np.arange(n), topic] += 1 + 2 * generator.random(n)
    return csc_array(x), Passages(torch.zeros(n, 1, dtype=torch.int64), document, topic)


def test_passages_stay_within_windows_and_keep_their_topic():
    tokens = token_set([40, 80, 20], [2, 0, 1])
    activations = activation_set(torch.randn(137, 4, generator=torch.Generator().manual_seed(0)), tokens)
    found = probing.passages(activations, np.array([5, 6, 7]), 100, 32)
    assert found.rows.shape == (3, 32)  # 39, 79 and 19 rows: one, two and no passage
    assert all(len(activations.window[rows].unique()) == 1 for rows in found.rows)
    assert (found.rows.diff(dim=1) == 1).all()
    assert found.topic.tolist() == [7, 5, 5]
    assert len(probing.passages(activations, np.array([5, 6, 7]), 2, 32).rows) == 2
    assert probing.passages(activations, np.array([-1, 6, 7]), 100, 32).topic.tolist() == [7]
    with pytest.raises(probing.NoPassages, match="no labelled document has 80 consecutive activations"):
        probing.passages(activations, np.array([5, 6, 7]), 2, 80)
    with pytest.raises(probing.NoPassages):
        probing.passages(activations, np.array([-1, 6, -1]), 2, 32)


def test_pooled_codes_are_means_over_the_passage(seeded):
    sae, x = unit_sae(4, 4, k=2), torch.randn(60, 4)
    activations = activation_set(x, token_set([26, 36], [0, 1]))
    about = probing.passages(activations, np.array([0, 1]), 100, 10)
    assert about.rows[:, 0].tolist() == [0, 10, 25, 35, 45]
    pooled = probing.pooled_codes(scan(sae, activations), about).toarray()  # the scan holds rows of no passage too
    assert pooled == pytest.approx(sae.encode(x).dense(4)[about.rows].mean(dim=1).numpy(), abs=1e-6)
    assert (pooled == probing.pooled_codes(scan(sae, activations, about.rows.flatten()), about).toarray()).all()
    assert probing.pool(sae, activations, about).toarray() == pytest.approx(pooled, abs=1e-12)
    raw = probing.pooled_activations(activations.gather(about.rows.flatten()), 5).toarray()
    assert raw == pytest.approx(x[about.rows].mean(dim=1).numpy(), abs=1e-6)


def test_mean_difference_by_hand():
    table = csc_array(np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0], [0.0, 5.0, 0.0], [0.0, 5.0, 4.0]]))
    positive = np.array([True, True, False, False])
    spread = np.sqrt(10 / 4 - 1), np.sqrt(16 / 4 - 1)
    assert probing.mean_difference(table, positive) == pytest.approx([2 / spread[0], 0, 2 / spread[1]])


def test_probe_finds_the_features_that_hold_the_topics():
    train, test = labelled(), labelled(seed=1)
    found = probing.probe(train, test, (1, 3, None))
    scores = {k: probing.accuracy_interval([hits]).estimate for k, hits in found.items()}
    assert scores[1] > 0.5
    assert scores[3] > scores[1]  # the other topics' features tell what it is not


def test_probe_of_noise_is_at_chance():
    generator = np.random.default_rng(3)
    train, test = labelled(), labelled(seed=1)
    noise = [(csc_array(generator.exponential(size=table.shape)), about) for table, about in (train, test)]
    hits = probing.probe(*noise, (5,))[5]
    assert abs(probing.accuracy_interval([hits]).estimate) < 0.15


def test_features_are_chosen_on_training_passages_alone():
    """A feature that tells the topic only in the held-out documents must not help."""
    train, test = labelled(), labelled(seed=1)
    leak = test[0].toarray()
    leak[:, 11] = 100 * (test[1].topic == 0)
    honest, tempted = (probing.probe(train, (table, test[1]), (1,))[1] for table in (test[0], csc_array(leak)))
    assert (honest.correct == tempted.correct).all()


def test_accuracy_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    test = labelled()[1]
    decided = generator.random((240, 3)) < 0.4
    hits = probing._hits(decided, test, np.arange(3))
    expected = np.mean([
        balanced_accuracy_score(test.topic == t, decided[:, t], adjusted=True) for t in range(3)
    ])  # fmt: skip
    assert probing.accuracy_interval([hits]).estimate == pytest.approx(expected)
    assert hits.total.sum() == 240 * 3


def hits_with(rate, seed, n_documents=60):
    generator = np.random.default_rng(seed)
    topic = np.arange(n_documents) % 3
    total = np.zeros((n_documents, 3, 2))
    for column in range(3):
        total[np.arange(n_documents), column, (topic != column).astype(int)] = 10
    return Hits(generator.binomial(10, rate, total.shape) * (total > 0).astype(float), total, topic)


def test_intervals_over_seeds_and_documents():
    good, poor = [hits_with(0.9, s) for s in range(4)], [hits_with(0.7, s + 10) for s in range(4)]
    gain = probing.accuracy_interval(good, poor)
    assert gain.low < gain.estimate < gain.high
    assert gain.estimate == pytest.approx(0.4, abs=0.05)
    assert gain.low > 0.3
    same = probing.accuracy_interval(good, good)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)  # paired: the same seeds and documents on both sides
    few = probing.accuracy_interval(good[:2])
    assert few.low is None
    wide, narrow = (probing.accuracy_interval([hits_with(0.8, s, n) for s in range(4)]) for n in (6, 600))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_single_feature_auc_is_scikit_learns_for_the_topic_chosen_in_training():
    train, test = labelled(), labelled(seed=1)
    found = probing.single_feature_auc(train, test)
    for feature in range(3):
        expected = roc_auc_score(test[1].topic == feature, test[0].toarray()[:, feature])
        assert found[feature] == pytest.approx(expected)
    assert found[:3].min() > 0.65
    assert abs(found[3:].mean() - 0.5) < 0.1


def test_topics_that_cannot_be_scored_do_not_count():
    """By hand: topics 0 and 1 have accuracies 0.5 + 1 − 1 and 1 + 1 − 1; topic 2 has no held-out passage."""
    correct, total = np.zeros((1, 3, 2)), np.zeros((1, 3, 2))
    total[0] = [[2, 4], [4, 2], [0, 6]]
    correct[0] = [[1, 4], [4, 2], [0, 6]]
    assert probing.accuracy(correct.sum(0), total.sum(0)) == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(probing.accuracy(np.zeros((2, 2)), np.array([[0.0, 3.0], [3.0, 0.0]])))


def test_dropping_the_passages_of_a_topic_leaves_the_others_accuracy():
    x, about = labelled()
    half = np.arange(len(about.topic)) % 2 == 0
    train = (x[half], Passages(about.rows[half], about.document[half], about.topic[half]))
    kept = ~half & (about.topic != 2)
    test = (x[kept], Passages(about.rows[kept], about.document[kept], about.topic[kept]))
    whole = probing.probe(train, test, (3,))[3]
    alone = [probing.accuracy(whole.correct.sum(0)[[t]], whole.total.sum(0)[[t]]) for t in (0, 1)]
    assert probing.accuracy_interval([whole]).estimate == pytest.approx(np.mean(alone))
    assert probing.accuracy_interval([whole]).estimate > 0.5
    # nor is a feature said to tell that topic at chance
    found = probing.single_feature_probe(train, test)
    assert set(found.topic) == {0, 1}
    assert (found.auc[found.topic >= 0] != 0.5).all()
    one = (x[kept][:3], Passages(about.rows[:3], about.document[:3], np.zeros(3, int)))
    assert set(probing.single_feature_probe(train, one).topic) == {-1}
