"""Every bad input gets an error that names it and the fix, before work starts; every accepted config runs."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archsae_core.config import DTYPES, W_STEPS
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import Config, ConfigError, configure
from bad_inputs import BAD, NOTEBOOKS, error_of, parameters_cell


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.area}: {bad.what}")
def test_bad_input_is_refused_by_name(bad, tmp_path):
    message = error_of(bad, tmp_path)
    assert re.search(bad.error, message, re.DOTALL), message
    assert bad.late or not (tmp_path / "runs").exists(), "work had begun"
    if bad.area == "command line":
        assert "Traceback" not in message


def test_the_table_covers_what_it_should():
    areas = Counter(bad.area for bad in BAD)
    assert sum(areas.values()) >= 60
    assert set(areas) == {"parameter", "notebook", "command line", "text", "model folder", "activations"}
    assert {bad.what.split(":")[0] for bad in BAD if bad.area == "notebook"} == {path.stem for path in NOTEBOOKS}
    assert all(parameters_cell(path) for path in NOTEBOOKS)


# --- any config ---

TINY = {"preset": "smoke", "text": "synthetic", "tokens": 4000, "kmeans_iterations": 2, "heldout_tokens": 500}


def maybe(good, bad):
    """Mostly values that may be accepted, one in eight that may not."""
    return st.one_of(*[good] * 7, bad)


NO_SIZE = st.sampled_from([0.0, -1.0, float("nan"), float("inf")])
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "layer": maybe(st.integers(0, 2), st.integers(-2, 9)),
        "context": maybe(st.integers(8, 64), st.integers(-1, 200)),
        "n_anchors": maybe(st.integers(1, 60), st.integers(-1, 5000)),
        "n_features": maybe(st.integers(8, 70), st.integers(-1, 70)),
        "k": maybe(st.integers(1, 8), st.integers(-1, 80)),
        "delta": maybe(st.floats(0, 5), NO_SIZE),
        "lr": maybe(st.floats(1e-6, 1e-2), NO_SIZE),
        "w_step": maybe(st.sampled_from(W_STEPS), st.text(max_size=3)),
        "w_lr": maybe(st.floats(1e-6, 1e-2), NO_SIZE),
        "smoothing": maybe(st.floats(0.01, 0.99), st.floats(-1, 2)),
        "steps": maybe(st.integers(1, 6), st.integers(-2, 6)),
        "batch_size": maybe(st.integers(1, 5000), st.integers(-2, 2)),
        "aux_k": maybe(st.integers(1, 80), st.integers(-1, 1)),
        "aux_coefficient": maybe(st.floats(0, 1), NO_SIZE),
        "dead_after": maybe(st.integers(1, 5), st.integers(-1, 1)),
        "checkpoint_every": maybe(st.integers(1, 5), st.integers(-1, 1)),
        "seed": maybe(st.integers(0, 2**40 - 1), st.integers()),
        "n_seeds": maybe(st.integers(1, 3), st.integers(-1, 4)),
        "unit_norm": st.booleans(),
        "learn_scale": st.booleans(),
        "heldout_fraction": maybe(st.floats(0.01, 0.49), st.floats(-1, 1)),
        "validation_fraction": maybe(st.floats(0.01, 0.49), st.floats(-1, 1)),
        "outlier_factor": maybe(st.floats(2, 100), NO_SIZE),
        "dtype": st.sampled_from(DTYPES),
        "tokens": maybe(st.integers(1500, 4000), st.integers(-1, 4000)),
        "anchor_tokens": maybe(st.integers(100, 900), st.integers(-1, 900)),
    },
)


EXAMPLES = settings() if settings().max_examples == 200 else settings(max_examples=12, derandomize=True)
"""`make soak` draws 200, and others each time."""


def tiny_study_runs_or_is_refused_first(overrides: dict, arm: str, root: Path) -> bool:
    """Whether the config was accepted; then a study of it was trained and scored. An error after the check fails."""
    try:
        study = Study(configure(TINY | overrides), root)
        study.check()
    except ConfigError:
        return False
    run = Run(arm, study.config.comparison.seed, study.config.training.steps)
    assert study.scores(run).quality.n_tokens > 0
    return True


@settings(EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(CONFIGS, st.sampled_from(sorted(ARMS)))
def test_every_accepted_config_runs_and_every_other_is_refused_before_work(tmp_path_factory, overrides, arm):
    root = tmp_path_factory.mktemp("any")
    if not tiny_study_runs_or_is_refused_first(overrides, arm, root):
        assert list(root.iterdir()) == [], "work had begun"


def test_config_is_what_configure_gives():
    assert isinstance(configure(TINY), Config)
