"""k-means against scikit-learn's own result and by hand."""

import pytest
import torch
from sklearn.cluster import KMeans

from archsae_core.models import anchors
from archsae_core.models.anchors import anchor_statistics, fit_anchors
from archsae_study.settings.config import ConfigError


def blobs(per_blob=30):
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = 0.1 * torch.randn(3, per_blob, 2, generator=torch.Generator().manual_seed(0))
    return (centres[:, None] + noise).reshape(-1, 2), centres


def test_separated_blobs_by_hand():
    x, centres = blobs()
    # A random start may miss a blob; the best of a few must not.
    fits = [fit_anchors(x, 3, iterations=50, seed=seed) for seed in range(5)]
    best = min(fits, key=lambda fit: fit.unexplained)
    assert torch.cdist(centres, best.points).min(dim=1).values.max() < 0.1
    assert sorted(best.occupancy.tolist()) == [30, 30, 30]
    assert best.unexplained < 1e-3


def test_inertia_matches_scikit_learn_from_many_starts():
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(1))
    ours = fit_anchors(x, 8, iterations=100, seed=0)
    theirs = KMeans(8, n_init=5, random_state=0).fit(x.numpy()).inertia_ / float((x - x.mean(0)).square().sum())
    assert theirs * 0.98 < ours.unexplained < theirs * 1.1


@pytest.mark.parametrize("fast", [False, True])
def test_same_inertia_as_scikit_learn_from_the_same_start(monkeypatch, fast):
    monkeypatch.setattr(anchors, "fast_bfloat16", lambda: fast)
    x = torch.randn(3000, 24, generator=torch.Generator().manual_seed(1))
    start = anchors._distinct_start(x.numpy(), 40, 7)
    ours = fit_anchors(x, 40, iterations=10, seed=7)
    theirs = KMeans(40, init=start, n_init=1, max_iter=10, tol=0).fit(x.numpy())
    spread = float((x - x.mean(dim=0)).square().sum())
    assert ours.unexplained == pytest.approx(theirs.inertia_ / spread, rel=2e-3 if fast else 1e-4)
    assert ours.iterations == 10


def test_an_empty_cluster_moves_to_the_farthest_row():
    x, points = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.0], [50.0]])
    labels = anchors.nearest_anchor(x, points, rounded=False)
    assert labels.tolist() == [0, 0, 0]
    assert anchors._means(x, labels, points).flatten().tolist() == pytest.approx([10 / 3, 9.0])


def test_same_seed_same_bits_other_seed_other_start():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    a, b, c = (fit_anchors(x, 20, iterations=3, seed=seed).points for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_too_few_activations_names_the_field():
    with pytest.raises(ConfigError, match="n_anchors = 5: only 4 activations"):
        fit_anchors(torch.randn(4, 2), 5, iterations=3, seed=0)


def test_too_few_distinct_activations_names_the_field():
    with pytest.raises(ConfigError, match="n_anchors = 5: only 3 distinct"):
        fit_anchors(torch.randn(3, 2).repeat(10, 1), 5, iterations=3, seed=0)


def test_duplicates_do_not_become_two_starts():
    x = torch.cat([torch.zeros(50, 2), torch.randn(10, 2, generator=torch.Generator().manual_seed(3))])
    fitted = fit_anchors(x, 8, iterations=10, seed=0)
    assert anchor_statistics(fitted)["duplicates"] == 0


def test_summary_counts_empty_and_coinciding_centroids():
    x, _ = blobs()
    fitted = fit_anchors(x, 3, iterations=10, seed=0)
    broken = fitted._replace(points=fitted.points[[0, 0, 1]], occupancy=torch.tensor([90, 0, 0]))
    found = anchor_statistics(broken)
    assert (found["duplicates"], found["empty"], found["n_anchors"]) == (1, 2, 3)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("gamma", [1, 30, 1000])
def test_a_mean_far_from_0_changes_no_cluster(monkeypatch, fast, gamma):
    monkeypatch.setattr(anchors, "fast_bfloat16", lambda: fast)
    generator = torch.Generator().manual_seed(1)
    centres = 3 * torch.randn(40, 24, generator=generator)
    x = centres[torch.arange(3000) % 40] + torch.randn(3000, 24, generator=generator)
    shift = gamma * x.norm(dim=1).mean() * torch.ones(24) / 24**0.5
    near, far = fit_anchors(x, 40, iterations=10), fit_anchors(x + shift, 40, iterations=10)
    assert far.unexplained == pytest.approx(near.unexplained, rel=0.05)
    assert torch.allclose(far.points.mean(dim=0), shift, rtol=0.2, atol=1)


def test_equal_activations_far_from_0_are_too_few():
    with pytest.raises(ConfigError, match="only 1 distinct activations"):
        fit_anchors(torch.full((9, 3), 7.0), 2)
