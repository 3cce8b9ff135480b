"""Flags: expectations that a run need not meet."""

from archsae_study.pages import flags


def test_flags_stand_beside_the_result_and_only_where_an_expectation_fails():
    found = {"topk": 31.4, "ra": 32.0}
    assert flags.l0(found, 32) == ["L0 of `topk` is 31.4, not k = 32: some tokens have fewer positive codes than k"]
    assert flags.with_flags("Text.", []) == "Text."
    assert flags.with_flags("Text.", ["it is so"]) == "Text.  \n⚠ **Flag:** it is so."
