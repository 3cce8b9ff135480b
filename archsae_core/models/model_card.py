"""The card of an SAE on the Hugging Face hub: what it is, its data, its scores, its limits, its licence."""

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from archsae_core.models.about import About
from archsae_core.text import visible

LIBRARY = "archsae-core"
"""`library_name` on the hub: what opens the files."""
TAGS = ("sparse-autoencoder", "dictionary-learning", "mechanistic-interpretability")
UNKNOWN = "not recorded"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
METRICS = {
    "r2": "R² on raw activations: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖²",
    "l0": "active features a token",
    "cosine_centred": "mean cosine of x − mean with x̂ − mean",
    "dead_share": "share of features that never fire",
    "dense_share": "share of features that fire on more than 10 % of the tokens",
}
"""What each score is, for the card; others are shown by name."""


def model_card(structure: Mapping[str, Any], sizes: tuple[int, int], about: About) -> ModelCard:
    """The card of an SAE of this `structure` with `sizes` = (n_features, d_model)."""
    tags = [*TAGS, *(["archetypal"] if structure["dictionary"] == "archetypal" else [])]
    hub_name = about.model if HUB_NAME.fullmatch(about.model or "") else None
    data = ModelCardData(library_name=LIBRARY, tags=tags, license=about.licence, base_model=hub_name)
    sections = [_title(structure, sizes, about), _usage(), _data(about), _metrics(about), _limits(structure, about)]
    sections += [_licence(about), _citation(structure, about)]
    body = "\n\n".join("\n".join(section) for section in sections)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n", ignore_metadata_errors=False)


def _title(structure: Mapping[str, Any], sizes: tuple[int, int], about: About) -> Iterator[str]:
    (n_features, d_model), archetypal = sizes, structure["dictionary"] == "archetypal"
    place = "a language model" if about.model is None else _plain(about.model)
    if about.layer is not None:
        place = f"the residual stream after block {about.layer} (counted from 0) of {place}"
    yield f"# {'Archetypal sparse' if archetypal else 'Sparse'} autoencoder of {n_features} features"
    yield ""
    batch, guessed = structure["activation"] == "batchtopk", about.k_recorded is False
    active = f": {'about ' if batch else ''}{structure['k']} of {n_features} features are active a token"
    kind = "JumpReLU" if guessed else "BatchTopK" if batch else "TopK"
    yield f"A {kind} sparse autoencoder (SAE) for {place}{'' if guessed else active}."
    yield ""
    shift = "x − mean" if structure["frame"] == "centred" else "x"
    kept = "entries above a threshold of" if batch else "k largest entries of"
    yield f"x_n = ({shift})·scale,   z = {kept} ReLU(W_enc (x_n − b_dec) + b_enc),   x̂_n = z D + b_dec"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    yield f"| features | {n_features} |"
    yield f"| d_model | {d_model} |"
    yield f"| active features a token (k) | {UNKNOWN if guessed else structure['k']} |"
    removed = "the training mean is removed" if structure["frame"] == "centred" else "no mean is removed"
    yield f"| frame | {structure['frame']}: {removed} |"
    norm = "unit norm" if structure["unit_norm"] else "free norms"
    if archetypal:
        yield f"| dictionary | archetypal: D = W C + Λ, rows of W on the simplex, ‖Λ_i‖ ≤ δ; {norm} |"
        yield f"| δ | {structure['delta']:g}, where E‖x_n‖² = d_model |"
    else:
        yield f"| dictionary | free atoms{'' if structure['trainable'] else ', frozen at their start'}; {norm} |"
    for name, value in (("arm", about.arm), ("seed", about.seed), ("optimiser steps", about.steps)):
        if value is not None:
            yield f"| {name} | {_plain(value)} |"


def _usage() -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "from archsae_core import SAE"
    yield ""
    yield 'sae = SAE.from_pretrained("…")  # this repository, or a local copy of it'
    yield "codes = sae.encode(x)  # x: raw activations [batch, d_model]"
    yield "x_hat = sae.decode(codes)"
    yield "```"
    yield ""
    yield "`archsae_core.to_saelens(sae, folder)` writes it for SAELens. Weights are in safetensors; nothing is"
    yield "pickled."


def _data(about: About) -> Iterator[str]:
    yield "## Data"
    yield ""
    yield f"- Language model: {_or_unknown(about.model)}" + (
        f", revision {_plain(about.revision)}" if about.revision else ""
    )
    yield f"- Text: {_or_unknown(about.text)}"
    yield f"- Tokens in a sequence: {_or_unknown(about.context)}"
    left_out = ", ".join(map(str, about.excluded_positions))
    yield f"- Positions left out of training: {left_out or UNKNOWN}"
    if about.source:
        yield f"- Imported from: {_plain(about.source)}"


def _metrics(about: About) -> Iterator[str]:
    yield "## Metrics"
    yield ""
    if not about.metrics:
        yield "None were recorded with these weights."
        return
    yield "On held-out documents of the same text:"
    yield ""
    yield "| metric | value | what it is |"
    yield "| --- | --- | --- |"
    for name, value in about.metrics.items():
        yield f"| {_plain(name)} | {value:.4g} | {METRICS.get(name, '')} |"


def _limits(structure: Mapping[str, Any], about: About) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It holds for this layer of this model alone; other layers, models and fine-tunes need SAEs of their own."
    if about.excluded_positions:
        places = about.excluded_positions
        first = f"position{'s' * (len(places) > 1)} {', '.join(map(str, places))}"
        yield f"- It never saw {first} of a sequence, whose activations are far larger: leave it out."
    yield "- Text unlike the training text is reconstructed worse; measure it before you rely on a feature."
    yield "- Features have no verified meaning. Another seed gives other features in part; check the stability of those"
    yield "  you build on."
    if structure["dictionary"] == "archetypal":
        yield "- Atoms are confined to the neighbourhood of the anchors' hull, which costs reconstruction."
    if about.note:
        yield f"- {_plain(about.note)}"
    yield "- It was not evaluated for steering, for safety, or for finding what a model was trained on."


def _licence(about: About) -> Iterator[str]:
    yield "## Licence"
    yield ""
    if about.licence:
        yield f"{_plain(about.licence)}. The terms of the language model and of the text hold beside it."
    else:
        yield "None is stated. The terms of the language model and of the text that it was trained on hold."


def _citation(structure: Mapping[str, Any], about: About) -> Iterator[str]:
    yield "## Citation"
    yield ""
    if about.k_recorded is False:
        yield "JumpReLU SAEs: Rajamanoharan et al. (2024), [arXiv 2407.14435](https://arxiv.org/abs/2407.14435)."
    else:
        yield "TopK SAEs: Gao et al. (2024), [arXiv 2406.04093](https://arxiv.org/abs/2406.04093)."
    if structure["activation"] == "batchtopk" and about.k_recorded is not False:
        yield "BatchTopK: Bussmann et al. (2024), [arXiv 2412.06410](https://arxiv.org/abs/2412.06410)."
    if structure["dictionary"] == "archetypal":
        yield "Archetypal dictionaries: Fel et al. (2025), [arXiv 2502.12892](https://arxiv.org/abs/2502.12892)."


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else _plain(value)


def _plain(value: object) -> str:
    """Text from elsewhere on one line, with nothing that Markdown or HTML would act on."""
    text = html.escape(visible(" ".join(str(value).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)
