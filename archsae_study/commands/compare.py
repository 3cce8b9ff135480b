"""`python -m archsae_study compare`: do saved SAEs, ours or other people's, hold the same features?"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from archsae_core.checks import require_finite
from archsae_core.config import ConfigError, require, require_whole
from archsae_core.data.activations import open_activations
from archsae_core.interop import open_sae
from archsae_core.metrics import stability
from archsae_core.metrics.stability import HEADLINE, SCORES
from archsae_core.models.dictionary import ArchetypalDictionary
from archsae_core.models.sae import SAE, Codes
from archsae_core.storage import CorruptArtifact, read_json, write_atomically
from archsae_core.tensor_files import read_tensors
from archsae_core.text import visible
from archsae_study.commands.outputs import output_file
from archsae_study.formatting import foreign, markdown_table
from archsae_study.settings.values import given_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKENS = 20_000
"""Activations that codes are taken of, at most."""
BATCH = 4096
IMAGES = ("png", "svg", "pdf")
MADE_BY = "archsae_study compare"
"""In every figure: one without it is someone else's and is not replaced."""
COLOUR = "#0173b2"
"""Of scores in the figure; chance is grey."""
OUTLIERS = 10.0
"""Of a stored set of activations: norms above this many medians are left out."""


@dataclass(frozen=True)
class Entry:
    """One SAE of a comparison."""

    name: str
    path: str
    sae: SAE
    k: int | None
    """Codes a token; None where neither the file nor `--k` says."""


@dataclass(frozen=True)
class Pair:
    """Two SAEs by name, and what `stability.compare` finds of them."""

    a: str
    b: str
    found: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Every pair of several SAEs."""

    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    n_tokens: int
    """Activations that scores of firing rest on; 0 leaves those scores out."""

    @property
    def scores(self) -> list[str]:
        """The scores that every pair has, the headline first. Without activations no feature is known to be dead."""
        found = [name for name in SCORES if all(name in pair.found["raw"] for pair in self.pairs)]
        return found if self.n_tokens else [name for name in found if not name.endswith("_alive")]

    def values(self, kind: str, score: str) -> list[float]:
        """A score of every pair: `raw`, `chance` or `normalised`."""
        return [pair.found[kind][score] for pair in self.pairs]

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        saes = [{"name": entry.name, "path": entry.path} | _about(entry) for entry in self.entries]
        pairs = [{"a": pair.a, "b": pair.b} | dict(pair.found) for pair in self.pairs]
        return {"headline": HEADLINE, "n_tokens": self.n_tokens, "saes": saes, "pairs": pairs}


def read(paths: Sequence[str | Path], k: int | None = None, *, codes: bool = False) -> tuple[Entry, ...]:
    """The SAEs at `paths`, as `open_sae` takes them, each under a short name of its own.

    `k` is for state dicts of overcomplete, and needed for them where `codes` are. Raises ConfigError naming what cannot
    be compared, HubError what cannot be had from the hub.
    """
    if len(paths) < 2:
        raise ConfigError("compare needs at least two SAEs: give two or more files, folders or names on the hub")
    if k is not None:
        require_whole("k", k)
    saes = [open_sae(path, k=k if codes else k or 1) for path in paths]
    require_used(k, saes)
    first = saes[0]
    for path, sae in zip(paths, saes, strict=True):
        if sae.n_features < 2:
            raise ConfigError(f"{path} has 1 feature: atoms are compared less their mean, which takes at least two")
        if sae.d_model != first.d_model:
            raise ConfigError(
                f"{path} has d_model = {sae.d_model}, {paths[0]} has {first.d_model}: only SAEs of activations of one "
                "width can be compared, as those of the same layer of the same model are"
            )
    known = (sae.k if _knows_k(sae, k) else None for sae in saes)
    named = zip(short_names(paths), map(str, paths), saes, known, strict=True)
    return tuple(Entry(*entry) for entry in named)


def require_used(k: int | None, saes: Iterable[SAE]) -> None:
    """Raise ConfigError for a `k` where none of the SAEs is of a state dict of overcomplete, which does not say it."""
    used = k is None or any(sae.about.source == "overcomplete" for sae in saes)
    require(used, "k", k, "it is for state dicts of overcomplete, and none of these is one: leave it out")


def _knows_k(sae: SAE, given: int | None) -> bool:
    """Whether somebody said how many codes a token the SAE has: its files, or of overcomplete's whoever compares it."""
    return sae.about.k_recorded is not False and not (given is None and sae.about.source == "overcomplete")


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """The fewest last parts of each path that tell all of them apart, numbered where the paths are equal."""
    parts = [Path(str(path).removesuffix(".safetensors")).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path[-1]} ({place})" for place, path in enumerate(parts, start=1)]


def read_activations(path: str | Path, d_model: int, limit: int = TOKENS) -> Float[Tensor, "tokens d_model"]:
    """At most `limit` raw activations: a stored set of a study, or one matrix in a safetensors file.

    Raises ConfigError naming what is there instead.
    """
    place, said = given_path("activations", path), f"activations = {path}:"
    if place.is_dir():
        if not (place / "index.safetensors").is_file():
            raise ConfigError(f"{said} the folder has no index.safetensors, so no study wrote it")
        found = open_activations(place, OUTLIERS)
        x = found.gather(found.kept[:limit])
    else:
        x = _matrix(place, said)[:limit].float()
    if x.shape[1] != d_model:
        raise ConfigError(f"{said} they have width {x.shape[1]}, the SAEs take d_model = {d_model}")
    if len(x) < 2 or bool((x == x[:1]).all()):
        raise ConfigError(f"{said} {len(x)} rows, of which no two differ: give at least two that do")
    require_finite(said.rstrip(":"), x)
    return x


def _matrix(path: Path, said: str) -> Float[Tensor, "tokens d_model"]:
    try:
        tensors = read_tensors(path).tensors
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{said} no safetensors file ({error}): give one, or a stored set of a study") from error
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    if len(matrices) != 1:
        raise ConfigError(f"{said} {len(matrices)} matrices; the file has to hold one [tokens, d_model]")
    if not matrices[0].is_floating_point():
        raise ConfigError(f"{said} it holds {matrices[0].dtype}: save them as floating-point numbers, such as float32")
    return matrices[0]


def compare(entries: Sequence[Entry], x: Float[Tensor, "tokens d_model"] | None = None) -> Comparison:
    """Every score of every pair with its chance level; scores of firing where there are activations `x`."""
    sides = {entry.name: _side(entry.sae, x) for entry in entries}
    pairs = [Pair(a, b, stability.compare(sides[a], sides[b])) for a, b in itertools.combinations(sides, 2)]
    return Comparison(tuple(entries), tuple(pairs), 0 if x is None else len(x))


def _side(sae: SAE, x: Float[Tensor, "tokens d_model"] | None) -> stability.Side:
    if x is None:
        return stability.side(sae)
    codes = Codes.joined([sae.encode(part) for part in x.split(BATCH)])
    fired = torch.zeros(sae.n_features, dtype=torch.bool)
    fired[codes.indices[codes.values > 0]] = True
    return stability.side(sae, fired, codes)


def _about(entry: Entry) -> dict[str, Any]:
    sae = entry.sae
    archetypal = isinstance(sae.dictionary, ArchetypalDictionary)
    kind = f"archetypal, δ = {sae.dictionary.delta:g}" if archetypal else "free"
    frame = "centred" if sae.shift.any() or sae.b_dec.any() else "raw"
    if sae.about.source and not sae.shift.any() and sae.b_dec.any():
        frame = None  # other tools learn a bias, which may be the mean and may be none
    sizes = {"features": sae.n_features, "d_model": sae.d_model, "activation": _activation(sae), "k": entry.k}
    sizes |= {"dictionary": kind, "frame": frame}
    return sizes | {"model": sae.about.model, "layer": sae.about.layer, "seed": sae.about.seed}


def _activation(sae: SAE) -> str:
    """Of the SAE as it was saved: one of SAELens with thresholds is a JumpReLU SAE, read as BatchTopK with one."""
    imported = (sae.about.source or "").startswith("SAELens")
    return "jumprelu" if imported and sae.activation == "batchtopk" else sae.activation


def warnings(entries: Sequence[Entry]) -> Iterator[str]:
    """What makes the comparison one of unlike things, as far as the SAEs say where they come from."""
    for field in ("model", "layer"):
        values = {getattr(entry.sae.about, field) for entry in entries} - {None}
        if len(values) > 1:
            listed = visible(", ".join(sorted(map(str, values))))
            yield f"the SAEs are of different {field}s ({listed}): atoms of different spaces are compared"
    for entry in entries:
        about = entry.sae.about
        if about.reads_elsewhere:
            source = visible(about.source or "")
            yield f"{entry.name} does not read the residual stream ({source}): other spaces may be compared"


def report(comparison: Comparison) -> str:
    """Markdown: the SAEs, every score against chance, and with more than two SAEs the headline of each pair."""
    about = [[entry.name, *_about(entry).values()] for entry in comparison.entries]
    rows = [[foreign(each) if isinstance(each, str) else each for each in row] for row in about]
    header = ("SAE", "features", "d_model", "activation", "k", "dictionary", "frame", "model", "layer", "seed")
    blocks = [markdown_table(header, rows), _score_table(comparison)]
    if len(comparison.entries) > 2:
        blocks.append(_matrix_table(comparison))
    if comparison.n_tokens:
        note = f"Codes of {comparison.n_tokens:,} activations. "
    else:
        note = "Codes are not compared: `--activations` gives those, and which features fire. "
    chance = "Chance is the score of random dictionaries with the means and covariances of these; normalised = (raw − "
    return "\n\n".join([*blocks, f"{note}{chance}chance) / (1 − chance)."])


def _score_table(comparison: Comparison) -> str:
    header, one = ["score", "raw", "chance", "normalised"], len(comparison.pairs) == 1
    rows = []
    for score in comparison.scores:
        means = [float(np.mean(comparison.values(kind, score))) for kind in ("raw", "chance", "normalised")]
        spread = comparison.values("normalised", score)
        rows.append([score, *means, *([] if one else [min(spread), max(spread)]), SCORES[score]])
    return markdown_table([*header, *([] if one else ["lowest pair", "highest pair"]), "what it compares"], rows)


def matrix(comparison: Comparison) -> Float[np.ndarray, "n n"]:
    """The headline of every pair, chance-normalised; 1 on the diagonal."""
    place = {entry.name: i for i, entry in enumerate(comparison.entries)}
    found = np.eye(len(place))
    for pair in comparison.pairs:
        i, j = place[pair.a], place[pair.b]
        found[i, j] = found[j, i] = pair.found["normalised"][HEADLINE]
    return found


def _matrix_table(comparison: Comparison) -> str:
    names = [foreign(entry.name) for entry in comparison.entries]
    rows = [[name, *map(float, row)] for name, row in zip(names, matrix(comparison), strict=True)]
    return markdown_table([f"{HEADLINE}, normalised", *names], rows)


def figure(comparison: Comparison) -> "Figure":
    """Every score and its chance level; with more than two SAEs also the headline of each pair."""
    import seaborn as sns  # takes a second, which the table need not wait for

    from archsae_study.pages.style import panels

    many = len(comparison.entries) > 2
    drawn, axes = panels(2 if many else 1, width=6.5, height=0.32 * len(comparison.scores) + 1.4)
    names = comparison.scores[::-1]
    for place, score in enumerate(names):
        raw, chance = (comparison.values(kind, score) for kind in ("raw", "chance"))
        axes[0].plot([np.mean(chance), np.mean(raw)], [place, place], color="0.75", linewidth=2, zorder=1)
        axes[0].plot(chance, [place] * len(chance), "o", color="white", markeredgecolor="0.4", markersize=6)
        axes[0].plot(raw, [place] * len(raw), "o", color=COLOUR, markersize=6)
        axes[0].plot(np.mean(raw), place, "|", color=COLOUR, markersize=14)
    axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=9)
    axes[0].set(
        xlabel="● score of a pair   | mean   ○ unrelated dictionaries", xlim=(min(0.0, axes[0].get_xlim()[0]), 1.02)
    )
    if many:
        # names are data: no formula starts in them
        labels = [visible(entry.name).replace("$", r"\$") for entry in comparison.entries]
        options = dict(xticklabels=labels, yticklabels=labels, annot=True, fmt=".2f", vmin=0, vmax=1, square=True)
        sns.heatmap(matrix(comparison), ax=axes[1], cmap="crest", cbar=False, **options)
        axes[1].set_title("one-to-one cosine of centred atoms (0 = chance)", fontsize=10)
    return drawn


def save_figure(comparison: Comparison, path: str | Path) -> None:
    """Write `figure` to `path`, atomically."""
    kind = check_image(path)
    marked = {"Software" if kind == "png" else "Creator": MADE_BY}
    options = dict(format=kind, dpi=110, bbox_inches="tight", metadata=marked)
    drawn = figure(comparison)
    write_atomically(path, lambda temporary: drawn.savefig(temporary, **options))


def outputs(figure: str | Path, json: str | Path | None, inputs: Sequence[str | Path]) -> tuple[Path, Path | None]:
    """Where the figure and the scores are written. Raises ConfigError for a place that cannot be, or is another's."""
    check_image(figure)
    drawn = output_file("figure", figure, inputs, _is_figure, "figure of compare")
    if json is None:
        return drawn, None
    scores = output_file("json", json, inputs, _is_comparison, "file of compare")
    require(scores != drawn, "json", str(json), "the figure goes there: name another file")
    return drawn, scores


def _is_figure(path: Path) -> bool:
    return MADE_BY.encode() in path.read_bytes()


def _is_comparison(path: Path) -> bool:
    try:
        found = read_json(path)
    except CorruptArtifact:
        return False
    return isinstance(found, dict) and {"headline", "n_tokens", "saes", "pairs"} <= found.keys()


def check_image(path: str | Path) -> str:
    """The kind of image that `path` ends in. Raises ConfigError for one that is not written here."""
    kind = Path(path).suffix[1:].lower()
    require(kind in IMAGES, "figure", str(path), f"name a file that ends in {', '.join(f'.{kind}' for kind in IMAGES)}")
    return kind
