"""`random-gpt2`: a language model and a tokenizer made on the spot, so that tests need no network."""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import tokenizers

from archsae_core.data.corpus import synthetic

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 384
"""Entries of the byte-level BPE vocabulary: 256 bytes, the end-of-text token, and merges."""


def recipe(context: int) -> dict[str, Any]:
    """Arguments of GPT2Config: 3 blocks, d_model = 32, room for `context` tokens."""
    return {
        "n_layer": 3,
        "n_head": 2,
        "n_embd": 32,
        "n_positions": max(64, context),
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,  # ten times GPT-2's, since otherwise the blocks add next to nothing to the embedding
    }


def gpt2(context: int) -> "GPT2LMHeadModel":
    """Untrained GPT-2; the same weights at every call, and the caller's random numbers are left alone."""
    # Imported here: they take seconds, which reading stored results need not wait for.
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**recipe(context)))


def tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level BPE trained on the synthetic text; it encodes any text without unknown tokens."""
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(_trained()), eos_token=END_OF_TEXT
    )


@functools.cache
def _trained() -> str:
    return byte_level_bpe(synthetic().texts, VOCABULARY).to_str()


def byte_level_bpe(texts: Iterable[str], vocabulary: int) -> tokenizers.Tokenizer:
    """Byte-level BPE trained on `texts` as GPT-2's was, with at most `vocabulary` entries."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe
