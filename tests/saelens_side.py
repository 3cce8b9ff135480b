"""SAELens' side of tests/test_saelens.py, in an environment with SAELens: `saelens_side.py FOLDER`.

Every folder `ours-*` in FOLDER is loaded with `SAE.load_from_disk`; what SAELens makes of its `x.safetensors` goes to
`theirs.safetensors` beside it. For every `asked-*`, an SAE of SAELens with the settings in `asked.json` is saved
there, together with what it makes of random activations.
"""

import json
import sys
from pathlib import Path

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from safetensors.torch import load_file, save_file

KINDS = {
    "topk": (TopKSAE, TopKSAEConfig),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}


@torch.no_grad()
def run(sae: SAE, x: torch.Tensor) -> dict[str, torch.Tensor]:
    codes = sae.encode(x)
    return {"x": x, "codes": codes, "x_hat": sae.decode(codes), "forward": sae(x)}


def load(folder: Path) -> None:
    sae = SAE.load_from_disk(folder)
    assert type(sae).__name__ in ("TopKSAE", "JumpReLUSAE")
    save_file(run(sae, load_file(folder / "x.safetensors")["x"]), folder / "theirs.safetensors")
    (folder / "metadata.json").write_text(json.dumps(sae.cfg.metadata.to_dict()))


def make(folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text())
    generator = torch.Generator().manual_seed(asked.pop("seed"))
    kind, config = KINDS[asked.pop("kind", "topk")]
    sae = kind(config(**asked))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.abs() + 0.1 if name == "threshold" else drawn)
    if kind is BatchTopKTrainingSAE:
        sae.topk_threshold.fill_(0.8)
        sae.save_inference_model(folder)
    else:
        sae.save_model(folder)
    x = torch.randn(64, asked["d_in"], generator=generator)
    # computed in float32 whatever it was saved in
    save_file(run(SAE.load_from_disk(folder, dtype="float32"), x), folder / "theirs.safetensors")


def main(root: Path) -> None:
    for folder in sorted(root.glob("ours-*")):
        load(folder)
    for folder in sorted(root.glob("asked-*")):
        make(folder)


main(Path(sys.argv[1]))
