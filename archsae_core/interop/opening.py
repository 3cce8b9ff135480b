"""One way to open an SAE, whoever saved it."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from archsae_core.config import ConfigError
from archsae_core.interop import saelens
from archsae_core.interop.overcomplete import from_overcomplete, is_overcomplete
from archsae_core.models.sae import PRETRAINED_WEIGHTS, SAE, load_sae

KINDS = (
    "a .safetensors file of this package, a folder of save_pretrained, a folder of SAELens, "
    "or a .safetensors state dict of overcomplete"
)


def open_sae(path: str | Path, *, k: int | None = None) -> SAE:
    """The SAE at `path`: what `KINDS` lists. `k` is for overcomplete's state dicts, which do not hold it.

    Raises ConfigError that says what is there instead, and CorruptArtifact for a damaged file of this package.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path} does not exist: give {KINDS}")
    return _open_folder(path) if path.is_dir() else _open_file(path, k)


def _open_folder(folder: Path) -> SAE:
    if (folder / saelens.CONFIG).is_file() or (folder / saelens.WEIGHTS).is_file():
        return saelens.from_saelens(folder)
    if (folder / PRETRAINED_WEIGHTS).is_file():
        return SAE.from_pretrained(folder)
    raise ConfigError(f"{folder} has neither {saelens.CONFIG} nor {PRETRAINED_WEIGHTS}: give {KINDS}")


def _open_file(path: Path, k: int | None) -> SAE:
    try:
        with safe_open(str(path), framework="pt") as file:
            ours, names = "sae" in (file.metadata() or {}), set(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is no safetensors file ({error}): give {KINDS}") from error
    if ours:
        return load_sae(path)
    if is_overcomplete(names):
        return from_overcomplete(path, k=k)
    held = ", ".join(sorted(names)[:4]) or "nothing"
    raise ConfigError(f"{path} is no SAE: it holds {held}; give {KINDS}")
