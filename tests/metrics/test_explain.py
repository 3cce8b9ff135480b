"""Codes of a text, token by token, against the SAE on the model's residual stream."""

import pytest
import tokenizers
import torch
import transformers
from toy import D_MODEL, VOCABULARY, language_model, unit_sae

from archsae_core.metrics.explain import explain
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE

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


@pytest.mark.parametrize("text", ["", "w1"])
def test_a_text_without_a_token_to_read_is_an_error(model, tokenizer, text):
    with pytest.raises(ValueError, match=f"^text = '{text}': give at least 2"):
        explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, text, context=8)


def test_what_windows_begin_with_stands_in_front_of_each(model, tokenizer):
    sae = unit_sae(D_MODEL, D_MODEL)
    found = explain(model, 1, sae, tokenizer, "w1 w2 w5 w4", context=3, start=(3,))
    assert [token.strip() for token in found.tokens] == ["w3", "w1", "w2", "w3", "w5", "w4"]
    assert found.read.tolist() == [False, True, True] * 2
    x = residuals(model, [3, 5, 4], 1)
    assert torch.equal(found.indices[4:, 0], x[1:].argmax(dim=1))
    assert torch.allclose(found.values[4:, 0], x[1:].max(dim=1).values.clamp_min(0), atol=1e-5)


def test_a_window_of_one_token_is_not_read(model, tokenizer):
    found = explain(model, 1, unit_sae(D_MODEL, D_MODEL), tokenizer, "w1 w2 w5", context=2)
    assert found.read.tolist() == [False, True, False]


def test_windows_of_a_batchtopk_sae_have_one_width(model, tokenizer):
    atoms = torch.eye(D_MODEL)
    sae = SAE(FreeDictionary(torch.cat([atoms, -atoms])), 3, activation="batchtopk")
    sae.threshold.fill_(0.3)
    text = " ".join(f"w{i}" for i in range(1, 30))
    widths = {len(sae.encode(residuals(model, range(i, min(i + 4, 30)), 1)).values[0]) for i in range(1, 30, 4)}
    assert len(widths) > 1
    found = explain(model, 1, sae, tokenizer, text, context=4)
    assert found.values.shape == found.indices.shape == (29, max(widths))
