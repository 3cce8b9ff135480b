import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from archsae_core import progress as progress_module
from archsae_core.data import extraction
from archsae_core.data.activations import ActivationError, extract, fit_normalizer, open_activations
from archsae_core.data.language_model import ModelError, load_model
from archsae_core.data.tokens import TokenSet
from archsae_study.settings.config import ConfigError, configure

MAPS = Path("/proc/self/maps")
LENGTHS = [5, 32, 2, 17, 32, 9]
DOCUMENTS = [7, 7, 3, 4, 4, 1]


@pytest.fixture(scope="module")
def model():
    return load_model(configure({"preset": "smoke"}).language_model)


@pytest.fixture(scope="module")
def tokens():
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 384, length, dtype=np.int32) for length in LENGTHS]
    return TokenSet(ids, np.array(DOCUMENTS, dtype=np.int32))


@pytest.fixture
def small_batches(monkeypatch):
    """Two windows of 32 a batch, every batch flushed: several batches even for a handful of windows."""
    monkeypatch.setattr(extraction, "BATCH_TOKENS", 64)
    monkeypatch.setattr(extraction, "CHECKPOINT_BATCHES", 1)


def states_one_by_one(model, tokens, layer):
    """Oracle: every window on its own, without padding, through transformers' own hidden states."""
    with torch.no_grad():
        return [
            model(torch.from_numpy(window)[None].long(), output_hidden_states=True).hidden_states[layer + 1][0]
            for window in tokens.ids
        ]


def write(folder, x, **index):
    """A folder as `extract` leaves it, with these rows."""
    x = torch.as_tensor(x)
    n_rows = len(x)
    columns = {name: torch.zeros(n_rows, dtype=torch.int32) for name in ("document", "token", "window")}
    columns |= {"position": torch.ones(n_rows, dtype=torch.int16), "norm": x.float().norm(dim=1)}
    save_file({"x": x}, folder / extraction.ROWS_FILE)
    save_file(columns | {"position0_norm": torch.tensor([100.0])} | index, folder / extraction.INDEX_FILE)
    return folder


# --- extraction ---


@pytest.mark.usefixtures("small_batches")
def test_every_row_is_the_hidden_state_of_its_token(model, tokens, tmp_path):
    extract({1: tmp_path}, model, tokens)
    found = open_activations(tmp_path, 10.0)
    states = states_one_by_one(model, tokens, 1)
    torch.testing.assert_close(found.x, torch.cat([x[1:] for x in states]), rtol=1e-5, atol=1e-5)
    rows = [(w, p) for w, length in enumerate(LENGTHS) for p in range(1, length)]
    assert list(zip(found.window.tolist(), found.position.tolist(), strict=True)) == rows
    assert found.document.tolist() == [DOCUMENTS[w] for w, _ in rows]
    assert found.token.tolist() == [tokens.ids[w][p] for w, p in rows]
    torch.testing.assert_close(found.norm, found.x.norm(dim=1))
    torch.testing.assert_close(found.position0_norm, torch.stack([x[0].norm() for x in states]))


def test_dtypes_of_the_index(model, tokens, tmp_path):
    extract({1: tmp_path}, model, tokens)
    found = open_activations(tmp_path, 10.0)
    assert [found.document.dtype, found.token.dtype, found.window.dtype] == [torch.int32] * 3
    assert (found.position.dtype, found.kept.dtype) == (torch.int16, torch.int64)


def test_a_model_of_another_dtype_is_refused_before_anything_is_written(tokens, tmp_path):
    model = load_model(configure({"preset": "smoke"}).language_model).to(torch.float16)
    with pytest.raises(ConfigError, match=r"torch\.float16: activations are stored as bfloat16 or float32"):
        extract({1: tmp_path / "x"}, model, tokens, progress=False)
    assert not (tmp_path / "x").exists()


def test_bfloat16_is_stored_as_bfloat16_bit_by_bit(tokens, tmp_path):
    model = load_model(configure({"preset": "smoke", "dtype": "bfloat16"}).language_model)
    extract({1: tmp_path}, model, tokens)
    with safe_open(tmp_path / extraction.ROWS_FILE, framework="pt") as file:
        assert file.get_slice("x").get_dtype() == "BF16"
    found = open_activations(tmp_path, 10.0)
    assert found.x.dtype == torch.bfloat16
    assert found.gather(torch.tensor([3, 0])).dtype == torch.float32
    expected = torch.cat([x[1:] for x in states_one_by_one(model, tokens, 1)])
    torch.testing.assert_close(found.x, expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.norm, found.x.float().norm(dim=1))


@pytest.mark.usefixtures("small_batches")
def test_twice_gives_the_same_files_and_the_second_call_runs_nothing(model, tokens, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        extract({1: folder}, model, tokens)
    assert contents(folders[0]) == contents(folders[1])
    monkeypatch.setattr(extraction, "residuals_after", None)
    extract({1: folders[0]}, model, tokens)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(Exception):
    pass


def killed_after(n_batches, monkeypatch):
    """Let `n_batches` forward passes through, count them, and fail in the next."""
    real, calls = extraction.residuals_after, []

    def forward(*arguments):
        if len(calls) == n_batches:
            raise Killed
        calls.append(arguments[2].shape)
        return real(*arguments)

    monkeypatch.setattr(extraction, "residuals_after", forward)
    return calls


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("checkpoint", "repeated"), [(1, 0), (2, 1)])
def test_a_killed_extraction_continues_and_ends_the_same(model, tokens, tmp_path, monkeypatch, checkpoint, repeated):
    monkeypatch.setattr(extraction, "CHECKPOINT_BATCHES", checkpoint)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    with monkeypatch.context() as patch:
        all_batches = killed_after(99, patch)
        extract({1: whole}, model, tokens)
    assert len(all_batches) == 3
    with monkeypatch.context() as patch:
        killed_after(1, patch)
        with pytest.raises(Killed):
            extract({1: resumed}, model, tokens)
    with monkeypatch.context() as patch:
        rest = killed_after(99, patch)
        extract({1: resumed}, model, tokens)
    assert rest == all_batches[1 - repeated :]
    assert contents(whole) == contents(resumed)


@pytest.mark.parametrize("batches", [1, 99])
def test_layers_read_in_one_pass_hold_what_each_holds_alone(
    model, tokens, tmp_path, monkeypatch, small_batches, batches
):
    folders = [{n: tmp_path / f"{name} {n}" for n in (1, 0)} for name in ("alone", "together")]
    for folder in (*folders[0].values(), *folders[1].values()):
        folder.mkdir()
    for n, folder in folders[0].items():
        extract({n: folder}, model, tokens)
    with monkeypatch.context() as patch:
        killed_after(batches, patch)
        if batches < 99:
            with pytest.raises(Killed):
                extract(folders[1], model, tokens)
        else:
            extract(folders[1], model, tokens)
    with monkeypatch.context() as patch:
        calls = killed_after(99, patch)
        extract(folders[1], model, tokens)
    assert len(calls) == (0 if batches == 99 else 2)
    for n in (0, 1):
        assert contents(folders[0][n]) == contents(folders[1][n])


@pytest.fixture
def fresh(model, tokens, tmp_path, small_batches):
    """What an undisturbed extraction after block 1 leaves."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    extract({1: folder}, model, tokens)
    return contents(folder)


@pytest.mark.parametrize("change", ["layer", "text"])
def test_leftovers_of_another_plan_are_not_continued(model, tokens, tmp_path, monkeypatch, fresh, change):
    folder = tmp_path / "a"
    folder.mkdir()
    other = tokens._replace(ids=[window[::-1].copy() for window in tokens.ids])
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        with pytest.raises(Killed):
            extract({0 if change == "layer" else 1: folder}, model, tokens if change == "layer" else other)
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "_write_index", killed)
        with pytest.raises(Killed):
            extract({1: folder}, model, tokens)
    extract({1: folder}, model, tokens)
    assert contents(folder) == fresh


@pytest.mark.parametrize("change", ["layer", "text", "model", "rows", "configuration"])
def test_a_finished_extraction_of_something_else_stays(model, tokens, tmp_path, change):
    folder = tmp_path / "a"
    folder.mkdir()
    extract({1: folder}, model, tokens)
    before, other = contents(folder), copy.deepcopy(model)
    if change == "model":
        with torch.no_grad():
            other.get_input_embeddings().weight.mul_(1.01)
    if change == "rows":
        with torch.no_grad():
            weight = other.get_input_embeddings().weight
            weight[[0, 1]] = weight[[1, 0]]
    if change == "configuration":
        other.config.layer_norm_epsilon = 0.1
    reversed_windows = tokens._replace(ids=[window[::-1].copy() for window in tokens.ids])
    with pytest.raises(ConfigError, match=r"folders = .*it holds activations of another model, layer or text"):
        extract({0 if change == "layer" else 1: folder}, other, reversed_windows if change == "text" else tokens)
    assert contents(folder) == before


@pytest.mark.parametrize("name", [extraction.ROWS_FILE, extraction.INDEX_FILE])
def test_files_of_something_else_are_not_replaced(model, tokens, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} is there and no extraction's"):
        extract({1: tmp_path}, model, tokens)
    assert contents(tmp_path) == {name: b"mine"}


def test_each_layer_has_a_folder_of_its_own(model, tokens, tmp_path):
    for folders in ({}, {0: tmp_path, 1: tmp_path / "."}):
        with pytest.raises(ConfigError, match=r"folders = .*: give"):
            extract(folders, model, tokens)
    assert not contents(tmp_path)
    extract({1: str(tmp_path)}, model, tokens)
    assert (tmp_path / extraction.INDEX_FILE).is_file()


def test_progress_without_its_rows_is_not_believed(model, tokens, tmp_path, monkeypatch, fresh):
    folder = tmp_path / "a"
    folder.mkdir()
    for n_batches in (2, 0):
        with monkeypatch.context() as patch:
            killed_after(n_batches, patch)
            with pytest.raises(Killed):
                extract({1: folder}, model, tokens)
        if n_batches:
            (folder / "activations.safetensors").unlink()
    extract({1: folder}, model, tokens)
    assert contents(folder) == fresh


def killed(*_):
    raise Killed


def test_batches_hold_every_window_once_longest_first_within_the_limit(model, monkeypatch):
    monkeypatch.setattr(extraction, "BATCH_TOKENS", 40)
    lengths = [3, 50, 20, 20, 19, 2, 10]
    windows = TokenSet([np.zeros(n, dtype=np.int32) for n in lengths], np.zeros(len(lengths), dtype=np.int32))
    assert extraction._plan(model, windows, 1, "").batches == [[1], [2, 3], [4, 6], [0, 5]]


def test_a_bar_is_drawn_only_when_asked_for(model, tokens, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress_module, "LINE_EVERY", 0)
    for progress, expected in ((None, False), (False, False), (True, True)):
        folder = tmp_path / str(progress)
        folder.mkdir()
        extract({1: folder}, model, tokens, progress=progress)
        out, err = capfd.readouterr()
        assert (out, "activations" in err) == ("", expected)


def test_a_diverging_model_is_refused_with_layer_and_dtype(tokens, tmp_path):
    model = load_model(configure({"preset": "smoke"}).language_model)
    with torch.no_grad():
        model.transformer.wpe.weight[20] = torch.inf  # beyond the few tokens that the check tries
    with pytest.raises(ActivationError, match=r"layer = 1: NaN or infinity in float32: set dtype"):
        extract({1: tmp_path}, model, tokens)


def test_what_does_not_suit_the_model_is_refused_before_anything_is_written(model, tokens, tmp_path):
    none = TokenSet([], np.array([], dtype=np.int32))
    foreign = TokenSet([np.array([0, 384], dtype=np.int32)], np.array([0], dtype=np.int32))
    long = TokenSet([np.zeros(2**15 + 1, dtype=np.int32)], np.array([0], dtype=np.int32))
    for bad, layer, error, message in (
        (tokens, 3, ConfigError, "layer = 3"),
        (none, 1, ActivationError, "text: .* no windows"),
        (foreign, 1, ModelError, "token 384 exceeds its 384 embeddings"),
        (long, 1, ConfigError, "context = 32769"),
    ):
        with pytest.raises(error, match=message):
            extract({layer: tmp_path}, model, bad)
    assert not list(tmp_path.iterdir())


def test_any_decoder_is_extracted(tokens, tmp_path):
    settings = transformers.LlamaConfig(
        vocab_size=384, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    llama = transformers.LlamaForCausalLM(settings).eval()
    extract({0: tmp_path}, llama, tokens)
    expected = torch.cat([x[1:] for x in states_one_by_one(llama, tokens, 0)])
    torch.testing.assert_close(open_activations(tmp_path, 10.0).x, expected, rtol=1e-5, atol=1e-5)


def test_leaves_only_sealed_files(model, tokens, tmp_path):
    extract({1: tmp_path}, model, tokens)
    assert {path.name for path in tmp_path.iterdir()} == {
        "activations.safetensors",
        "index.safetensors",
        "extraction.json",
    }
    assert json.loads((tmp_path / "extraction.json").read_text())["done"] == 1
    assert set(load_file(tmp_path / "activations.safetensors")) == {"x"}


# --- what is kept, statistics, centring and scale ---


def test_outliers_by_hand(tmp_path):
    found = open_activations(write(tmp_path, [[3.0, 4.0], [0.0, 5.0], [30.0, 40.0], [5.0, 0.0], [0.0, 60.0]]), 10.0)
    # norms 5, 5, 50, 5, 60: the median is 5, so 50 is just kept
    assert found.threshold == 50
    assert found.kept.tolist() == [0, 1, 2, 3]
    assert found.stats["n_outliers_dropped"] == 1
    assert (found.stats["median_norm"], found.stats["max_norm"], found.stats["position0_norm"]) == (5, 60, 100)


def test_another_split_uses_the_threshold_of_the_training_split(tmp_path):
    found = open_activations(write(tmp_path, [[3.0, 4.0], [0.0, 5.0], [0.0, 7.0]]), 10.0, threshold=6.0)
    assert (found.threshold, found.kept.tolist()) == (6.0, [0, 1])


def test_a_factor_that_keeps_nothing_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"outlier_factor = 0\.1"):
        open_activations(write(tmp_path, [[3.0, 4.0], [0.0, 5.0]]), 0.1)


def test_statistics_by_hand(tmp_path):
    x = [[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0], [1e3, 0.0]]
    found = open_activations(write(tmp_path, x), 10.0)
    # kept: mean (2, 0), distances 1, 1, 2, 2
    assert found.stats == pytest.approx(
        {
            "n_rows": 5,
            "n_kept": 4,
            "n_position0_dropped": 1,
            "n_outliers_dropped": 1,
            "median_norm": math.sqrt(8),
            "max_norm": 1e3,
            "position0_norm": 100.0,
            "outlier_threshold": 10 * math.sqrt(8),
            "d_model": 2,
            "mean_norm": 2.0,
            "spread": 1.5,
            "gamma": 2 / 1.5,
        }
    )
    assert json.loads(json.dumps(found.stats)) == found.stats


def test_normalizer_by_hand(tmp_path):
    x = [[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0], [1e3, 0.0]]
    mean, scale, _ = fit_normalizer(open_activations(write(tmp_path, x), 10.0))
    assert mean.tolist() == [2.0, 0.0]
    assert mean.dtype == torch.float32
    assert scale == pytest.approx(math.sqrt(2 / ((1 + 1 + 4 + 4) / 4)))


def test_raw_normalizer_by_hand(tmp_path):
    train = open_activations(write(tmp_path, [[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0], [1e3, 0.0]]), 10.0)
    raw = fit_normalizer(train, "raw")
    assert raw.mean.tolist() == [2.0, 0.0]
    assert raw.shift.tolist() == [0.0, 0.0]
    assert raw.scale == pytest.approx(math.sqrt(2 / ((1 + 9 + 8 + 8) / 4)))
    assert raw.normalize(train.gather(torch.tensor([1])))[0].tolist() == pytest.approx([3 * raw.scale, 0.0])
    with pytest.raises(ConfigError, match="frame = 'cone': must be one of centred, raw"):
        fit_normalizer(train, "cone")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_training_rows_have_mean_zero_and_square_norm_d_model(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("archsae_core.data.activations.CHUNK_ROWS", 7)
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(100, 6, generator=generator) * 3 + 1000 * torch.randn(6, generator=generator)).to(dtype)
    train = open_activations(write(tmp_path, x), 10.0)
    normalizer = fit_normalizer(train)
    rows = train.gather(train.kept)
    assert torch.equal(normalizer.mean, rows.double().mean(dim=0).float())
    z = (rows.double() - normalizer.mean.double()) * normalizer.scale
    assert z.square().sum(dim=1).mean().item() == pytest.approx(6, rel=1e-5)


def test_constant_activations_are_refused(tmp_path):
    for name, value in (("a", 0.1), ("b", 0.0)):
        (tmp_path / name).mkdir()
        with pytest.raises(ActivationError, match="all activations are equal"):
            fit_normalizer(open_activations(write(tmp_path / name, [[value, 3 * value]] * 999), 10.0))
    for dtype in (torch.float16, torch.float32, torch.float64):
        with pytest.raises(ActivationError, match="all activations are equal"):
            fit_normalizer(torch.full((1000, 8), 0.1, dtype=dtype))
    nearly = torch.full((1000, 8), 1.0)
    nearly[7, 3] += 1e-7
    assert fit_normalizer(nearly).scale > 0


def test_gather_takes_any_order_of_tensors_or_arrays(tmp_path):
    found = open_activations(write(tmp_path, [[float(i), 1.0] for i in range(5)]), 100.0)
    for rows in (torch.tensor([4, 0, 4]), np.array([4, 0, 4])):
        assert found.gather(rows).tolist() == [[4.0, 1.0], [0.0, 1.0], [4.0, 1.0]]


@pytest.mark.skipif(not MAPS.exists(), reason="the list of mapped files is a file on Linux only")
def test_rows_are_mapped_not_read(tmp_path):
    found = open_activations(write(tmp_path, torch.ones(5000, 400)), 10.0)
    assert str(tmp_path / extraction.ROWS_FILE) in MAPS.read_text()
    assert found.x[4999].sum() == 400
