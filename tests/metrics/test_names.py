import numpy as np
import pytest

from archsae_core.metrics.names import Masses, feature_name, leading_topic, mass_shares


def masses(on=(), after=(), at_start=0.0, topics=None):
    return Masses(list(on), list(after), at_start, topics or {})


def test_mass_shares_by_hand():
    keys, codes = np.array([7, 3, 7, 5, 3]), np.array([4.0, 1.0, 2.0, 2.0, 1.0], dtype=np.float32)
    assert mass_shares(keys, codes) == [(7, 0.6), (3, 0.2), (5, 0.2)]
    assert mass_shares(keys, codes, top=1) == [(7, 0.6)]


def test_no_firings_have_no_shares():
    assert mass_shares(np.array([], dtype=np.int64), np.array([], dtype=np.float32)) == []
    assert feature_name(masses()) == "never fires"


def test_the_fewest_tokens_with_half_the_mass_name_a_feature():
    assert feature_name(masses([(" goal", 0.5), (" cup", 0.3)])) == "“goal”"
    assert feature_name(masses([(" goal", 0.3), (" cup", 0.2), (" tie", 0.1)])) == "“goal”, “cup”"
    assert feature_name(masses([(" goal", 0.2), (" cup", 0.2), (" tie", 0.1)])) == "“goal”, “cup”, “tie”"


def test_case_and_spaces_around_a_token_are_set_aside():
    on = [(" cup", 0.25), (" The", 0.2), ("the", 0.15), (" the", 0.1)]
    assert feature_name(masses(on)) == "“The”, “cup”"  # 0.45 for the three forms of “the”, then 0.25


def test_a_token_that_is_only_space_keeps_it():
    assert feature_name(masses([(" ", 0.9)])) == "“ ”"
    assert feature_name(masses([("\n", 0.9)])) == "“\n”"


def test_tokens_right_before_name_a_feature_that_fires_on_many():
    on = [(" a", 0.2), (" b", 0.1), (" c", 0.1), (" d", 0.1)]
    assert feature_name(masses(on, after=[(" of", 0.6), (" in", 0.1)])) == "after “of”"
    assert feature_name(masses(on, after=[(" of", 0.3), (" in", 0.1)])) == "varied: “a”, “b”, “c”"


def test_the_start_of_a_window_comes_before_tokens():
    assert feature_name(masses([(" goal", 0.9)], at_start=0.5)) == "start of a window"
    assert feature_name(masses([(" goal", 0.9)], at_start=0.49)) == "“goal”"


@pytest.mark.parametrize(
    ("sport", "all_sport", "topic"),
    [(0.8, 0.2, "sport"), (0.5, 0.25, "sport"), (0.49, 0.1, None), (0.8, 0.41, None)],
)
def test_a_topic_needs_half_the_mass_and_twice_its_share(sport, all_sport, topic):
    topics = {"tech": 0.6 * (1 - sport), "sport": sport, "film": 0.4 * (1 - sport)}
    assert leading_topic(topics, {"tech": 0.5, "sport": all_sport, "film": 0.5 - all_sport}) == topic


def test_a_leading_topic_follows_the_name():
    found = masses([(" goal", 0.9)], topics={"sport": 0.9, "tech": 0.1})
    assert feature_name(found, {"sport": 0.25, "tech": 0.75}) == "“goal” · sport"
    assert feature_name(found, {"sport": 0.5, "tech": 0.5}) == "“goal”"
