"""Every bad parameter is refused by name; every kind of input a shell, YAML or papermill passes is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsae_study.settings.config import FIELDS, PRESETS, Config, ConfigError, coerce, configure


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
    assert (config.dictionary.k, config.training.steps) == (PRESETS["full"]["k"], 7)


def test_presets_hold_what_the_study_promises():
    full = configure({"preset": "full"})
    assert (full["n_features"], full["k"], full["n_anchors"], full["lr"], full["steps"]) == (4096, 64, 4096, 3e-4, 5000)
    assert full["deltas"] == (0, 0.1, 0.5, 1, 2, 5)
    assert full["n_seeds"] >= 5
    assert configure({"preset": "gpt2"})["layer"] == 9
