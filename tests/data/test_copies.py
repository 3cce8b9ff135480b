import html
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsae_core.data import copies
from archsae_core.data.copies import (
    PASSAGE_WORDS,
    decode_entities,
    find_copies,
    has_invisible,
    normalised_words,
    without_copies,
)

WORDS = ["".join(pair) for pair in itertools.product("bdfgklmnprst", ("a", "e", "i", "o", "u", "ai", "or"))]
WORDS = ["".join(pair) for pair in itertools.product(WORDS, WORDS)]


def documents(n, length=200, seed=0):
    """Unrelated documents of words drawn from 7,056."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=length)) for _ in range(n)]


def edited(text, every):
    """Every so many words, one is replaced, dropped or followed by another one in turn."""
    words = text.split()
    for place in range(every - 1, len(words), every):
        words[place] = ("new", "", f"{words[place]} more")[place % 3]
    return " ".join(words)


def disguised(text):
    """Other case, white space and punctuation, and entities that were escaped twice."""
    lines = text.upper().replace(" ", ",\n\t", 3).replace("É", "&Eacute;")
    return html.escape(f"<{lines}>!")


# --- what counts as the same ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's  hat\n— twice!", ["the", "cat", "s", "hat", "twice"]),
        ("Caf&eacute; &amp;#233; &lt;b&gt;", ["café", "é", "b"]),
        ("STRASSE Straße ﬁne Ａ１ snake_case", ["strasse", "strasse", "fine", "a1", "snake", "case"]),
        ("他说今天下雨。Yes", ["他说", "今天", "下雨", "yes"]),
        ("สวัสดี", ["สว", "ัส", "ดี"]),
        ("in\u00adfor\u00admation &shy; zero\u200bwidth", ["information", "zerowidth"]),
        ("\ufeffmark \u202bא\u202c", ["mark", "א"]),
        ("!!! — …", []),
    ],
)
def test_normalised_words(text, words):
    assert normalised_words(text) == words


def test_entities_are_decoded_twice_and_other_ampersands_stay():
    assert decode_entities("a &#233; &amp;eacute; R&D &nosuch; &lt;b&gt;") == "a é é R&D &nosuch; <b>"


def test_exact_copies_by_hand():
    found = find_copies(["One cat.", "two", "ONE\n cat", "???", "two!", " ??? ", "!!!"])
    assert found.exact.tolist() == [0, 1, 0, 3, 1, 3, 6]
    assert found.groups.tolist() == [0, 1, 0, 3, 1, 3, 6]
    assert found.examples[:2] == ((0, 2, "one cat"), (1, 4, "two"))


def test_copies_with_soft_hyphens_are_copies():
    words = " ".join(f"wo\u00adrd{i}" for i in range(40))
    texts = ["other", words, words.replace("\u00ad", ""), words.replace("\u00ad", "\u200b") + " more", "no\u00adthing"]
    found = find_copies(texts)
    assert found.exact.tolist() == [0, 1, 1, 3, 4]
    assert found.groups.tolist() == [0, 1, 1, 1, 4]
    assert [has_invisible(text) for text in texts] == [False, True, False, True, True]


def test_near_copies_by_hand():
    texts = ["a b c d e", "x a b c y", "b c d", "c d e f g h", "g h i", "a b", "e a b d"]
    found = find_copies(texts, passage_words=3)
    # abc joins 0 and 1, bcd 0 and 2, cde 0 and 3; "g h" is too short, and "a b" has no passage of three words
    assert found.groups.tolist() == [0, 0, 0, 0, 4, 5, 6]
    assert found.exact.tolist() == list(range(7))
    assert found.examples == ((0, 1, "a b c"),)
    assert without_copies(texts, passage_words=3).tolist() == [0, 4, 5, 6]


def test_a_passage_ends_with_its_document():
    assert find_copies(["a b", "c d", "a b c d", "b c d a"], passage_words=3).groups.tolist() == [0, 1, 2, 2]


# --- copies are found and others are not ---


def planted(text, other):
    middle = " ".join(text.split()[90 : 90 + PASSAGE_WORDS + 8])
    opening = " ".join(text.split()[: PASSAGE_WORDS + 8])
    return {
        "disguised": disguised(text),
        "edited": edited(text, 25),
        "shortened": " ".join(text.split()[40:90]),
        "same opening": f"{opening} {other}",
        "same middle": f"{other[:300]} {middle} {other[300:]}",
    }


@pytest.mark.parametrize("kind", planted("", ""))
def test_planted_copies_are_found_and_unrelated_documents_are_not(kind):
    texts, others = documents(40), documents(40, seed=1)
    copied = [planted(text, other)[kind] for text, other in zip(texts, others, strict=True)]
    unrelated = documents(40, seed=2)
    found = find_copies(texts + unrelated + copied)
    assert found.groups.tolist() == [*range(80), *range(40)]
    assert (found.exact[80:] < 80).all() == (kind == "disguised")
    assert not found.boilerplate.any()


def test_unspaced_script():
    generator = random.Random(0)
    texts = ["".join(chr(generator.randrange(0x4E00, 0x9FFF)) for _ in range(200)) for _ in range(5)]
    changed = [text[:120] + "，" + text[121:] for text in texts]
    assert find_copies(texts + changed).groups.tolist() == [*range(5), *range(5)]


texts_of_few_words = st.lists(st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join), min_size=1, max_size=12)


def share(one, other, n=3):
    """Whether two documents are copies, from the definition."""
    one, other = one.split(), other.split()
    runs = [{tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (one, other)]
    return one == other or bool(runs[0] & runs[1])


@given(texts_of_few_words)
def test_groups_are_the_components_of_the_definition(texts):
    groups = list(range(len(texts)))
    for _ in texts:
        for i, j in itertools.combinations(range(len(texts)), 2):
            if share(texts[i], texts[j]):
                groups[i] = groups[j] = min(groups[i], groups[j])
    assert find_copies(texts, passage_words=3).groups.tolist() == groups


@given(texts_of_few_words)
def test_without_copies_keeps_the_first_of_each_and_no_two_that_share(texts):
    kept = without_copies(texts, passage_words=3).tolist()
    assert kept == sorted(kept)
    for i, text in enumerate(texts):
        earlier = any(share(texts[j], text) for j in kept if j < i)
        assert (i in kept) != earlier


@given(texts_of_few_words, st.integers(1, 9))
def test_the_size_of_a_part_changes_nothing(texts, part):
    whole = find_copies(texts, passage_words=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "PART", part)
        assert find_copies(texts, passage_words=2).groups.tolist() == whole.groups.tolist()


# --- boilerplate ---

FOOTER = " ".join(WORDS[-30:])


def test_a_footer_of_all_documents_makes_no_copies():
    texts = [f"{text} {FOOTER}" for text in documents(60)]
    found = find_copies([*texts, edited(texts[7], 25), *documents(5, seed=1)])
    assert found.groups.tolist() == [*range(60), 7, *range(61, 66)]
    assert found.boilerplate.tolist() == [True] * 61 + [False] * 5


def test_a_footer_of_few_documents_makes_copies():
    texts = [f"{text} {FOOTER}" for text in documents(20)]
    assert set(find_copies(texts).groups.tolist()) == {0}


def test_documents_that_are_mostly_boilerplate_are_copies():
    opening = documents(1, length=100, seed=3)[0]
    texts = [f"{opening} number {i} of them" for i in range(60)] + documents(10)
    found = find_copies(texts)
    assert found.groups.tolist() == [0] * 60 + list(range(60, 70))
    assert not found.boilerplate.any()


def test_vowel_signs_and_accents_belong_to_their_word():
    """Python counts these marks as punctuation: words that differ by them were the same, and cut into pieces."""
    assert normalised_words("हिन्दी का, की।") == ["हिन्दी", "का", "की"]
    assert find_copies(["का की", "के कु"]).exact.tolist() == [0, 1]
    assert len(normalised_words("ভাষা தமிழ் עִבְרִית عَرَبِيّ")) == 4


def test_an_example_quotes_what_both_documents_hold_and_no_text_has_no_copies():
    (example,) = find_copies(["a b c d e f g h", "x a b c y z q r"], passage_words=3).examples
    assert example.words == "a b c"
    assert find_copies([]).exact.tolist() == without_copies([]).tolist() == []
