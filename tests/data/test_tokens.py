import copy
import random

import numpy as np
import pytest
import tokenizers
import transformers

from archsae_core.data.copies import find_copies, normalised_words
from archsae_core.data.corpus import Corpus, copies_report, load_text, shuffled, split_documents, synthetic
from archsae_core.data.language_model import load_tokenizer
from archsae_core.data.text_files import TextError
from archsae_core.data.tokens import take_budget, tokenize, tokenize_split, window_start
from archsae_study.settings.config import ConfigError, configure


def smoke(**changes):
    return configure({"preset": "smoke", **changes})


@pytest.fixture(scope="module")
def numbers():
    """A tokenizer that turns the word "7" into token 7, with <s> as an entry and a start token by default."""
    words = {str(number): number for number in range(100)} | {"<s>": 100, "<": 101, "s": 102, ">": 103}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation()]
    )
    model.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 100)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>")


def documents(*lengths):
    """Document i holds i, i + 1, … ."""
    texts = tuple(" ".join(str(i + j) for j in range(length)) for i, length in enumerate(lengths))
    return Corpus(texts, None, "0" * 16)


def test_windows_by_hand(numbers):
    tokens = tokenize(documents(9, 1, 4, 6), [3, 0, 1, 2], numbers, context=4)
    expected = [[3, 4, 5, 6], [7, 8], [0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 4, 5]]
    assert [window.tolist() for window in tokens.ids] == expected
    assert tokens.document.tolist() == [3, 3, 0, 0, 2]
    assert tokens.n_tokens == 18
    assert {window.dtype for window in tokens.ids} == {np.dtype("int32")} == {tokens.document.dtype}


def test_special_tokens_are_neither_added_nor_read_from_the_text(numbers):
    assert numbers("5 <s>").input_ids == [100, 5, 100]
    tokens = tokenize(Corpus(("5 <s>",), None, "0" * 16), [0], numbers, context=8)
    assert [window.tolist() for window in tokens.ids] == [[5, 101, 102, 103]]


# --- what windows begin with ---


@pytest.mark.parametrize(("bos", "start"), [("auto", (100,)), ("true", (100,)), ("false", ())])
def test_windows_begin_as_the_tokenizer_does_or_as_asked(numbers, bos, start):
    assert window_start(numbers, bos) == start


def test_a_tokenizer_that_begins_with_nothing_is_followed_unless_told_otherwise():
    tokenizer = load_tokenizer(smoke().language_model)
    assert window_start(tokenizer, "auto") == window_start(tokenizer, "false") == ()
    with pytest.raises(ConfigError, match=r"bos = 'true': the tokenizer has no token .*: set it to auto or false"):
        window_start(tokenizer, "true")


def test_a_token_after_the_text_is_not_one_before_it(numbers):
    ending = copy.deepcopy(numbers)
    template = tokenizers.processors.TemplateProcessing(single="$A <s>", special_tokens=[("<s>", 100)])
    ending.backend_tokenizer.post_processor = template
    assert ending("5").input_ids == [5, 100]
    assert window_start(ending, "auto") == ()


def test_every_window_of_a_document_begins_with_it_and_none_is_longer(numbers):
    tokens = tokenize(documents(5, 1, 4), [0, 1, 2], numbers, 4, (100,))
    expected = [[100, 0, 1, 2], [100, 3, 4], [100, 1], [100, 2, 3, 4], [100, 5]]
    assert [window.tolist() for window in tokens.ids] == expected
    assert tokens.document.tolist() == [0, 0, 1, 2, 2]


def test_budget_and_parts_count_what_windows_begin_with(numbers):
    corpus = documents(*[6] * 9)
    # with a context of 4, each document has two windows of 1 + 3 tokens
    for budget, n_documents in ((17, 3), (24, 3), (25, 4)):
        assert len(take_budget(corpus, numbers, smoke(tokens=budget).corpus, 4)) == n_documents
    for bos, first in (("auto", {100}), ("false", set(range(9)) | {4 + i for i in range(9)})):
        parts = tokenize_split(corpus, numbers, smoke(bos=bos).corpus, 4)
        found = {int(window[0]) for part in (parts.train, parts.validation, parts.heldout) for window in part.ids}
        assert found <= first


def test_a_context_that_its_beginning_fills_is_refused(numbers):
    with pytest.raises(ConfigError, match="context = 2: the tokenizer begins every window with 2 tokens"):
        tokenize(documents(5), [0], numbers, 2, (100, 100))


def test_bos_is_one_of_three_words():
    assert smoke(bos=True).corpus.bos == "true"
    with pytest.raises(ConfigError, match="bos = 'perhaps': must be one of auto, true, false"):
        smoke(bos="perhaps")


def test_more_documents_than_one_call_of_the_tokenizer_takes(numbers, monkeypatch):
    monkeypatch.setattr("archsae_core.data.tokens.BATCH_DOCUMENTS", 2)
    corpus = documents(2, 3, 4, 5, 2)
    tokens = tokenize(corpus, range(5), numbers, context=8)
    assert tokens.document.tolist() == [0, 1, 2, 3, 4]
    assert [len(window) for window in tokens.ids] == [2, 3, 4, 5, 2]


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_budget_takes_whole_documents_until_it_is_reached(numbers, monkeypatch, batch):
    monkeypatch.setattr("archsae_core.data.tokens.BATCH_DOCUMENTS", batch)
    corpus = documents(*[9] * 8)
    # with a context of 4, each document has 8 tokens in windows of 2 or more
    for budget, n_documents in ((17, 3), (24, 3), (25, 4), (10_000, 8)):
        taken = take_budget(
            corpus,
            numbers,
            smoke(context=4, tokens=budget, bos="false").corpus,
            4,
        )
        assert taken == shuffled(8)[:n_documents]
        assert tokenize(corpus, taken, numbers, 4).n_tokens == 8 * n_documents
    assert take_budget(
        corpus,
        numbers,
        smoke(context=4, tokens=None, bos="false").corpus,
        4,
    ) == shuffled(8)


def test_budget_too_small_for_three_documents_is_refused_by_field(numbers):
    with pytest.raises(TextError, match=r"tokens = 16: .* after 2 documents"):
        take_budget(
            documents(*[9] * 8),
            numbers,
            smoke(context=4, tokens=16, bos="false").corpus,
            4,
        )


def test_parts_are_disjoint_and_shrink_alike_with_the_budget():
    config = smoke()
    tokenizer = load_tokenizer(config.language_model)
    corpus = Corpus(tuple(synthetic().texts[:100]), None, "0" * 16)
    sizes = {}
    for budget in (None, 2000):
        parts = tokenize_split(
            corpus, tokenizer, smoke(tokens=budget).corpus, smoke(tokens=budget).language_model.context
        )
        owners = [set(part.document.tolist()) for part in (parts.train, parts.validation, parts.heldout)]
        assert not (owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2])
        assert set.union(*owners) == set(
            take_budget(corpus, tokenizer, smoke(tokens=budget).corpus, smoke(tokens=budget).language_model.context)
        )
        sizes[budget] = [len(owner) for owner in owners]
    assert sizes[None] == [85, 5, 10]
    n_documents = sum(sizes[2000])
    assert sizes[2000][1:] == [round(0.05 * n_documents), round(0.1 * n_documents)]
    assert n_documents < 60


def test_a_part_without_tokens_is_refused(numbers):
    with pytest.raises(TextError, match=r"text = .*2 tokens"):
        tokenize_split(documents(*[1] * 10), numbers, smoke(bos="false").corpus, 32)


# --- no copy of a training document is held out ---


def variants(text, generator):
    """Copies of a document as people's texts hold them."""
    words = text.split()
    edited = list(words)
    for place in generator.sample(range(len(words)), len(words) // 25):
        edited[place] = "changed"
    return [text.upper(), " ".join(edited), f"{' '.join(words[:20])} and something else", " ".join(words[10:])]


@pytest.mark.parametrize("budget", [None, 3000])
@pytest.mark.parametrize("seed", range(5))
def test_no_part_has_a_copy_of_a_document_of_another_part(seed, budget):
    generator = random.Random(seed)
    texts = [copied for text in synthetic().texts[:60] for copied in [text, *variants(text, generator)[: seed % 5]]]
    generator.shuffle(texts)
    config = smoke(tokens=budget)
    tokenizer = load_tokenizer(config.language_model)
    parts = tokenize_split(Corpus(tuple(texts), None, "0" * 16), tokenizer, config.corpus, 32)
    owners = [sorted(set(part.document.tolist())) for part in (parts.train, parts.validation, parts.heldout)]
    runs = [
        {tuple(words[i : i + 16]) for document in owner for words in [normalised_words(texts[document])]
         for i in range(len(words) - 15)}
        for owner in owners
    ]  # fmt: skip
    assert all(runs)
    assert not (runs[0] & runs[1] | runs[0] & runs[2] | runs[1] & runs[2])
    assert (parts.copies.exact + parts.copies.near > 0) == (seed > 0)
    if budget is None:
        assert parts.copies.groups == 60


def test_report_of_copies_by_hand(numbers):
    # documents 0 and 5 are equal, 1 and 6 share words 20 to 39
    texts = [" ".join(str((i * 31 + j * j * 7) % 100) for j in range(30)) for i in range(5)]
    shared = " ".join(str(j * 3 % 100) for j in range(20))
    texts = [
        *texts,
        texts[0].replace(" ", "  "),
        *(f"{' '.join(str(i + j * 5) for j in range(8))} {shared}" for i in (1, 3)),
    ]
    config = smoke(heldout_fraction=0.3, validation_fraction=0.3)
    found = tokenize_split(Corpus(tuple(texts), None, "0" * 16), numbers, config.corpus, 32).copies
    assert (found.documents, found.exact, found.near, found.groups, found.largest) == (8, 1, 1, 6, 2)
    pairs = {(one, other) for one, other, _ in found.examples}
    assert pairs == {(0, 5), (6, 7)}
    naive = split_documents(range(8), config.corpus)
    order = shuffled(8)
    partner = {order.index(one): order.index(other) for pair in ((0, 5), (6, 7)) for one, other in (pair, pair[::-1])}
    for part, leaked in ((naive.validation, found.leaked_validation), (naive.heldout, found.leaked_heldout)):
        assert leaked == sum(partner.get(document) in naive.train for document in part)
    assert "1 of 8 documents are exact copies and 1 near copies of others" in found.warning()
    assert "documents 1 and 6" in found.warning()
    assert "7 and 8 (" in found.warning()


def test_near_copies_may_cross_the_split_where_that_is_asked_for(numbers):
    texts = [f"{' '.join(str(j * 3 % 100) for j in range(30))} {i}" for i in range(10)]
    with pytest.raises(TextError, match=r"its 10 documents are copies of 1.*near_copies"):
        tokenize_split(Corpus(tuple(texts), None, "0" * 16), numbers, smoke().corpus, 32)
    parts = tokenize_split(Corpus(tuple(texts), None, "0" * 16), numbers, smoke(near_copies=False).corpus, 32)
    assert (parts.copies.exact, parts.copies.near, parts.copies.warning()) == (0, 0, None)


def test_the_embedded_news_leaks_no_copy():
    corpus = load_text(smoke(text="bbc-news").corpus)
    found = find_copies(corpus.texts)
    report = copies_report(found, range(len(corpus.texts)), smoke().corpus)
    assert (report.documents, corpus.decoded) == (2225, 25)
    # 100 are equal to the byte
    assert (report.exact, report.near, report.largest, report.boilerplate) == (103, 248, 12, 0)
    assert (report.leaked_validation, report.leaked_heldout) == (27, 60)
    split = split_documents(found.groups.tolist(), smoke().corpus)
    words = [normalised_words(text) for text in corpus.texts]
    runs = [
        {tuple(words[document][i : i + 16]) for document in part for i in range(len(words[document]) - 15)}
        for part in split
    ]
    assert not (runs[0] & runs[1] | runs[0] & runs[2] | runs[1] & runs[2])
    assert [len(part) for part in split] == [1892, 111, 222]
