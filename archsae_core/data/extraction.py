"""Extraction: run the language model once over all windows and write the residual stream to disk, one row a token."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.numpy import save_file
from torch import Tensor

from archsae_core.config import ConfigError, require
from archsae_core.data.language_model import ModelError, check_layer, d_model, residuals_after
from archsae_core.data.model_check import check_model
from archsae_core.data.tokens import TokenSet
from archsae_core.data.transformers_types import PreTrainedModel
from archsae_core.progress import progress_bar
from archsae_core.storage import note_in_place, read_json, write_atomically, write_json
from archsae_core.tensor_files import read_tensors

ROWS_FILE = "activations.safetensors"
INDEX_FILE = "index.safetensors"
PROGRESS_FILE = "extraction.json"
NORMS_FILE = "norms.partial"
BATCH_TOKENS = 1024
"""Tokens, padding included, in one forward pass: a processor's cache holds so few, for less time than 4096 take."""
CHECKPOINT_BATCHES = 32
"""Batches between two flushes to disk; a killed extraction repeats at most these."""
HEADER_BYTES = 256
"""Length word and header of the file of rows, padded so that the rows start aligned."""
NO_PART_OF_A_MODEL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
"""Of its configuration: where it came from, and what `_plan` has beside it."""
DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}
"""What safetensors calls the two dtypes of a language model."""


class ActivationError(ConfigError):
    """Activations that cannot be used; the message names the Config field and the fix."""


class Plan(NamedTuple):
    """Which windows run together and where their rows go."""

    batches: list[list[int]]
    """Windows of each forward pass, longest first, so that padding is rare and a lack of memory shows at once."""
    starts: list[int]
    """Number of tokens before each window, in the order of the TokenSet; the last entry is the number of tokens."""
    d_model: int
    dtype: torch.dtype
    fingerprint: str
    """Hash of everything that determines the rows; of the model, `weights_of`."""


class Residual(NamedTuple):
    """What is written of one window after one block, on the CPU."""

    states: Float[Tensor, "_ d_model"]
    norms: Float[Tensor, " _"]


def extract(
    folders: Mapping[int, str | Path], model: PreTrainedModel, tokens: TokenSet, *, progress: bool | None = None
) -> None:
    """Write the residual stream after some blocks at every position but 0 of every window, in one pass.

    `folders` has one for each layer. Files: activations.safetensors (`x` [n_rows, d_model] in the model's dtype, rows
    in the order of the windows) and index.safetensors (document, position, token, window and norm of each row; norm at
    position 0 of each window). Rows go to disk batch by batch, so memory does not grow with them, and a killed call
    continues where it was. `progress` shows a bar; None is as `showing` says.

    Raises ConfigError naming `layer` or `context`, or a folder that is given twice or holds files of something else,
    ModelError where the tokenizer does not fit the model or the model is not put together as `check_model` asks, and
    ActivationError where it yields NaN or infinity.
    """
    folders = {layer: Path(folder) for layer, folder in folders.items()}
    require(bool(folders), "folders", folders, "give a folder for each layer that is to be read")
    apart = len({folder.resolve() for folder in folders.values()}) == len(folders)
    require(apart, "folders", [str(folder) for folder in folders.values()], "give each layer a folder of its own")
    for layer in folders:
        _check(model, tokens, layer)
    weights = weights_of(model)
    plans = {layer: _plan(model, tokens, layer, weights) for layer in folders}
    for layer, folder in folders.items():
        _require_own(folder, plans[layer])
    done = min(_finished_batches(folder, plans[layer]) for layer, folder in folders.items())
    if all(done == len(plans[layer].batches) and (folder / INDEX_FILE).exists() for layer, folder in folders.items()):
        return
    if done == 0:
        for layer, folder in folders.items():
            _allocate(folder, plans[layer])
    _read(model, tokens, folders, plans, done, progress)
    for folder in folders.values():
        _write_index(folder, tokens)
    for folder in folders.values():
        (folder / NORMS_FILE).unlink()


def _read(
    model: PreTrainedModel,
    tokens: TokenSet,
    folders: Mapping[int, Path],
    plans: Mapping[int, Plan],
    done: int,
    progress: bool | None,
) -> None:
    """Run the batches from `done` on, and write each layer's rows to its folder."""
    batches = next(iter(plans.values())).batches
    with ExitStack() as stack:
        files = {
            layer: [stack.enter_context(open(folder / name, "r+b")) for name in (ROWS_FILE, NORMS_FILE)]
            for layer, folder in folders.items()
        }
        options = {"unit": "batch", "initial": done, "shown": progress}
        bar = stack.enter_context(progress_bar("activations", total=len(batches), **options))
        # the last entered, so that whatever happens the writer is done before its files are closed
        writer, writes = stack.enter_context(ThreadPoolExecutor(1)), []
        for number in range(done, len(batches)):
            states = forward(model, list(folders), [tokens.ids[window] for window in batches[number]])
            for write in writes:
                write.result()
            writes = [
                writer.submit(_write_batch, found, plans[layer], number, *files[layer], folders[layer])
                for layer, found in states.items()
            ]
            bar.update()
        for write in writes:
            write.result()


def open_rows(folder: Path) -> Float[Tensor, "n_rows d_model"]:
    """The extracted rows in the dtype of the model, memory-mapped: they are read from disk as they are touched."""
    return read_tensors(folder / ROWS_FILE).tensors["x"]


def _check(model: PreTrainedModel, tokens: TokenSet, layer: int) -> None:
    check_layer(model, layer)
    if model.dtype not in DTYPES:
        known = " or ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ModelError(f"model: is of {model.dtype}: activations are stored as {known}: load it with such a dtype")
    if not tokens.ids:
        raise ActivationError("text: there are no windows to extract from: use more or longer documents")
    longest = max(len(window) for window in tokens.ids)
    if longest > 2**15:
        raise ConfigError(f"context = {longest}: positions are stored as int16: use at most {2**15}")
    vocabulary = model.get_input_embeddings().num_embeddings
    largest = max(int(window.max()) for window in tokens.ids)
    if largest >= vocabulary:
        raise ModelError(f"model: token {largest} exceeds its {vocabulary} embeddings: use the model's own tokenizer")
    check_model(model, layer, longest)


def weights_of(model: PreTrainedModel) -> str:
    """16 hex digits that tell models apart by their configuration, and by name and content of each tensor."""
    settings = {name: value for name, value in model.config.to_dict().items() if name not in NO_PART_OF_A_MODEL}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _require_own(folder: Path, plan: Plan) -> None:
    """Raise ConfigError where what would be replaced is of something else, or finished and of another plan."""
    other = "name another folder, or move it elsewhere"
    if not (folder / PROGRESS_FILE).exists():
        for name in (ROWS_FILE, INDEX_FILE):
            fix = f"{name} is there and no extraction's: {other}"
            require(not (folder / name).exists(), "folders", str(folder), fix)
    elif (folder / INDEX_FILE).exists():  # written last
        same = read_json(folder / PROGRESS_FILE)["plan"] == plan.fingerprint
        fix = f"it holds activations of another model, layer or text: {other}"
        require(same, "folders", str(folder), fix)


def _plan(model: PreTrainedModel, tokens: TokenSet, layer: int, weights: str) -> Plan:
    lengths = np.array([len(window) for window in tokens.ids])
    batches = batched(lengths)
    width = d_model(model)
    digest = hashlib.sha256(repr((layer, model.dtype, width, BATCH_TOKENS, weights)).encode())
    for content in (lengths, tokens.document, *tokens.ids):
        digest.update(np.ascontiguousarray(content))
    starts = [0, *np.cumsum(lengths).tolist()]
    return Plan(batches, starts, width, model.dtype, digest.hexdigest()[:16])


def batched(lengths: Int[np.ndarray, " n_windows"]) -> list[list[int]]:
    """Windows of these lengths in batches of `BATCH_TOKENS` tokens, padding included; the longest first."""
    batches: list[list[int]] = []
    for window in np.argsort(-lengths, kind="stable").tolist():
        # the first window of a batch is its longest, which the others are padded to
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(window)
    return batches


def _finished_batches(work: Path, plan: Plan) -> int:
    """Batches that an earlier call with the same plan flushed to disk."""
    if not (work / PROGRESS_FILE).exists() or not (work / ROWS_FILE).exists():
        return 0
    found = read_json(work / PROGRESS_FILE)
    return found["done"] if found["plan"] == plan.fingerprint else 0


def _allocate(work: Path, plan: Plan) -> None:
    """Create both files at their final size: header first, then a hole that the batches fill in any order."""
    (work / INDEX_FILE).unlink(missing_ok=True)
    # first, so that the files are known as an extraction's
    write_json(work / PROGRESS_FILE, {"plan": plan.fingerprint, "done": 0})
    n_tokens, n_windows = plan.starts[-1], len(plan.starts) - 1
    size = (n_tokens - n_windows) * plan.d_model * plan.dtype.itemsize
    shape = [n_tokens - n_windows, plan.d_model]
    header = json.dumps({"x": {"dtype": DTYPES[plan.dtype], "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (HEADER_BYTES - 8 - len(header))
    for name in (ROWS_FILE, NORMS_FILE):
        note_in_place(work / name)
    with open(work / ROWS_FILE, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(HEADER_BYTES + size)
    with open(work / NORMS_FILE, "wb") as file:
        file.truncate(4 * n_tokens)


def _write_batch(states: list[Residual], plan: Plan, number: int, rows: BinaryIO, norms: BinaryIO, work: Path) -> None:
    """Write the rows and norms of one batch of windows to their places; now and then make sure that they are there."""
    for window, (x, norm) in zip(plan.batches[number], states, strict=True):
        # each earlier window has one token, at its position 0, that has no row
        rows.seek(HEADER_BYTES + (plan.starts[window] - window) * plan.d_model * plan.dtype.itemsize)
        rows.write(_bytes(x[1:]))
        norms.seek(4 * plan.starts[window])
        norms.write(_bytes(norm))
    if (number + 1) % CHECKPOINT_BATCHES == 0 or number + 1 == len(plan.batches):
        _checkpoint(work, plan, number + 1, rows, norms)


def forward(model: PreTrainedModel, layers: list[int], windows: list[np.ndarray]) -> dict[int, list[Residual]]:
    """Residual stream of each window after each of `layers`, on the CPU, from one pass padded on the right.

    Raises ActivationError for NaN or infinity.
    """
    lengths = torch.tensor([len(window) for window in windows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.zeros_like(mask)
    ids[mask.bool()] = torch.from_numpy(np.concatenate(windows)).long()
    residuals, found = residuals_after(model, layers, ids.to(model.device), mask.to(model.device)), {}
    for layer, residual in zip(layers, residuals, strict=True):
        x = residual.to("cpu", model.dtype)
        if not torch.isfinite(x[mask.bool()]).all():
            name, fix = str(model.dtype).removeprefix("torch."), "set dtype to float32, or check the weights"
            raise ActivationError(f"layer = {layer}: NaN or infinity in {name}: {fix}")
        # not by the writer: once two threads compute, OpenMP's sleep between loops, and waking them can double the time
        norms = x.float().norm(dim=2)
        found[layer] = [Residual(x[row, :end], norms[row, :end]) for row, end in enumerate(lengths.tolist())]
    return found


def _bytes(x: Tensor) -> memoryview:
    return memoryview(x.contiguous().view(torch.uint8).numpy())


def _checkpoint(work: Path, plan: Plan, done: int, *files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())  # the record must never be ahead of the rows
    write_json(work / PROGRESS_FILE, {"plan": plan.fingerprint, "done": done})


def _write_index(work: Path, tokens: TokenSet) -> None:
    counts = np.array([len(window) for window in tokens.ids])
    position = np.concatenate([np.arange(count, dtype=np.int16) for count in counts])
    norm = np.fromfile(work / NORMS_FILE, dtype=np.float32)
    every = {
        "document": np.repeat(tokens.document, counts),
        "position": position,
        "token": np.concatenate(tokens.ids),
        "window": np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        "norm": norm,
    }
    index = {name: values[position > 0] for name, values in every.items()} | {"position0_norm": norm[position == 0]}
    write_atomically(work / INDEX_FILE, lambda path: save_file(index, path))
