"""One way to open an SAE, whoever saved it, wherever it is."""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError

from archsae_core.config import ConfigError, require_given, require_path
from archsae_core.data.hub import HubError, HubUnreachable, hub_commit
from archsae_core.interop import saelens
from archsae_core.interop.overcomplete import from_overcomplete, is_overcomplete
from archsae_core.models.sae import PRETRAINED_WEIGHTS, SAE, load_sae
from archsae_core.tensor_files import read_tensors

KINDS = (
    "a .safetensors file of this package, a folder of save_pretrained, a folder of SAELens, "
    "a .safetensors state dict of overcomplete, or user/repository of the hub with one of these folders"
)
HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(/(?P<folder>\w[\w.-]*(/\w[\w.-]*)*))?", re.ASCII)
"""A repository on the hub, and a folder in it: SAELens' `release` and `sae_id`, where the release is a repository."""
HUB_FILES = (PRETRAINED_WEIGHTS, saelens.CONFIG, saelens.WEIGHTS, saelens.OURS)
"""What is fetched of a folder on the hub."""


def open_sae(path: str | Path, *, k: int | None = None) -> SAE:
    """The SAE at `path`, one of `KINDS`: what is not there as a file or folder is looked for on the hub.

    `k` is for overcomplete's state dicts, which do not hold it: any other SAE keeps its own. Raises ConfigError that
    says what is there instead, CorruptArtifact for a damaged file of this package, HubError for a name that cannot be
    had from the hub.
    """
    require_given("sae", str(path), f"give {KINDS}")
    require_path("sae", str(path))
    name, path = Path(path).as_posix(), Path(os.path.expanduser(path))
    if path.exists():
        return _open_folder(path) if path.is_dir() else _open_file(path, k)
    on_hub = HUB_NAME.fullmatch(name)
    # below a folder that is there, a file was meant; so it was with this ending
    if on_hub is None or Path(path.parts[0]).exists() or path.suffix == ".safetensors":
        raise ConfigError(f"{path} does not exist: give {KINDS}")
    return _open_on_hub(on_hub["repository"], on_hub["folder"] or "")


def _open_on_hub(repository: str, folder: str) -> SAE:
    """From the hub's cache where the hub is away."""
    name, away = f"{repository}/{folder}".rstrip("/"), None
    try:
        hub_commit(repository, "model", None)
    except HubUnreachable as error:
        away = error
    except HubError as error:
        raise HubError(f"{name!r} is no file or folder here, and as a name on the hub: {error}") from error
    wanted = [f"{folder}/{file}".lstrip("/") for file in HUB_FILES]
    try:
        found = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=away is not None), folder)
    except LocalEntryNotFoundError as error:
        raise HubUnreachable(
            f"{name!r} is no file or folder here, and {away}: give {KINDS}, or try again with a network"
        ) from error
    if not any((found / file).is_file() for file in HUB_FILES):
        missing = " nor ".join((saelens.CONFIG, PRETRAINED_WEIGHTS))
        where = "in the cache, and the hub cannot be reached" if away else "on the hub"
        raise HubError(f"{name!r} has neither {missing} {where}: name the folder too, as in user/repository/folder")
    return _open_folder(found)


def _open_folder(folder: Path) -> SAE:
    if (folder / saelens.CONFIG).is_file() and (folder / PRETRAINED_WEIGHTS).is_file():
        both = f"{saelens.CONFIG} and {PRETRAINED_WEIGHTS}"
        raise ConfigError(f"{folder} holds {both}, which may be of two SAEs: move one of them elsewhere")
    if (folder / saelens.CONFIG).is_file() or (folder / saelens.WEIGHTS).is_file():
        return saelens.from_saelens(folder)
    if (folder / PRETRAINED_WEIGHTS).is_file():
        return SAE.from_pretrained(folder)
    raise ConfigError(f"{folder} has neither {saelens.CONFIG} nor {PRETRAINED_WEIGHTS}: give {KINDS}")


def _open_file(path: Path, k: int | None) -> SAE:
    try:
        tensors, metadata = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is no safetensors file ({error}): give {KINDS}") from error
    if "sae" in metadata:
        return load_sae(path)
    if is_overcomplete(set(tensors)):
        return from_overcomplete(path, k=k)
    held = ", ".join(sorted(tensors)[:4]) or "nothing"
    raise ConfigError(f"{path} is no SAE: it holds {held}; give {KINDS}")
