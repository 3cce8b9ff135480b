import numpy as np
import pytest

from archsae_core.metrics.feature_names import Masses, Usual, form, leading_topic, mass_shares
from archsae_core.metrics.feature_names import feature_name as name


def feature_name(masses, forms=None, topics=None):
    return name(masses, Usual(forms or {}, topics or {}))


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
    assert feature_name(masses(on, after=[(" of", 0.3), (" in", 0.1)])) == "“a”, “b”, “c” …"


def test_the_start_of_a_window_comes_before_tokens():
    assert feature_name(masses([(" goal", 0.9)], at_start=0.5)) == "start of a window"
    assert feature_name(masses([(" goal", 0.9)], at_start=0.49)) == "“goal”"


def test_common_words_do_not_name_what_fires_on_many():
    on = [(" the", 0.2), (" of", 0.1), (" goal", 0.06), (" Cup", 0.03), (" cup", 0.02)]
    usual = {"the": 0.15, "of": 0.04, "goal": 0.001, "cup": 0.001}
    assert feature_name(masses(on), usual) == "“of”, “goal”, “Cup” …"  # “the” has 1.3 times its share
    assert feature_name(masses([(" the", 0.9)]), {"the": 0.15}) == "“the”"
    assert feature_name(masses([(" the", 0.2)]), {"the": 0.15}) == "“the” …"  # there is no other


def test_forms_are_what_tokens_have_in_common():
    assert [form(token) for token in (" The", "the", "THE ", " ", "\n")] == ["the", "the", "the", "", "\n"]


@pytest.mark.parametrize(
    ("sport", "tech", "topic"),
    [(0.8, 0.2, "sport"), (0.6, 0.2, "sport"), (0.58, 0.2, None), (0.4, 0.6, "tech"), (0.0, 0.0, None)],
)
def test_a_topic_needs_twice_the_mass_per_token_of_any_other(sport, tech, topic):
    assert leading_topic({"tech": tech, "sport": sport}, {"tech": 0.2, "sport": 0.3}) == topic


def test_one_topic_alone_leads_nothing():
    assert leading_topic({"sport": 1.0}, {"sport": 1.0}) is None
    assert leading_topic({}, {}) is None


def test_a_leading_topic_follows_the_name():
    found = masses([(" goal", 0.9)], topics={"sport": 0.9, "tech": 0.1})
    assert feature_name(found, topics={"sport": 0.5, "tech": 0.5}) == "“goal” · sport"
    assert feature_name(found, topics={"sport": 0.9, "tech": 0.1}) == "“goal”"
