import json
import math

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from toy import D_MODEL, activation_set, language_model, token_set, unit_sae

from archsae_core.config import ConfigError
from archsae_core.metrics import contexts, features
from archsae_core.metrics.contexts import token_strings
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE
from archsae_study.pages.rendering import context_html

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level, one token a byte, so that many characters take several tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe)


X = torch.tensor([[3.0, 1.0], [1.0, 2.0], [5.0, 0.0], [-1.0, -2.0], [4.0, 1.0]])
"""With k = 1: feature 0 fires on rows 0, 2 and 4 (3, 5, 4), feature 1 on row 1, features 2 and 3 (−x) on row 3 (2)."""


def example():
    tokens = token_set([4, 3], [0, 1])  # rows 0–2 of window 0, 3–4 of window 1
    return unit_sae(4, 2), activation_set(X, tokens), tokens


# --- scan ---


def test_scan_by_hand():
    sae, activations, _ = example()
    found = features.scan(sae, activations)
    values, rows = found.firings(0)
    assert (values.tolist(), rows.tolist()) == ([5, 4, 3], [2, 4, 0])
    table = features.table(found, top=2)
    assert table == {
        "firing_rate": [0.6, 0.2, 0.0, 0.2],
        "max": [5, 2, 0, 2],
        "mean_active": [4, 2, 0, 2],
        "top_rows": [[2, 4], [1], [], [3]],
    }
    json.dumps(table)


def test_scan_agrees_with_dense_codes(monkeypatch):
    monkeypatch.setattr(features, "SCAN_ROWS", 7)
    sae, x = unit_sae(12, 6, k=8), torch.randn(40, 6)  # 6 codes are above 0, 2 of the 8 are not
    found = features.scan(sae, activation_set(x, token_set([21, 21], [0, 1])), torch.arange(5, 40))
    dense = sae.encode(x[5:]).dense(12)
    for feature in range(12):
        values, rows = found.firings(feature)
        assert rows.tolist() == (dense[:, feature].argsort(descending=True)[: len(rows)] + 5).tolist()
        assert values.tolist() == dense[rows - 5, feature].tolist()
        assert len(rows) == (dense[:, feature] > 0).sum()
    assert np.allclose(features.table(found)["mean_active"], dense.sum(dim=0) / (dense > 0).sum(dim=0).clamp_min(1))


def test_unknown_feature_is_an_error():
    sae, activations, _ = example()
    for feature in (4, -1):
        with pytest.raises(IndexError, match="features 0 … 3"):
            features.scan(sae, activations).firings(feature)


def test_token_entropy_by_hand():
    sae, activations, _ = example()
    found = features.scan(sae, activations)
    activations.token[torch.tensor([0, 2, 4])] = torch.tensor([7, 7, 9], dtype=torch.int32)
    third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert features.token_entropy(found, activations, top=3) == [pytest.approx(third), None, None, None]
    assert features.token_entropy(found, activations, top=1) == [0, 0, None, 0]


# --- contexts ---


def test_bands_hold_rows_of_different_windows_from_a_quantile_downwards():
    sae, activations, _ = example()
    found = features.scan(sae, activations)
    bands = features.band_rows(found, 0, activations)
    assert [(quantile, value) for quantile, value, _ in bands] == list(
        zip(features.BANDS, [5, 5, 5, 4, 3, 3], strict=True)
    )
    assert [rows for _, _, rows in bands] == [[2, 4], [2, 4], [2, 4], [4, 0], [0], [0]]  # rows 0 and 2 share a window
    assert features.band_rows(found, 0, activations, per_band=1)[0][2] == [2]
    assert features.band_rows(found, 2, activations) == []  # it never fires


def test_a_context_is_cut_around_the_marked_token(tokenizer):
    tokens = token_set([30], [0])
    activations = activation_set(torch.randn(29, 2), tokens)
    found = contexts.context(activations, tokens, tokenizer, 19, {(0, 20): 1.5, (0, 22): 0.5}, before=3, after=2)
    assert found["marked"] == 3
    assert found["values"] == [0, 0, 0, 1.5, 0, 0.5]
    assert "".join(found["tokens"]) == tokenizer.decode(tokens.ids[0][17:23])


def test_token_strings_join_to_the_text(tokenizer):
    text = "a café — 東京 🙂 end"
    ids = tokenizer(text)["input_ids"]
    strings = token_strings(tokenizer, ids)
    assert "".join(strings) == text
    assert strings[:3] == ["a", " ", "c"]
    assert len(strings) == len(ids) > len(text)


def test_word_level_tokens_keep_their_spaces():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "the": 1, "cat": 2}, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert token_strings(transformers.PreTrainedTokenizerFast(tokenizer_object=words), [1, 2]) == ["the", " cat"]


def test_html_escapes_tokens_and_needs_no_style():
    found = context_html(["<script>", "a&b", ' "x"', "\n"], [0.0, 2.0, 1.0, 0.0], 1)
    assert found == "&#60;script&#62;<mark>a&#38;b</mark><b> &#34;x&#34;</b>⏎"


def test_dollars_cannot_start_a_formula():
    assert context_html(["$5", "$6"], [0.0, 0.0], 5) == "<span>&#36;</span>5<span>&#36;</span>6"


# --- output and anchors ---


def test_output_effects_are_the_atom_through_norm_and_unembedding(tokenizer):
    model, sae = language_model("llama"), unit_sae(D_MODEL, D_MODEL, scale=0.1)
    model.model.norm.weight.data.uniform_(0.5, 2)
    found = features.output_effects(model, sae, tokenizer, torch.tensor([3]), top=4)
    # RMSNorm of e_3 is √d γ_3 e_3
    effect = model.lm_head.weight[:, 3] * model.model.norm.weight[3] * D_MODEL**0.5
    effect = effect - effect.mean()
    assert found.promoted[0].tolist() == effect.topk(4).indices.tolist()
    assert found.suppressed[0].tolist() == (-effect).topk(4).indices.tolist()
    assert float(found.promoted_logit[0, 0]) == pytest.approx(effect.max().item(), rel=1e-4)


def test_output_effects_rank_what_the_tokenizer_knows_and_nothing_else():
    model, sae = language_model("llama"), unit_sae(D_MODEL, D_MODEL, scale=0.1)
    known = [7, 0, 21, 30, 49]  # of 50 embeddings
    words = {f"w{i}": i for i in known} | {"beyond": 60}
    entries = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    few = transformers.PreTrainedTokenizerFast(tokenizer_object=entries)
    found = features.output_effects(model, sae, few, torch.tensor([3]), top=10)
    effect = (model.lm_head.weight[:, 3] * model.model.norm.weight[3] * D_MODEL**0.5)[known]
    effect = effect - effect.mean()
    order = effect.argsort(descending=True)
    assert found.promoted[0].tolist() == [known[i] for i in order]
    assert found.suppressed[0].tolist() == [known[i] for i in order.flip(0)]
    torch.testing.assert_close(found.promoted_logit[0], effect[order], rtol=1e-4, atol=1e-5)


def test_output_effects_leave_out_what_the_norm_adds_by_itself(tokenizer):
    model, sae = language_model("gpt2"), unit_sae(D_MODEL, D_MODEL)
    plain = features.output_effects(model, sae, tokenizer, torch.tensor([0]), top=3)
    model.transformer.ln_f.bias.data.normal_(std=100)
    biased = features.output_effects(model, sae, tokenizer, torch.tensor([0]), top=3)
    assert torch.equal(plain.promoted, biased.promoted)


def archetypal():
    anchors = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    dictionary = ArchetypalDictionary(anchors, torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]), delta=1.0)
    dictionary.relax.data[0] = torch.tensor([0.5, 0.0])
    return SAE(dictionary, 1, torch.ones(2), 1.0)  # activations are centred by (1, 1)


def test_mixtures_by_hand():
    found = features.mixtures(archetypal(), torch.tensor([0]), top=3)
    assert found.anchor[0, :2].tolist() == [1, 0]
    assert found.weight[0].tolist() == [0.75, 0.25, 0]
    # atom ∝ (0.5 + 0.5, 1.5)
    assert float(found.cosine[0, 0]) == pytest.approx(1.5 / math.hypot(1, 1.5))
    assert float(found.relaxation[0]) == 0.5
    assert float(found.hull_share[0]) == pytest.approx(math.hypot(0.5, 1.5) / (math.hypot(0.5, 1.5) + 0.5))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(found.effective_anchors[0]) == pytest.approx(math.exp(entropy))


def test_nearest_rows_by_hand():
    sae, activations = archetypal(), activation_set(X, token_set([4, 3], [0, 1]))
    # anchor 1 lies at raw (1, 3): row 1 is 1 away, row 0 √8; anchor 0 at (3, 1): row 0 itself, then row 4
    near = features.nearest_rows(sae, sae.dictionary.C[[1, 0]], activations, None, 2)
    assert near.tolist() == [[1, 0], [0, 4]]
    assert features.nearest_rows(sae, sae.dictionary.C[[1]], activations, torch.tensor([0, 4]), 1).tolist() == [[0]]


def test_nearest_rows_do_not_depend_on_the_chunks(monkeypatch):
    sae, activations = archetypal(), activation_set(torch.randn(40, 2), token_set([41], [0]))
    whole = features.nearest_rows(sae, sae.dictionary.C, activations, None, 3)
    monkeypatch.setattr(features, "SCAN_ROWS", 3)
    assert torch.equal(features.nearest_rows(sae, sae.dictionary.C, activations, None, 3), whole)


def test_a_free_dictionary_has_no_anchors():
    with pytest.raises(TypeError, match="no anchors"):
        features.mixtures(example()[0])


def test_rows_of_a_scan_are_indices_and_codes_by_token_need_them_in_order():
    sae, activations, _ = example()
    with pytest.raises(ConfigError, match="rows must lie between 0 and 4"):
        features.scan(sae, activations, torch.tensor([5]))
    assert features.scan(sae, activations, torch.tensor([0, 2, 4])).by_token().shape == (3, 4)
    with pytest.raises(ConfigError, match="rows: they must ascend"):
        features.scan(sae, activations, torch.tensor([4, 0])).by_token()
