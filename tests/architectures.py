"""Every decoder family of the installed transformers, tiny and random: which ones the check of a model lets through.

Run as a script, it rewrites docs/models.md.
"""

import inspect
import re
import signal
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from archsae_core.config import ConfigError
from archsae_core.data.extraction import extract, open_rows
from archsae_core.data.hub import quiet_transformers
from archsae_core.data.language_model import blocks, d_model, run
from archsae_core.data.model_check import check_model
from archsae_core.data.tokens import TokenSet
from archsae_core.metrics.behaviour import spliced_sums

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
CONTEXT = 16
BLOCKS = 4
VOCABULARY = 160
LARGEST = 20_000_000
"""Parameters of what still counts as tiny."""
SECONDS = 60
"""Time that one family may take."""

SIZES = {
    r"vocab_size|n_vocab|vocab_size_per_layer_input|padded_vocab_size": VOCABULARY,
    r"hidden_size|d_model|n_embd|dim|dim_model|embedding_size|word_embed_proj_dim|attention_hidden_size|width"
    r"|embedding_dim|input_embedding_size|emb_dim": 32,
    r"num_hidden_layers|n_layers?|num_layers|decoder_layers|num_decoder_layers|num_blocks": BLOCKS,
    r"encoder_layers|num_encoder_layers": 2,
    r"num_attention_heads|n_heads?|num_heads|(de|en)coder_attention_heads|num_(de|en)coder_attention_heads": 4,
    r"num_key_value_heads|n_head_kv|num_kv_heads|multi_query_group_num": 2,
    r"intermediate_size|n_inner|ffn_dim|(de|en)coder_ffn_dim|dim_ff|ffn_hidden_size|mlp_hidden_size|inner_dim|d_inner"
    r"|shared_intermediate_size|moe_intermediate_size|shared_expert_intermediate_size|expert_ffn_hidden_size"
    r"|(moe_)?shared_expert_intermediate_size|intermediate_size_mlp|block_ff_dim|feed_forward_hidden_size"
    r"|mamba_intermediate_size|moe_shared_expert_intermediate_size": 64,
    r"head_dim|attention_head_dim|global_head_dim|dim_head|linear_(key|value)_head_dim|kda_head_dim|head_size": 8,
    r"linear_num_(key|value)_heads|mamba_n_heads|mamba_num_heads|lightning_heads": 4,
    r"mamba_d_head|mamba_head_dim|mamba_headdim": 16,
    r"mamba_d_state|state_size|ssm_state_size|mamba_d_ssm_state": 8,
    r"mamba_n_groups|n_groups|mamba_ngroups": 1,
    r"max_position_embeddings|n_positions|max_seq_len|max_sequence_length|seq_length|max_length_of_positions": 64,
    r"num_experts|num_local_experts|n_routed_experts|moe_num_experts|n_experts|num_routed_experts": 4,
    r"num_experts_per_tok|num_experts_per_token|moe_k|top_k_experts|moe_topk|num_selected_experts": 2,
    r"n_group|topk_group|n_shared_experts|num_shared_experts|first_k_dense_replace": 1,
    r"q_lora_rank|kv_lora_rank|o_lora_rank|low_rank_dim": 16,
    r"qk_nope_head_dim|qk_rope_head_dim|v_head_dim|qk_head_dim": 8,
    r"index_head_dim|index_n_heads": 8,
    r"index_topk": 64,
    r"sliding_window|attention_window_size|window_size|attention_chunk_size|local_attention": 8,
    r"rotary_dim": 4,
    r"lru_width": 32,
    r"hidden_size_per_layer_input": 8,
    r"chunk_size|mamba_chunk_size": 8,
    r"time_step_rank": 2,
}
"""What a configuration's fields are set to, by their names."""
LISTS = {
    "reformer": {
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "axial_pos_shape": [4, 16],
        "axial_pos_embds_dim": [16, 16],
        "is_decoder": True,
        "attention_head_size": 8,
        "feed_forward_size": 64,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "openai-gpt": {"n_ctx": 64},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * BLOCKS,
        "laurel_rank": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "mamba2": {"head_dim": 16},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4},
    "xmod": {"default_language": "en_XX"},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "opt": {"word_embed_proj_dim": 16},  # as OPT-350m: its head reads fewer dimensions than its blocks write
}
"""What these families need besides."""


VERDICTS = ("passes", "refused", "not built")


class Outcome(NamedTuple):
    """How a family fared: one row of the page."""

    family: str
    architecture: str
    verdict: str
    """One of `VERDICTS`."""
    detail: str
    """Blocks that pass, or the reason."""


class TooSlow(BaseException):
    """A family takes longer than it may. No Exception, so that no check takes it for a fault of the model."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TooSlow inside the block after so many seconds."""

    def stop(*_: object) -> None:
        raise TooSlow(f"takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def shrunk(kind: type[transformers.PretrainedConfig], family: str) -> transformers.PretrainedConfig:
    """A tiny configuration of its class, sub-configurations included."""
    usual = kind()
    values: dict[str, Any] = {}
    names = set(inspect.signature(kind.__init__).parameters) | set(usual.to_dict()) | set(kind.attribute_map)
    for name in names - set(usual.sub_configs):
        size = next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, name)), None)
        present = usual.to_dict().get(name)  # an attribute that varies over layers raises where it is asked for
        if size is not None and (isinstance(present, int) and not isinstance(present, bool)):
            values[name] = min(size, present) if present > 0 else present
        if name.endswith("_token_id") and isinstance(present, int):
            values[name] = min(present, VOCABULARY - 1)
    if hasattr(usual, "initializer_range"):
        values["initializer_range"] = 0.2  # with the usual 0.02 the blocks of so narrow a model add next to nothing
    for name in usual.sub_configs:
        own = getattr(usual, name, None)
        if own is not None:
            values[name] = shrunk(type(own), own.model_type).to_dict()
    if "kv_lora_rank" in names:
        values["num_key_value_heads"] = values["num_attention_heads"]  # latent attention has no groups of heads
    return kind(**values | LISTS.get(family, {}))


def build(family: str) -> transformers.PreTrainedModel:
    """A tiny random model of a family. Raises whatever its code raises, or ValueError where it is not tiny."""
    config = shrunk(transformers.models.auto.configuration_auto.CONFIG_MAPPING[family], family)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters when shrunk")
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


def windows() -> TokenSet:
    """Three windows of one document and one of another."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, VOCABULARY - 20, length).astype(np.int32) for length in (CONTEXT, CONTEXT, 9, 5)]
    return TokenSet(ids, np.array([0, 0, 0, 1], dtype=np.int32))


@torch.no_grad()
def own_cross_entropy(model: transformers.PreTrainedModel, tokens: TokenSet) -> float:
    """Mean CE of positions 1 on, window by window, by the model's own forward pass."""
    losses = []
    for window in tokens.ids:
        ids = torch.from_numpy(window.astype(np.int64))[None]
        logits = run(model, ids, torch.ones_like(ids)).logits[0, 1:-1]
        losses.append(F.cross_entropy(logits.float(), ids[0, 2:], reduction="none"))
    return torch.cat(losses).double().mean().item()


def use(model: transformers.PreTrainedModel, layer: int) -> None:
    """Extract activations and score replacements as a study does. Raises AssertionError where a number is wrong."""
    tokens = windows()
    with tempfile.TemporaryDirectory() as folder:
        extract({layer: Path(folder)}, model, tokens, progress=False)
        rows = open_rows(Path(folder))
        assert rows.shape == (tokens.n_tokens - len(tokens.ids), d_model(model)), "rows are missing"
        assert rows.isfinite().all(), "rows are not finite"
    same, zero = (lambda x: x), torch.zeros_like
    sums = spliced_sums(model, layer, tokens, {"same": same, "zero": zero}).table.sum(axis=0)
    n, clean, same_ce, same_kl, _, zero_kl = sums
    expected = own_cross_entropy(model, tokens)
    assert abs(clean / n - expected) < 1e-4 * expected, f"CE {clean / n:.5f}, by the model itself {expected:.5f}"
    assert abs(same_ce - clean) < 1e-5 * clean, "an identity splice changes the CE"
    assert abs(same_kl) / n < 1e-5, "an identity splice has a KL"
    assert zero_kl / n > 1e-6, "a zero splice has no KL"


def examine(family: str) -> Outcome:
    """Build a family, check it at every block, and use it at every block that passes."""
    try:
        with torch.no_grad(), time_limit(SECONDS):
            model = build(family)
            ids = torch.arange(5, 11)[None]
            run(model, ids, torch.ones_like(ids))
    except (Exception, TooSlow) as error:
        return Outcome(family, "", "not built", reason(error))
    name = type(model).__name__
    try:
        n_blocks = len(blocks(model))
    except ConfigError as error:
        return Outcome(family, name, "refused", reason(error))
    passed, refusals = [], []
    for layer in range(n_blocks):
        try:
            with time_limit(SECONDS):
                check_model(model, layer, CONTEXT)
                use(model, layer)
            passed.append(layer)
        except ConfigError as error:
            refusals.append(reason(error))
        except TooSlow as error:
            return Outcome(family, name, "not built", reason(error))
    if not passed:
        return Outcome(family, name, "refused", refusals[0])
    detail = f"all {n_blocks} blocks" if not refusals else f"blocks {passed} of {n_blocks}; else: {refusals[0]}"
    return Outcome(family, name, "passes", detail)


def reason(error: BaseException) -> str:
    """First line of an error, without what every refusal of the check begins with, fit for a table."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"^model: \w+ ", "", text).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 200 else text[:199] + "…"


TEXT = """# Which language models work

Of the {total} families that transformers {version} maps to causal language models, {passes} pass at every block or at
some, {refused} are refused, and {untried} could not be tried, because the tiny random model cannot be built or run.

No list decides. Before any work, `check_model` (`archsae_core/data/model_check.py`) runs the loaded model on a dozen
tokens and refuses it by the property that fails:

1. it runs, up to `context` tokens, and its numbers are finite;
2. later tokens change neither earlier logits nor what the block writes for them, and neither does padding on the right;
3. the block returns one vector of d_model numbers a token, in one call a pass, equal to `hidden_states[layer + 1]`;
4. the head on the body's final states gives the model's own logits;
5. the residual spliced into itself changes no logit, and zeros in its place change some.

After the last block `hidden_states` has the final norm applied and the residual has not, so the comparison of 3 is left
out there. Mamba, Falcon-Mamba and RWKV leave the embedding out of `hidden_states`: there it is `hidden_states[layer]`.

`make architectures` writes this page. A model of {blocks} random blocks of each family is checked at every block. At
each that passes, activations are extracted and CE and KL scored: the clean CE must equal that of the model's own
logits, an identity splice must change nothing, and a zero splice must have a KL. Random weights show how a family is
put together, not how well a trained one is read.

## Passes at every block

{whole}.

## Passes at some blocks

{partly}

## Refused

An encoder whose configuration says `is_decoder` passes; what is refused is the family's default.

{refusals}

## Not tried

This is what the script's tiny model runs into. The check decides about a real one.

{not_built}
"""


def page(outcomes: list[Outcome]) -> str:
    """docs/models.md: every family with how it fared."""
    groups = {verdict: [found for found in outcomes if found.verdict == verdict] for verdict in VERDICTS}
    whole = [found for found in groups["passes"] if found.detail.startswith("all")]
    return TEXT.format(
        total=len(outcomes),
        version=transformers.__version__,
        passes=len(groups["passes"]),
        refused=len(groups["refused"]),
        untried=len(groups["not built"]),
        blocks=BLOCKS,
        whole=textwrap.fill(", ".join(found.family for found in whole), 119, break_on_hyphens=False),
        partly=_table([found for found in groups["passes"] if found not in whole]),
        refusals=_table(groups["refused"]),
        not_built=_table(groups["not built"]),
    )


def _table(outcomes: list[Outcome]) -> str:
    rows = [f"| {found.family} | {found.architecture or '–'} | {found.detail} |" for found in outcomes]
    return "\n".join(["| family | class | why |", "|---|---|---|", *rows])


def main(families: list[str]) -> int:
    """Examine the named families, or all, and print one line each; all of them also rewrite the page."""
    warnings.filterwarnings("ignore")
    outcomes = []
    with quiet_transformers():
        for family in families or list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
            outcomes.append(examine(family))
            sys.stdout.write(" · ".join(outcomes[-1]) + "\n")
            sys.stdout.flush()
    if not families:
        PAGE.write_text(page(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
