"""Other packages, each in an environment of its own: a folder before the project's own packages on the path.

All use the project's torch, so none gains or loses by its build. A peer's folder holds the peer and what it imports
beyond this project's packages, installed with --no-deps on first use. What a peer imports at its top and never uses in
a training step is stubbed; each process reports what it stubbed.
"""

import importlib.metadata
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

from archsae_core.storage import cache_dir

ROOT = Path(__file__).resolve().parents[2]
STUBBED: dict[str, str] = {}
"""Modules that this process stubbed, and why."""


class PeerMissing(RuntimeError):
    """A peer that could not be installed."""


@dataclass(frozen=True)
class Peer:
    requirements: tuple[str, ...]
    """The package itself first."""
    cases: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return self.requirements[0].replace("==", " ")


PARSING = ("simple-parsing==0.1.9", "docstring-parser==0.18.0")
PEERS = {
    "overcomplete": Peer(("overcomplete==0.3.0", "einops==0.8.2"), ("topk", "ra")),
    "saelens": Peer(
        ("sae-lens==6.54.0", "transformer-lens==2.18.0", "einops==0.8.2", *PARSING),
        ("topk", "topk-bf16"),
    ),
    "dictionary_learning": Peer(("dictionary-learning==0.1.0", "einops==0.8.2"), ("topk",)),
    "sparsify": Peer(
        ("eai-sparsify==1.3.3", "natsort==8.4.0", "schedulefree==1.4.1", "einops==0.8.2", *PARSING), ("topk",)
    ),
}
TOOLS = {
    "faiss": Peer(("faiss-cpu==1.15.0",)),
    "superkmeans": Peer(("superkmeans==0.2.0",)),
    "lapx": Peer(("lapx==0.11.1",)),
}


def install(peer: Peer) -> Path:
    """Folder with a peer, installed on first use. Raises PeerMissing where pip cannot."""
    folder = cache_dir() / "bench" / peer.requirements[0]
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial)]
        done = subprocess.run([*command, *peer.requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissing(f"pip cannot install {peer.requirements[0]}: {done.stderr.strip().splitlines()[-1]}")
        partial.replace(folder)  # an interrupted installation is never taken for a finished one
    return folder


def environment(peer: Peer | None = None) -> dict[str, str]:
    """Environment variables of a process that imports this project, and `peer` before the project's own packages."""
    path = [str(ROOT)] if peer is None else [str(install(peer)), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": "ignore"}


def stub(name: str, why: str, **attributes: object) -> None:
    """Let `import name` give a module with these attributes only."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name], STUBBED[name] = module, why


def stub_root(distribution: str, name: str, why: str, **attributes: object) -> None:
    """Let the package's root module run none of its imports; its submodules stay its own."""
    folder = Path(importlib.metadata.distribution(distribution).locate_file(name))
    stub(name, why, __path__=[str(folder)], __version__=importlib.metadata.version(distribution), **attributes)
