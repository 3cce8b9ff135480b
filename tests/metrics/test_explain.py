"""Codes of a text, token by token, against the SAE on the model's residual stream."""

import pytest
import tokenizers
import torch
import transformers
from toy import D_MODEL, VOCABULARY, language_model, unit_sae

from archsae_core.metrics.explain import explain

WORDS = [f"w{i}" for i in range(VOCABULARY)]


@pytest.fixture(scope="module")
def tokenizer():
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.fixture(scope="module")
def model():
    return language_model("llama")


def residuals(model, ids, layer):
    """By transformers' own hidden states."""
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0]


def test_codes_are_those_of_the_residual_stream(model, tokenizer):
    found = explain(model, 1, unit_sae(2 * D_MODEL, D_MODEL, k=3), tokenizer, "w3 w1 w4 w1", context=8)
    assert [token.strip() for token in found.tokens] == ["w3", "w1", "w4", "w1"]
    assert found.read.tolist() == [False, True, True, True]
    assert not found.values[0].any()
    x = residuals(model, [3, 1, 4, 1], 1)
    both = torch.cat([x, -x], dim=1)  # feature i reads dimension i, feature D_MODEL + i its opposite
    top = both.topk(3, dim=1)
    assert torch.equal(found.indices[1:], top.indices[1:])
    assert torch.allclose(found.values[1:], top.values[1:], atol=1e-5)


def test_outliers_are_passed_over(model, tokenizer):
    norms = residuals(model, [3, 1, 4, 1], 1).norm(dim=1)
    limit = float(norms[1:].sort().values[1])  # the largest of the three lies above it
    found = explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, "w3 w1 w4 w1", context=8, max_norm=limit)
    assert found.read.sum() == 2
    assert not found.values[~found.read].any()


@pytest.mark.parametrize(("text", "fix"), [("", "at least 2"), ("w1", "at least 2"), ("w1 " * 9, "shorten it")])
def test_texts_that_do_not_fit_are_an_error(model, tokenizer, text, fix):
    with pytest.raises(ValueError, match=f"^text = .*{fix}"):
        explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, text, context=8)


def test_what_windows_begin_with_stands_in_front(model, tokenizer):
    found = explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, "w1", context=8, start=(3,))
    assert [token.strip() for token in found.tokens] == ["w3", "w1"]
    x = residuals(model, [3, 1], 1)
    assert found.indices[1, 0] == x[1].argmax()
    with pytest.raises(ValueError, match="it has 3 tokens: at most 2 fit"):
        explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, "w1 w2", context=2, start=(3,))
