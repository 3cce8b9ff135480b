"""Short forms of `python -m soak extremes configurations`: parameters at their ends, and mixtures of them."""

import pytest

from archsae_study.engine.study import Study
from archsae_study.settings.config import FIELDS, ConfigError, configure
from soak import configurations, extremes
from soak.studies import SMALL, Ended, attempt, names_a_parameter, tables, until_checked

pytestmark = pytest.mark.long


def test_every_parameter_has_extremes_and_each_is_a_parameter():
    assert set(FIELDS) == set(extremes.ALONE) | extremes.ELSEWHERE


@pytest.mark.parametrize("parameters", extremes.cases(), ids=str)
def test_an_extreme_is_a_configuration(parameters):
    assert {name: configure(SMALL | parameters)[name] for name in parameters}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_seeds": 1}, "n_seeds = 1: must be at least 2"),
        ({"ablation_seeds": 1}, "ablation_seeds = 1: must be at least 2"),
        ({"n_features": 1, "k": 1}, "n_features = 1: must be at least 2"),
        ({"n_anchors": 1}, "n_anchors = 1: must be at least 2"),
        ({"ablation_seeds": 4}, "ablation_seeds = 4: at most anchor_folds = 2"),
        ({"anchor_folds": 1}, "n_seeds = 2: at most anchor_folds = 1: raise anchor_folds"),
        ({"n_anchors": 10**9}, "n_anchors = 1000000000: .*lower n_anchors or anchor_folds"),
        ({"tokens": 1}, "tokens = 1: .*raise it"),
        ({"context": 2}, "context = 2: must be at least 3"),
        ({"heldout_tokens": 1}, "heldout_tokens = 1: must be at least 2"),
        ({"outlier_factor": 0.5}, "outlier_factor = 0.5: must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_fix(parameters, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        until_checked(parameters, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_held_out_windows_without_a_next_token_are_refused(tmp_path):
    """Documents of two tokens: the second is read, but nothing follows it."""
    words = "the of and in was for his with had not that but one can out".split()
    (tmp_path / "two.txt").write_text("\n\n".join(f"{a}{b}" for a in words for b in words), encoding="utf-8")
    parameters = {"text": str(tmp_path / "two.txt"), "context": 3, "tokens": None, "near_copies": False}
    study = Study(configure(SMALL | parameters), tmp_path / "runs")
    short = study.tokens.heldout._replace(ids=[ids[:2] for ids in study.tokens.heldout.ids])
    with pytest.raises(ConfigError, match=r"behaviour_tokens = 64: no window .* has 3"):
        study._check_heldout(short)
    one = short._replace(ids=short.ids[:1])
    with pytest.raises(ConfigError, match=r"text = .*1 activation to score"):
        study._check_heldout(one)


def test_the_smallest_study_has_every_table(tmp_path):
    smallest = {"n_features": 2, "k": 1, "n_anchors": 2, "steps": 1, "ablation_steps": 1, "batch_size": 2, "delta": 0}
    smallest |= {"deltas": (0,), "heldout_tokens": 2, "behaviour_tokens": 20, "layer": 0, "longer_factor": 1}
    assert attempt(smallest | {"arms": ("topk-random-own", "ra-own")}, tmp_path / "runs", tables) == Ended("done")


def test_mixtures_end_with_every_table_or_are_refused_by_name(tmp_path):
    rows, problems = configurations.run(tmp_path, tables, examples=3, number=2)
    assert problems == []
    assert rows[0]["configurations"] == 3
    assert rows[0]["ended well"] >= 2


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (ConfigError("k = 3: too many"), "refused"),
        (ConfigError("it is too large"), "failed"),
        (KeyError("k"), "failed"),
    ],
)
def test_only_a_named_refusal_counts(tmp_path, error, how):
    def work(parameters, root):
        raise error

    assert attempt({}, tmp_path / "runs", work).how == how
    (tmp_path / "runs").mkdir()
    assert attempt({}, tmp_path / "runs", work).how == "failed"  # work had begun


def test_a_refusal_begins_with_a_parameter():
    assert names_a_parameter("k = 3: too many")
    assert names_a_parameter("model: it has NaN")
    assert not names_a_parameter("value = 3: too many")
