"""Tiny models, SAEs and activations with values that can be followed by hand."""

import numpy as np
import torch
import transformers
from torch import Tensor

from archsae_core.data.activations import ActivationSet
from archsae_core.data.tokens import TokenSet
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE

VOCABULARY, D_MODEL = 50, 16
SMALL = dict(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0)
LLAMA = dict(SMALL, hidden_size=D_MODEL, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
LLAMA |= dict(num_key_value_heads=1, max_position_embeddings=32)
ARCHITECTURES = {
    "gpt2": lambda: transformers.GPT2Config(**SMALL, n_layer=3, n_head=2, n_embd=D_MODEL, n_positions=32),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "neox": lambda: transformers.GPTNeoXConfig(**LLAMA | dict(num_key_value_heads=2)),
    # Ties the head to the embedding, scales the embedding and caps the logits after the head.
    "gemma2": lambda: transformers.Gemma2Config(**LLAMA, head_dim=8, sliding_window=4, final_logit_softcapping=2.0),
}


def language_model(architecture: str) -> transformers.PreTrainedModel:
    """Three random blocks of an architecture; large weights, so that blocks matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]()).eval()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def unit_sae(n_features: int, d_model: int, k: int = 1, mean: float = 0.0, scale: float = 1.0) -> SAE:
    """Feature i reads and writes dimension i; those beyond d_model repeat a dimension with the sign flipped."""
    atoms = torch.eye(d_model).repeat(1 + n_features // d_model, 1)[:n_features]
    atoms[d_model:] *= -1
    return SAE(FreeDictionary(atoms), k, torch.full((d_model,), mean), scale)


def token_set(lengths: list[int], documents: list[int]) -> TokenSet:
    """Windows of the given lengths with random ids."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(1, VOCABULARY, length).astype(np.int32) for length in lengths]
    return TokenSet(ids, np.array(documents, dtype=np.int32))


def activation_set(x: Tensor, tokens: TokenSet) -> ActivationSet:
    """`x` as the activations of every position but 0 of `tokens`, nothing dropped."""
    lengths = [len(ids) - 1 for ids in tokens.ids]
    windows = torch.arange(len(lengths), dtype=torch.int32).repeat_interleave(torch.tensor(lengths))
    return ActivationSet(
        x=x,
        document=torch.from_numpy(tokens.document)[windows],
        position=torch.cat([torch.arange(1, length + 1, dtype=torch.int16) for length in lengths]),
        token=torch.cat([torch.from_numpy(ids[1:]) for ids in tokens.ids]),
        window=windows,
        norm=x.norm(dim=1),
        position0_norm=torch.ones(len(lengths)),
        threshold=1e9,
        kept=torch.arange(len(x)),
    )
