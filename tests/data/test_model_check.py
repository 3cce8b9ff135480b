import pytest
import torch
import transformers
from architectures import CONTEXT, build, use
from toy import ARCHITECTURES, language_model

from archsae_core.config import ConfigError
from archsae_core.data import model_check
from archsae_core.data import splice as splicing
from archsae_core.data.language_model import ModelError, blocks
from archsae_core.data.model_check import check_model
from archsae_core.data.splice import splice

FAMILIES = """gpt2 llama gpt_neox opt gemma2 gemma3_text qwen2 qwen3 mistral mixtral phi bloom gpt_neo falcon openai-gpt
 mamba bart""".split()
ENCODERS = ["bert", "roberta", "electra", "xlnet"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_passes_at_every_block_and_gives_the_numbers_it_should(family):
    model = build(family)
    for layer in range(len(blocks(model))):
        check_model(model, layer, CONTEXT)
        use(model, layer)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_refused_because_it_sees_later_tokens(family):
    with pytest.raises(ModelError, match=r"model: \w+ sees later tokens: .*decoder-only"):
        check_model(build(family), 1, CONTEXT)


def test_an_encoder_made_a_decoder_passes():
    config = build("bert").config
    config.is_decoder = True
    check_model(transformers.BertLMHeadModel(config).eval(), 1, CONTEXT)


@pytest.mark.parametrize("family", ["gemma3n_text", "reformer"])
def test_what_cannot_be_spliced_is_refused_without_a_traceback(family):
    with pytest.raises(ModelError, match=r"^model: \w+ (returns no vector|cannot be run)"):
        check_model(build(family), 1, CONTEXT)


def test_a_vision_encoder_with_as_many_blocks_is_not_taken_for_the_decoder():
    model = build("got_ocr2")
    assert blocks(model) is model.model.language_model.layers


# --- each property, broken alone ---


def gpt2(kind=transformers.GPT2LMHeadModel):
    """Three random blocks, as an instance of `kind`."""
    model = language_model("gpt2")
    model.__class__ = kind
    return model


def adding(model, amount, *, take_away=True):
    """Block 1 writes `amount(model)` on top, which block 2 takes away again: the logits stay as they were."""
    added = []

    def add(module, inputs, output):
        added.append(amount(output))
        return output + added[-1]

    model.transformer.h[1].register_forward_hook(add)
    if take_away:
        model.transformer.h[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] - added[-1], *inputs[1:]))
    return model


def refused(model, fault, layer=1):
    with pytest.raises(ModelError, match=rf"^model: \w+ {fault}.*: \w"):
        check_model(model, layer, 16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sound_models_pass(architecture):
    check_model(language_model(architecture), 1, 16)
    check_model(language_model(architecture).to(torch.bfloat16), 1, 16)


def test_logits_that_see_later_tokens():
    class Seeing(transformers.GPT2LMHeadModel):
        def forward(self, input_ids, **options):
            output = super().forward(input_ids=input_ids, **options)
            output.logits += 0.01 * input_ids.float().mean(dim=1)[:, None, None]
            return output

    refused(gpt2(Seeing), "sees later tokens: they change the logits")


def test_a_block_that_sees_later_tokens_while_the_logits_do_not():
    model = adding(gpt2(), lambda output: 0.01 * output.mean(dim=1, keepdim=True))
    refused(model, "sees later tokens: they change what block 1")


class Counting(transformers.GPT2LMHeadModel):
    """Knows how many tokens are real."""

    def forward(self, input_ids, attention_mask, **options):
        self.count = attention_mask.sum()
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)


def test_logits_that_depend_on_padding():
    class Adding(Counting):
        def forward(self, **options):
            output = super().forward(**options)
            output.logits += 0.01 * self.count
            return output

    refused(gpt2(Adding), "lets padding on the right change the logits")


def test_a_block_that_depends_on_padding_while_the_logits_do_not():
    model = gpt2(Counting)
    refused(adding(model, lambda output: 0.01 * model.count.float()), "lets padding on the right change what block 1")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["block", "head"])
def test_numbers_that_are_not_finite(value, place):
    model = gpt2()
    {"block": model.transformer.h[1].mlp.c_proj.bias, "head": model.transformer.ln_f.bias}[place].fill_(value)
    refused(model, "gives NaN or infinity in float32")


def test_a_block_that_returns_no_vector_a_token():
    model = gpt2()
    model.transformer.h[1].register_forward_hook(lambda module, inputs, output: output[None])
    model.transformer.h[2].register_forward_pre_hook(lambda module, inputs: (inputs[0][0], *inputs[1:]))
    refused(model, "returns no vector of d_model numbers a token from block 1")


@pytest.mark.parametrize("told", [lambda hidden: tuple(2 * states for states in hidden), lambda hidden: hidden[:1]])
def test_hidden_states_that_are_not_what_the_block_returns(told):
    class Lying(transformers.GPT2LMHeadModel):
        def forward(self, **options):
            output = super().forward(**options)
            if output.hidden_states is not None:
                output.hidden_states = told(output.hidden_states)
            return output

    refused(gpt2(Lying), r"(returns from block 1 what is not|gives no) hidden_states\[2\]")


def test_a_head_that_reads_more_than_the_final_states():
    class Peeking(transformers.GPT2LMHeadModel):
        def forward(self, input_ids, **options):
            output = super().forward(input_ids=input_ids, **options)
            output.logits += 0.01 * input_ids[..., None]
            return output

    refused(gpt2(Peeking), "has a head that gives other logits")


def test_a_block_that_reads_what_an_earlier_one_left():
    model, left = gpt2(), []
    model.transformer.h[0].mlp.register_forward_hook(lambda module, inputs, output: left.append(output))

    def read(module, inputs):
        return (inputs[0] + (left.pop() if left else 0), *inputs[1:])

    model.transformer.h[2].register_forward_pre_hook(read)
    refused(model, "changes when what block 1 writes is spliced into itself")


def test_a_block_that_nothing_reads():
    model, embedded = gpt2(), []
    model.transformer.drop.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    model.transformer.h[2].register_forward_pre_hook(lambda module, inputs: (embedded[-1], *inputs[1:]))
    refused(model, "ignores what is spliced in after block 1")


def test_a_block_that_runs_twice():
    class Twice(transformers.GPT2LMHeadModel):
        def forward(self, **options):
            super().forward(**options)
            return super().forward(**options)

    refused(gpt2(Twice), "runs block 1 2 times")


def test_a_model_that_fails():
    class Failing(transformers.GPT2LMHeadModel):
        def forward(self, **options):
            raise IndexError("no such\nrow")

    refused(gpt2(Failing), r"cannot be run or spliced \(IndexError: no such\)")


@pytest.mark.parametrize("parts", [lambda model: [], lambda model: [model.lm_head]])
def test_a_body_without_final_states(parts, monkeypatch):
    monkeypatch.setattr(splicing, "parts_around_blocks", parts)
    refused(gpt2(), "has no body apart from its head")


def test_more_tokens_than_there_are_positions_for():
    with pytest.raises(ConfigError, match=r"context = 33: GPT2LMHeadModel fails on so many tokens .*: lower it"):
        check_model(gpt2(), 1, 33)
    check_model(gpt2(), 1, 32)


def test_a_block_that_there_is_not():
    with pytest.raises(ConfigError, match=r"layer = 3: .* 0 … 2"):
        check_model(gpt2(), 3, 16)


# --- how often, and what stays ---


def test_what_has_passed_is_not_tried_again(monkeypatch):
    model = gpt2()
    check_model(model, 1, 16)
    monkeypatch.setattr(model_check, "_check", None)
    check_model(model, 1, 16)
    check_model(model, 1, 8)
    for layer, context in ((0, 16), (1, 17)):
        with pytest.raises(ModelError, match="NoneType"):
            check_model(model, layer, context)


def test_the_check_leaves_the_model_as_it_was():
    model = gpt2()
    ids = torch.arange(1, 9)[None]
    before = model(ids).logits
    check_model(model, 1, 16)
    assert torch.equal(model(ids).logits, before)
    assert not any("forward" in module.__dict__ for module in model.modules())


# --- an OPT, whose model calls the decoder behind its `base_model` ---


def test_an_opt_is_spliced_where_its_decoder_is_called():
    model = build("opt")  # with a projection after its blocks, as OPT-350m
    ids = torch.arange(5, 13)[None]
    ones = torch.ones_like(ids)
    clean = model(ids).logits
    assert torch.equal(splice(model, 1, ids, ones, lambda x: x), clean)

    def edit(module, inputs, output):
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, 1:] *= 0.5
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = blocks(model)[1].register_forward_hook(edit)
    expected = model(ids).logits
    handle.remove()
    assert not torch.allclose(expected, clean, atol=1e-3)
    torch.testing.assert_close(splice(model, 1, ids, ones, lambda x: 0.5 * x), expected)
