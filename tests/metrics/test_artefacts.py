"""Formatting tokens, by hand."""

import pytest

from archsae_core.metrics.artefacts import KINDS, WORD, kind_of, kinds_of


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (" ", "white space"), ("\n\n", "white space"), (" .", "punctuation"), (" `", "punctuation"),
        ("\u202e", "punctuation"), (" goal", None), ("7", None), ("£", None), ("don't", None), ("東", None), ("", None),
        ("\N{REPLACEMENT CHARACTER}", None),
    ],
)  # fmt: skip
def test_kind_of_a_token_alone(token, kind):
    assert kind_of(token) == (WORD if kind is None else KINDS.index(kind))


def named(tokens):
    return [None if kind == WORD else KINDS[kind] for kind in kinds_of(tokens)]


def test_entities_and_tags_are_markup_whatever_their_tokens_are():
    assert named(["R", "&", "amp", ";", " D"]) == [None, "markup", "markup", "markup", None]
    assert named(["&#", "233", ";"]) == ["markup"] * 3
    assert named(["a ", "<", "br", "/>", "b"]) == [None, "markup", "markup", "markup", None]
    assert named(["<|", "end", "|>", "."]) == ["markup", "markup", "markup", "punctuation"]


def test_signs_that_are_no_markup_stay_what_they_are():
    assert named(["R", "&", "D", ";"]) == [None, "punctuation", None, "punctuation"]
    assert named(["a ", "<", " b", " >", " c"]) == [None, "punctuation", None, "punctuation", None]
    assert named(["amp", " quot"]) == [None, None]


def test_a_token_with_a_part_of_an_entity_is_markup():
    assert named(["x&am", "p;y", " z"]) == ["markup", "markup", None]
