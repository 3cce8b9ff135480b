"""Run overcomplete's own archetypal dictionary: `overcomplete_dictionary.py SITE IN OUT`, in a process of its own.

The module is loaded by its path: importing the whole package would need torchvision and OpenCV, which it does not use.
"""

import importlib.util
import sys

import torch
from safetensors.torch import load_file, save_file


def main(site: str, given: str, out: str) -> None:
    path = f"{site}/overcomplete/sae/archetypal_dictionary.py"
    spec = importlib.util.spec_from_file_location("archetypal_dictionary", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = load_file(given)
    n_features, d_model = tensors["relax"].shape
    layer = module.RelaxedArchetypalDictionary(d_model, n_features, tensors["C"], delta=float(tensors["delta"]))
    with torch.no_grad():
        layer.W.copy_(tensors["W"])
        layer.Relax.copy_(tensors["relax"])
        layer.multiplier.copy_(tensors["log_scale"])
    atoms = layer.get_dictionary().detach()
    save_file({"D": atoms, "W": layer.W.detach().clone(), "relax": layer.Relax.detach().clone()}, out)


main(*sys.argv[1:])
