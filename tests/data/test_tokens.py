import numpy as np
import pytest
import tokenizers
import transformers

from archsae_core.data.corpus import Corpus, shuffled
from archsae_core.data.language_model import load_tokenizer
from archsae_core.data.text_files import TextError
from archsae_core.data.tokens import take_budget, tokenize, tokenize_split
from archsae_study.config import configure


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
            smoke(context=4, tokens=budget).corpus,
            smoke(context=4, tokens=budget).language_model.context,
        )
        assert taken == shuffled(8)[:n_documents]
        assert tokenize(corpus, taken, numbers, 4).n_tokens == 8 * n_documents
    assert take_budget(
        corpus, numbers, smoke(context=4, tokens=None).corpus, smoke(context=4, tokens=None).language_model.context
    ) == shuffled(8)


def test_budget_too_small_for_three_documents_is_refused_by_field(numbers):
    with pytest.raises(TextError, match=r"tokens = 16: .* after 2 documents"):
        take_budget(
            documents(*[9] * 8),
            numbers,
            smoke(context=4, tokens=16).corpus,
            smoke(context=4, tokens=16).language_model.context,
        )


def test_parts_are_disjoint_and_shrink_alike_with_the_budget():
    config = smoke()
    tokenizer = load_tokenizer(config.language_model)
    corpus = documents(*[20] * 100)
    sizes = {}
    for budget in (None, 2000):
        parts = tokenize_split(
            corpus, tokenizer, smoke(tokens=budget).corpus, smoke(tokens=budget).language_model.context
        )
        owners = [set(part.document.tolist()) for part in parts]
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
        tokenize_split(documents(*[1] * 10), numbers, smoke().corpus, smoke().language_model.context)
