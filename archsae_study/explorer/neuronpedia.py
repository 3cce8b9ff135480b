"""The explorer's features as the JSON of other viewers: Neuronpedia's upload, and SAEDashboard's batches.

Neuronpedia's own client (`neuronpedia` 1.2) posts `{"modelId", "source", "features"}` to `feature/upload-batch`;
SAEDashboard (0.8) writes `batch-<n>.json`, which its `NeuronpediaDashboardBatch` reads. Neither has a place for names,
seeds, anchors or topics, and the explorer does not compute the neurons that SAEDashboard lists: docs/interop.md.
"""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from archsae_core.config import require
from archsae_core.storage import write_json
from archsae_study.explorer.data import Context, Feature
from archsae_study.explorer.page import Explorable

BATCH = 128
"""Features in one file: as many as Neuronpedia takes at once."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What Neuronpedia allows as the name of a model or of a set of sources: it becomes part of an address."""


class Bin(NamedTuple):
    """Contexts whose marked code lies between two quantiles of a feature's non-zero codes."""

    low: float
    high: float
    share: float
    """Of the feature's firings that lie there."""
    contexts: list[Context]


def bins(feature: Feature) -> list[Bin]:
    """The contexts of a feature by the quantiles that its bands stand at, largest codes first."""
    edges = [(band.quantile, band.value) for band in feature.bands] + [(0.0, 0.0)]
    contexts = [context for band in feature.bands for context in band.contexts]
    found = [
        Bin(low, high, quantile - below, []) for (quantile, high), (below, low) in itertools.pairwise(edges)
    ]  # fmt: skip
    for context in contexts:
        code = context.values[context.marked]
        next(each for each in found if code >= each.low).contexts.append(context)
    return [each for each in found if each.contexts]


def upload_of(feature: Feature) -> dict[str, Any]:
    """One feature of Neuronpedia's upload."""
    summary = feature.summary
    logits = {"topLogits": summary.promoted, "bottomLogits": summary.suppressed}
    return {
        "index": summary.feature,
        "density": summary.density,
        "activations": [
            {
                "tokens": context.tokens,
                "values": context.values,
                "quantileMax": each.high,
                "quantileMin": each.low,
                "quantileFraction": each.share,
            }
            for each in bins(feature)
            for context in each.contexts
        ],
        # explanations there come from methods of its own; a name by counting is none of them
        "explanations": [],
    } | {name: [{"token": each.token, "value": each.logit} for each in found] for name, found in logits.items()}


def dashboard_of(feature: Feature, text: str, n_prompts: int, n_tokens: int) -> dict[str, Any]:
    """One feature of SAEDashboard's batch; as many tokens were looked at as `n_prompts` texts of `n_tokens` have."""
    summary, histogram = feature.summary, feature.histogram
    centres = [(low + high) / 2 for low, high in itertools.pairwise(histogram.edges)]
    unknown = [f"{what}_{part}" for what in ("neuron_alignment", "correlated_neurons", "correlated_features")
               for part in ("indices", "values" if what == "neuron_alignment" else "pearson", "l1")]  # fmt: skip
    return {name: [] for name in unknown} | {
        "feature_index": summary.feature,
        "neg_str": [each.token for each in summary.suppressed],
        "neg_values": [each.logit for each in summary.suppressed],
        "pos_str": [each.token for each in summary.promoted],
        "pos_values": [each.logit for each in summary.promoted],
        "frac_nonzero": summary.density,
        "freq_hist_data_bar_values": centres,
        "freq_hist_data_bar_heights": histogram.counts,
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "n_prompts_total": n_prompts,
        "n_tokens_in_prompt": n_tokens,
        "dataset": text,
        "activations": [
            {
                "bin_min": each.low,
                "bin_max": each.high,
                "bin_contains": each.share,
                "tokens": context.tokens,
                "values": context.values,
                "qualifying_token_index": context.marked,
            }
            for each in bins(feature)
            for context in each.contexts
        ],
        "decoder_weights_dist": [],
        "vector": [],
    }


def write_upload(explorer: Explorable, key: str, folder: str | Path, *, model_id: str, set_name: str) -> list[Path]:
    """`upload-<n>.json` in `folder`: each is what Neuronpedia's client posts for 128 features of dictionary `key`.

    `model_id` is Neuronpedia's name of the model, `set_name` that of the set of sources, made there beforehand. Raises
    ConfigError for a name that cannot stand in an address, KeyError for a dictionary that is not on show.
    """
    check_names(model_id, set_name)
    source = f"{explorer.about.layer}-{set_name}"
    files = []
    for number, part in enumerate(_batches(explorer, key)):
        payload = {"modelId": model_id, "source": source, "features": [upload_of(feature) for feature in part]}
        files.append(Path(folder) / f"upload-{number}.json")
        write_json(files[-1], payload)
    return files


def write_dashboard(
    explorer: Explorable, key: str, folder: str | Path, *, model_id: str, set_name: str, context: int
) -> list[Path]:
    """`batch-<n>.json` in `folder`, as SAEDashboard writes them for Neuronpedia; `context` is tokens in a sequence.

    Raises as `write_upload` does.
    """
    check_names(model_id, set_name)
    about, files = explorer.about, []
    n_prompts = math.ceil(about.heldout_tokens / context)  # SAEDashboard's are full; here windows end with documents
    for number, part in enumerate(_batches(explorer, key)):
        features = [dashboard_of(feature, about.text, n_prompts, context) for feature in part]
        batch = {"model_id": model_id, "layer": about.layer, "sae_set": set_name, "sae_id_suffix": None}
        files.append(Path(folder) / f"batch-{number}.json")
        write_json(files[-1], batch | {"features": features})
    return files


def check_names(model_id: str, set_name: str) -> None:
    """Raise ConfigError for names that cannot stand in an address."""
    for name, value in (("model_id", model_id), ("set_name", set_name)):
        require(bool(NAME.fullmatch(value)), name, value, "use letters, digits, - . and _, as in gpt2-small")


def _batches(explorer: Explorable, key: str) -> Iterator[list[Feature]]:
    found = {each.key: each.n_features for each in explorer.about.dictionaries}
    if key not in found:
        raise KeyError(f"{key}: the dictionaries on show are {', '.join(found)}")
    features = (explorer.feature(key, feature) for feature in range(found[key]))
    while part := list(itertools.islice(features, BATCH)):
        yield part
