"""The residual stream at the last token of each prompt of a probing task, written to disk, one file a task."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from safetensors.torch import save_file
from torch import Tensor

from archsae_core.config import require
from archsae_core.data.extraction import batched, forward, weights_of
from archsae_core.data.language_model import d_model
from archsae_core.data.probe_tasks import ProbeTask, Prompts
from archsae_core.data.tokens import last_windows, window_start
from archsae_core.data.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
from archsae_core.progress import progress_bar
from archsae_core.storage import read_json, write_atomically, write_json
from archsae_core.tensor_files import read_tensors

TASKS_FILE = "tasks.json"


class LabelledActivations(NamedTuple):
    """Raw activations of prompts with their labels."""

    x: Float[Tensor, "n_prompts d_model"]
    """Residual stream at the last token, in the model's dtype."""
    labels: Bool[np.ndarray, " n_prompts"]
    """True for the task's second class."""


class TaskActivations(NamedTuple):
    """A binary task as the language model's activations."""

    name: str
    classes: tuple[str, str]
    train: LabelledActivations
    test: LabelledActivations
    leaked: int
    """Test prompts left out since they are training prompts too."""
    unread: int
    """Prompts left out since their last token is at position 0, or its activation is an outlier."""


def write_last_tokens(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[ProbeTask],
    *,
    layer: int,
    context: int,
    bos: str = "auto",
    progress: bool | None = None,
) -> None:
    """Write the activations after block `layer` at the last token of every prompt; a killed call continues.

    A prompt is cut to its last `context` tokens, as `sae-probes` does. `progress` shows a bar; None is as `showing`
    says. Raises as `extract` does, and ConfigError where a file of another model, layer or task is there.
    """
    start, weights = window_start(tokenizer, bos), weights_of(model)
    with progress_bar("prompts", total=len(tasks), unit="task", shown=progress) as bar:
        for place, task in enumerate(tasks):
            path, parts = folder / _file(place), _parts(task)
            windows = {part: last_windows(found.texts, tokenizer, context, start) for part, found in parts.items()}
            made_of = {"of": _fingerprint((weights, model.dtype, layer), windows, parts)}
            if not (path.exists() and _is_of(path, made_of)):
                tensors: dict[str, Tensor] = {}
                for part, prompts in parts.items():
                    read = _read(model, layer, windows[part])
                    tensors |= {f"{part}.{name}": tensor for name, tensor in read.items()}
                    tensors[f"{part}.labels"] = torch.from_numpy(prompts.labels.copy())
                write_atomically(path, partial(save_file, tensors, metadata=made_of))
            bar.update()
    about = [{"name": task.name, "classes": task.classes, "leaked": task.leaked} for task in tasks]
    write_json(folder / TASKS_FILE, about)


def read_last_tokens(folder: Path, max_norm: float = np.inf) -> list[TaskActivations]:
    """What `write_last_tokens` wrote, without prompts that end at position 0 or whose norm is above `max_norm`."""
    found = []
    for place, about in enumerate(read_json(folder / TASKS_FILE)):
        tensors, parts, unread = read_tensors(folder / _file(place)).tensors, {}, 0
        for part in ("train", "test"):
            x, norm, position, labels = (tensors[f"{part}.{name}"] for name in ("x", "norm", "position", "labels"))
            kept = (position > 0) & (norm <= max_norm)
            unread += int((~kept).sum())
            parts[part] = LabelledActivations(x[kept], labels[kept].numpy())
        name, classes = about["name"], tuple(about["classes"])
        found.append(TaskActivations(name, classes, **parts, leaked=about["leaked"], unread=unread))
    return found


def _fingerprint(
    model: tuple[object, ...], windows: Mapping[str, Sequence[np.ndarray]], parts: Mapping[str, Prompts]
) -> str:
    """16 hex digits of all that a task's activations are made of."""
    digest = hashlib.sha256(repr(model).encode())
    for part, found in windows.items():
        digest.update(repr((part, [len(window) for window in found])).encode())
        for content in (*found, parts[part].labels):
            digest.update(np.ascontiguousarray(content))
    return digest.hexdigest()[:16]


def _is_of(path: Path, made_of: Mapping[str, str]) -> bool:
    """Whether a file need not be made again; one of a version that did not say so is. Raises ConfigError for others."""
    known = read_tensors(path).metadata
    fix = f"{path.name} is of another model, layer or task: name another folder, or move it elsewhere"
    require(known.get("of") in (None, made_of["of"]), "folder", str(path.parent), fix)
    return "of" in known


def _parts(task: ProbeTask) -> Mapping[str, Prompts]:
    return {"train": task.train, "test": task.test}


def _file(place: int) -> str:
    return f"task_{place:03d}.safetensors"


def _read(model: PreTrainedModel, layer: int, windows: Sequence[Int32[np.ndarray, " _"]]) -> dict[str, Tensor]:
    """Activation, norm and position of the last token of each window; zeros for a text without a token."""
    lengths = np.array([len(window) for window in windows])
    x, norm = torch.zeros(len(windows), d_model(model), dtype=model.dtype), torch.zeros(len(windows))
    filled = np.flatnonzero(lengths)
    for batch in batched(lengths[filled]):
        places = filled[batch]
        residuals = forward(model, [layer], [windows[place] for place in places])[layer]
        x[places] = torch.stack([residual.states[-1] for residual in residuals])
        norm[places] = torch.stack([residual.norms[-1] for residual in residuals])
    return {"x": x, "norm": norm, "position": torch.from_numpy(lengths - 1)}
