"""The gpt2 preset at full width, on an untrained model of GPT-2's size in a local folder: does everything fit it?"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from archsae_core.data import random_model
from archsae_core.data.corpus import load_text
from archsae_core.storage import read_json
from archsae_study.settings.config import configure
from soak.processes import REPORT, finish, start

SHORT = {
    "text": "bbc-news", "tokens": 60_000, "steps": 30, "ablation_steps": 10, "n_seeds": 2, "ablation_seeds": 2,
    "deltas": "0,1", "behaviour_tokens": 2048, "heldout_tokens": 4096,
}  # fmt: skip
"""What is cut: text, steps and seeds. Model, layer, features, k and anchors are those of the preset."""


def save_model(folder: Path) -> int:
    """GPT-2 small with random weights and a tokenizer of its size, in the hub's layout; returns its parameters."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(initializer_range=random_model.recipe(256)["initializer_range"])
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    bpe = random_model.byte_level_bpe(load_text(configure({"text": "bbc-news"}).corpus).texts, config.vocab_size)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=random_model.END_OF_TEXT)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


def run(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong: the seven notebooks of the gpt2 preset, shortened by `SHORT` alone."""
    parameters, begin = save_model(folder / "model"), time.perf_counter()
    changed = {"model": folder / "model", **SHORT}
    given = [part for name, value in changed.items() for part in ("--set", f"{name}={value}")]
    finish(start([sys.executable, *REPORT, "--preset", "gpt2", "--runs", str(folder / "runs"), *given]))
    (made,) = (folder / "runs").glob("gpt2-*")
    config, tables = read_json(made / "config.json"), sorted((made / "results").glob("*.json"))
    names = ("layer", "n_features", "k", "n_anchors", "delta")
    usual = configure({"preset": "gpt2"})
    problems = [f"{name} is {config[name]}" for name in names if config[name] != usual[name]]
    if "NaN" in (text := "".join(path.read_text() for path in tables)) or "Infinity" in text:
        problems.append("a table holds a number that is none")
    quality = json.loads((made / "results" / "archetypal_sae.json").read_text())["table"]["quality"]
    row = {"parameters, M": round(parameters / 1e6), **{name: config[name] for name in names}}
    row |= {"notebooks": len(list(made.glob("0*.ipynb"))), "tables": len(tables), "L0": f"{quality['l0']:.1f}"}
    return [row | {"minutes": f"{(time.perf_counter() - begin) / 60:.1f}"}], problems
