"""Every bad parameter is refused by name; every kind of input a shell, YAML or papermill passes is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsae_core.config import FIELDS, PRESETS, Config, ConfigError, coerce, configure

BAD = [
    ("delta", -0.1), ("delta", float("nan")), ("delta", float("inf")), ("delta", "wide"), ("delta", True), ("k", 0),
    ("k", 2000), ("k", 2.5), ("n_features", 0), ("n_anchors", 0), ("steps", 0), ("batch_size", -1), ("lr", 0.0),
    ("lr", "fast"), ("w_lr", -1.0), ("w_step", "newton"), ("smoothing", 0.0), ("smoothing", 1.0), ("layer", -1),
    ("layer", 1.5), ("context", 1), ("dtype", "float16"), ("device", "tpu"), ("heldout_fraction", 0.0),
    ("heldout_fraction", 0.6), ("validation_fraction", 1), ("tokens", 0), ("anchor_tokens", -5), ("aux_k", 0),
    ("aux_coefficient", -1), ("dead_after", 0), ("checkpoint_every", 0), ("seed", -1), ("n_seeds", 0),
    ("arms", ["topk", "nothing"]), ("arms", []), ("arms", ["ra", "ra"]), ("deltas", []), ("deltas", [-1.0]),
    ("deltas", [1, 1]), ("deltas", "[1, "), ("ablation_steps", 0), ("ablation_seeds", 0), ("heldout_tokens", 0),
    ("behaviour_tokens", 0), ("feature", 99999), ("feature", -1), ("outlier_factor", 0), ("kmeans_iterations", 0),
    ("unit_norm", "perhaps"), ("preset", "huge"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_values_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        configure({name: value})


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown parameter 'detla'.*delta"):
        configure({"detla": 0.5})


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("delta", 1, 1.0), ("delta", "1e-3", 0.001), ("k", 8.0, 8), ("k", "8", 8), ("unit_norm", "false", False),
        ("unit_norm", True, True), ("deltas", "0,0.5", (0.0, 0.5)), ("deltas", "[0, 1]", (0.0, 1.0)),
        ("deltas", [0, "1e-1"], (0.0, 0.1)), ("deltas", 2, (2.0,)), ("arms", "topk, ra", ("topk", "ra")),
        ("tokens", "none", None), ("feature", "3", 3), ("model", "gpt2", "gpt2"),
    ],
)  # fmt: skip
def test_coercion(name, given, expected):
    found = coerce(name, given)
    assert found == expected
    assert type(found) is type(expected)


@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.booleans()))
def test_any_value_is_either_configured_or_refused_as_a_config_error(name, value):
    found = outcome(name, value)
    assert isinstance(found, Config) or name in found or "n_features" in found


def outcome(name, value):
    try:
        return configure({name: value})
    except ConfigError as error:
        return str(error)


def test_none_leaves_the_preset_and_overrides_win():
    config = configure({"preset": "full", "k": None, "steps": 7})
    assert (config.k, config.steps) == (PRESETS["full"]["k"], 7)


def test_presets_hold_what_the_study_promises():
    full = configure({"preset": "full"})
    assert (full.n_features, full.k, full.n_anchors, full.lr, full.steps) == (4096, 64, 4096, 3e-4, 5000)
    assert full.deltas == (0, 0.1, 0.5, 1, 2, 5)
    assert full.n_seeds >= 5
    assert configure({"preset": "gpt2"}).layer == 9
