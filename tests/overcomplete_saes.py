"""overcomplete's side of tests/interop/test_overcomplete_import.py: `overcomplete_saes.py SITE OUT`, a process apart.

Each case but one is trained for a few steps, then put into evaluation mode. Its state dict, activations, and what
overcomplete makes of them go to OUT; so does what `from_overcomplete` makes of the SAE itself, or the error it raises.
"""

import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

from archsae_core.config import ConfigError
from archsae_core.interop import from_overcomplete
from archsae_core.models.sae import save_sae

D_MODEL, N_FEATURES, K = 6, 15, 3


def cases(sae: types.ModuleType) -> dict[str, torch.nn.Module]:
    sizes = {"nb_concepts": N_FEATURES, "top_k": K}
    points = 2 * torch.randn(18, D_MODEL)

    def topk(**dictionary: object) -> torch.nn.Module:
        return sae.TopKSAE(D_MODEL, **sizes, dictionary_params=dictionary)

    return {
        "ra": sae.RATopKSAE(D_MODEL, points=points, delta=0.2, **sizes),
        "ra without multiplier": sae.RATopKSAE(D_MODEL, points=points, delta=1.0, use_multiplier=False, **sizes),
        "ra tied": sae.RATopKSAE(D_MODEL, points=points, delta=0.2, **sizes).tied(bias=True),
        "ra untied": sae.RATopKSAE(D_MODEL, points=points, delta=0.2, **sizes).untied(),
        "ra of few anchors, untrained": sae.RATopKSAE(D_MODEL, points=points[:4], delta=1.0, **sizes),
        "topk": topk(),
        "topk with multiplier": topk(use_multiplier=True),
        "topk of free norms": topk(normalization="identity"),
        "topk of an MLP": sae.TopKSAE(D_MODEL, **sizes, encoder_module="mlp_ln_1"),
        "jump": sae.RAJumpSAE(D_MODEL, nb_concepts=N_FEATURES, points=points),
    }


def train(model: torch.nn.Module, x: torch.Tensor) -> None:
    # few steps: longer, atoms that are tied to the encoder meet in one anchor, and equal codes have no order
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(6):
        optimizer.zero_grad()
        (x - model(x)[2]).square().mean().backward()
        optimizer.step()


def main(site: str, out: Path) -> None:
    sys.path.insert(0, site)
    # importing the whole package would need torchvision and OpenCV, which its SAEs do not use
    root = types.ModuleType("overcomplete")
    root.__path__ = [f"{site}/overcomplete"]
    sys.modules["overcomplete"] = root
    from overcomplete import sae

    torch.manual_seed(0)
    x = torch.randn(64, D_MODEL)
    for name, model in cases(sae).items():
        if not name.endswith("untrained"):
            train(model, x)
        model.eval()
        with torch.no_grad():
            _, codes, x_hat = model(x)
        state = {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}
        save_file(state, out / f"{name}.safetensors")
        save_file({"x": x, "codes": codes, "x_hat": x_hat}, out / f"{name} made.safetensors")
        try:
            save_sae(from_overcomplete(model), out / f"{name} ours.safetensors")
        except ConfigError as error:
            (out / f"{name}.txt").write_text(str(error))


main(sys.argv[1], Path(sys.argv[2]))
