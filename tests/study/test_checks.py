"""Flags of trained dictionaries, and the frontier and the best radius of a sweep, by hand."""

import pytest

from archsae_core.metrics.intervals import Interval
from archsae_core.metrics.reconstruction import Quality
from archsae_study.engine.runs import Scores
from archsae_study.experiments.ablation import Row, SeedResult, Sweep
from archsae_study.experiments.checks import Flag, flags

GOOD = Quality(
    r2=0.8, mse=1.0, mse_normalised=0.2, l0=32.0, cosine=0.9, cosine_centred=0.8, utilisation=1.0, dead_share=0.0,
    dense_share=0.0, n_dead=0, n_features=10, n_tokens=100, density={"edges": [], "counts": []},
)  # fmt: skip


def kinds(quality=GOOD, violation=0.0, cosine=0.5, k=32):
    return [flag.kind for flag in flags(Scores(quality, {}, violation), k, cosine)]


def test_a_sound_run_has_no_flag():
    assert kinds() == []
    assert kinds(cosine=None) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"l0": 31.6}, "l0"), ({"dead_share": 0.51}, "dead"), ({"r2": -0.01}, "r2")],
)
def test_each_expectation_has_a_flag_of_its_own(change, kind):
    assert kinds(GOOD._replace(**change)) == [kind]


def test_atoms_that_stay_and_broken_constraints_are_flagged():
    assert kinds(cosine=0.99995) == ["unmoved"]
    assert kinds(violation=1e-3) == ["constraint"]
    assert kinds(GOOD._replace(l0=31.7)) == []  # within one percent


def row(delta, r2, stability, *flagged):
    seed = SeedResult(0, r2, 1.0, 0.0, 32.0, 0.5, 0.5, 3.0, [Flag(kind, "") for kind in flagged])
    return Row("ra-own", float(delta), delta / 10, [seed], Interval(stability, None, None))


def sweep(*rows):
    return Sweep("centred", 10.0, list(rows), [])


def test_the_frontier_holds_what_no_other_radius_beats_in_both():
    found = sweep(row(0, 0.5, 0.9), row(1, 0.7, 0.7), row(2, 0.6, 0.6), row(5, 0.8, 0.5))
    assert found.frontier == [0, 1, 5]
    assert sweep(row(0, 0.5, 0.9), row(1, 0.5, 0.9)).frontier == [0, 1]  # neither beats the other
    assert sweep(row(0, 0.5, 0.9), row(1, 0.5, 0.95)).frontier == [1]


def test_the_best_radius_is_the_best_reconstruction_without_a_flag():
    assert sweep(row(0, 0.5, 0.9), row(1, 0.7, 0.7)).best.delta == 1
    assert sweep(row(0, 0.5, 0.9), row(1, 0.7, 0.7, "dead")).best.delta == 0
    assert sweep(row(0, 0.5, 0.9, "l0")).best is None
