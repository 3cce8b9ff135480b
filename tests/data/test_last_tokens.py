"""Activations at the last token of prompts: equal to those of a whole extraction, cut on the left, resumable."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from archsae_core.config import ConfigError
from archsae_core.data import last_tokens
from archsae_core.data.extraction import extract, open_rows
from archsae_core.data.last_tokens import read_last_tokens, write_last_tokens
from archsae_core.data.probe_tasks import ProbeTask, Prompts
from archsae_core.data.random_model import gpt2, tokenizer
from archsae_core.data.tokens import TokenSet, last_windows

CONTEXT = 12


def prompts(*texts):
    return Prompts(texts, np.arange(len(texts)) % 2 == 0)


TASKS = (
    ProbeTask("one", ("no", "yes"), prompts("baba cedi fogu", "ha", "mu" * 30), prompts("nape", "<b> riso"), leaked=3),
    ProbeTask("two", ("a", "b"), prompts("tuve baba", "kilo"), prompts("x", "R&D cedi"), leaked=0),
)


@pytest.fixture(scope="module")
def model():
    return gpt2(32).eval().requires_grad_(False)


def written(folder, model, tasks=TASKS):
    folder.mkdir(exist_ok=True)
    write_last_tokens(folder, model, tokenizer(), tasks, layer=1, context=CONTEXT)
    return folder


def test_rows_are_those_of_an_extraction(model, tmp_path):
    windows = last_windows(TASKS[0].train.texts, tokenizer(), CONTEXT)
    found = read_last_tokens(written(tmp_path / "prompts", model))[0]
    kept = [window for window in windows if len(window) > 1]
    (tmp_path / "whole").mkdir()
    extract({1: tmp_path / "whole"}, model, TokenSet(kept, np.arange(len(kept), dtype=np.int32)))
    ends = np.cumsum([len(window) - 1 for window in kept]) - 1
    assert torch.allclose(found.train.x, open_rows(tmp_path / "whole")[ends], atol=1e-5)
    assert (found.name, found.classes, found.leaked) == ("one", ("no", "yes"), 3)


def test_windows_end_where_the_text_ends(model):
    whole = tokenizer()("mu" * 30, add_special_tokens=False)["input_ids"]
    (cut,) = last_windows(["mu" * 30], tokenizer(), CONTEXT, (0,))
    assert cut.tolist() == [0, *whole[-(CONTEXT - 1) :]]
    assert len(whole) > CONTEXT


def test_prompts_that_end_at_position_0_and_outliers_are_left_out_with_their_labels(model, tmp_path):
    folder = written(tmp_path / "prompts", model)
    lengths = [len(window) for window in last_windows(TASKS[1].test.texts, tokenizer(), CONTEXT)]
    assert lengths[0] == 1 < lengths[1]
    found = read_last_tokens(folder)[1]
    assert (found.test.labels.tolist(), len(found.test.x)) == ([False], 1)
    whole = read_last_tokens(folder)[0]
    norms = torch.cat([whole.train.x, whole.test.x]).norm(dim=1)
    fewer = read_last_tokens(folder, max_norm=float(norms.max()) * 0.999)[0]
    assert len(fewer.train.x) + len(fewer.test.x) == len(norms) - 1
    assert fewer.unread == whole.unread + 1


def test_a_killed_call_continues_with_the_next_task(model, tmp_path, monkeypatch):
    whole = read_last_tokens(written(tmp_path / "whole", model))
    read = []

    def killed(*args):
        if len(read) == 2:  # both parts of the first task
            raise KeyboardInterrupt
        read.append(args)
        return original(*args)

    original = last_tokens._read
    monkeypatch.setattr(last_tokens, "_read", killed)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "killed", model)
    monkeypatch.setattr(last_tokens, "_read", original)
    first = (tmp_path / "killed" / "task_000.safetensors").stat().st_mtime_ns
    again = read_last_tokens(written(tmp_path / "killed", model))
    assert (tmp_path / "killed" / "task_000.safetensors").stat().st_mtime_ns == first
    assert all(torch.equal(a.train.x, b.train.x) for a, b in zip(whole, again, strict=True))


def test_files_of_another_layer_or_task_are_refused_and_left(model, tmp_path):
    folder = written(tmp_path / "prompts", model)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trained = copy.deepcopy(model)
    trained.transformer.wte.weight[5, 5] += 1
    for other, tasks, layer in ((model, TASKS, 0), (model, TASKS[::-1], 1), (trained, TASKS, 1)):
        with pytest.raises(ConfigError, match=r"task_000\.safetensors is of another model, layer or task"):
            write_last_tokens(folder, other, tokenizer(), tasks, layer=layer, context=CONTEXT)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_that_does_not_say_what_it_is_of_is_made_again(model, tmp_path):
    folder = written(tmp_path / "prompts", model)
    before = (folder / "task_001.safetensors").read_bytes()
    save_file({name: tensor + 1 for name, tensor in load_file(folder / "task_001.safetensors").items()},
              folder / "task_001.safetensors")  # fmt: skip
    assert (written(folder, model) / "task_001.safetensors").read_bytes() == before
