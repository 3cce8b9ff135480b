"""Neuronpedia's upload and SAEDashboard's batches: by hand, against their field lists, and against the packages."""

import json
import subprocess
from pathlib import Path

import pytest
from peers import python_with

from archsae_core.config import ConfigError
from archsae_study.explorer import neuronpedia
from archsae_study.explorer.data import (
    About,
    Band,
    Context,
    DictionaryAbout,
    Feature,
    Histogram,
    Summary,
    TokenLogit,
)

SIDE = Path(__file__).parents[1] / "neuronpedia_side.py"

UPLOAD = {"index", "density", "activations", "explanations", "topLogits", "bottomLogits"}
UPLOADED_ACTIVATION = {"tokens", "values", "quantileMax", "quantileMin", "quantileFraction"}
"""What neuronpedia 1.2.1 posts for a feature and for an activation."""
BATCH = {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
DASHBOARD = set(
    "feature_index neuron_alignment_indices neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices "
    "correlated_neurons_l1 correlated_neurons_pearson correlated_features_indices correlated_features_l1 "
    "correlated_features_pearson neg_str neg_values pos_str pos_values frac_nonzero freq_hist_data_bar_values "
    "freq_hist_data_bar_heights logits_hist_data_bar_heights logits_hist_data_bar_values n_prompts_total "
    "n_tokens_in_prompt dataset decoder_weights_dist activations vector".split()
)
DASHBOARD_ACTIVATION = set("bin_min bin_max bin_contains tokens values qualifying_token_index".split())
"""What SAEDashboard 0.8.0 writes for a batch, a feature and an activation."""


def context(code, token="goal"):
    return Context(["a", token, " </script>\u202e\x00"], [0.0, code, 0.0], 1, 0, 1, None)


def feature_of(index, bands=()):
    logits = [TokenLogit("cup", 7, 1.5), TokenLogit("tie", 3, 0.5)]
    summary = Summary(index, "goal", 0.25, 8.0, 4.0, None, None, None, None, None, None, [], logits, logits[:1])
    return Feature(summary, 4, Histogram([0.0, 4.0, 8.0], [3, 1]), [], list(bands), [], [], [], None)


BANDS = [
    Band(1.0, 8.0, [context(8.0), context(5.0)]),
    Band(0.5, 4.0, [context(4.0), context(2.0)]),
    Band(0.25, 3.0, [context(1.0)]),
]


class Explorer:
    """130 features, of which the first fires."""

    about = About("title", "smollm2-135m", 22, "bbc-news", 100, 9, [], [
        DictionaryAbout("ra", "RA-SAE", "archetypal", 130, 6, 3, "x", 0, [], 1.0, None)], "")  # fmt: skip

    def feature(self, key, feature):
        return feature_of(feature, BANDS if feature == 0 else ())

    def summaries(self, key):
        return [self.feature(key, index).summary for index in range(130)]

    def anchors(self, key):
        return []

    def anchor(self, key, anchor):
        raise KeyError(anchor)


NAMES = {"model_id": "smollm2-135m", "set_name": "archsae-ra"}


@pytest.fixture
def folder(tmp_path):
    files = neuronpedia.write_upload(Explorer(), "ra", tmp_path, **NAMES)
    files += neuronpedia.write_dashboard(Explorer(), "ra", tmp_path, **NAMES, context=256)
    assert [path.name for path in files] == ["upload-0.json", "upload-1.json", "batch-0.json", "batch-1.json"]
    return tmp_path


def read(path):
    return json.loads(path.read_text())


def test_contexts_stand_in_the_bin_of_their_own_code():
    found = neuronpedia.bins(feature_of(0, BANDS))
    edges = [(each.low, each.high, each.share) for each in found]
    assert edges == [(4.0, 8.0, 0.5), (0.0, 3.0, 0.25)], "none lies between 3 and 4"
    codes = [[context.values[context.marked] for context in each.contexts] for each in found]
    assert codes == [[8.0, 5.0, 4.0], [2.0, 1.0]]


def test_shares_of_all_bins_add_up_to_one():
    bands = [Band(q, v, [context(v)]) for q, v in ((1.0, 8.0), (0.9, 6.0), (0.5, 3.0), (0.1, 1.0))]
    bands[-1].contexts.append(context(0.5))
    found = neuronpedia.bins(feature_of(0, bands))
    assert [each.low for each in found] == [6.0, 3.0, 1.0, 0.0]
    assert sum(each.share for each in found) == pytest.approx(1)


def test_an_upload_by_hand(folder):
    first, second = read(folder / "upload-0.json"), read(folder / "upload-1.json")
    assert (first["modelId"], first["source"]) == ("smollm2-135m", "22-archsae-ra")
    assert [len(part["features"]) for part in (first, second)] == [128, 2]
    assert [each["index"] for each in second["features"]] == [128, 129]
    fires, dead = first["features"][:2]
    assert fires.keys() == UPLOAD
    assert all(each.keys() == UPLOADED_ACTIVATION for each in fires["activations"])
    assert fires["activations"][0]["tokens"] == ["a", "goal", " </script>\u202e\x00"]
    assert fires["topLogits"] == [{"token": "cup", "value": 1.5}, {"token": "tie", "value": 0.5}]
    assert (dead["activations"], dead["density"]) == ([], 0.25)


def test_a_batch_by_hand(folder):
    batch = read(folder / "batch-0.json")
    assert batch.keys() == BATCH
    fires = batch["features"][0]
    assert fires.keys() == DASHBOARD
    assert all(each.keys() == DASHBOARD_ACTIVATION for each in fires["activations"])
    assert (fires["frac_nonzero"], fires["n_prompts_total"], fires["n_tokens_in_prompt"]) == (0.25, 1, 256)
    assert (fires["freq_hist_data_bar_values"], fires["freq_hist_data_bar_heights"]) == ([2.0, 6.0], [3, 1])
    assert fires["activations"][0]["qualifying_token_index"] == 1
    assert (fires["pos_str"], fires["neg_values"]) == (["cup", "tie"], [1.5])


@pytest.mark.parametrize("name", ["model_id", "set_name"])
def test_a_name_that_is_no_part_of_an_address_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=f"{name} = 'a/b': use letters, digits"):
        neuronpedia.write_upload(Explorer(), "ra", tmp_path, **NAMES | {name: "a/b"})


def test_an_unknown_dictionary_is_named(tmp_path):
    with pytest.raises(KeyError, match="other: the dictionaries on show are ra"):
        neuronpedia.write_upload(Explorer(), "other", tmp_path, **NAMES)


# --- the packages themselves, in an environment of their own ---


@pytest.fixture
def read_there(folder):
    subprocess.run([python_with("neuronpedia"), str(SIDE), str(folder)], check=True)
    return folder


def test_neuronpedias_client_posts_what_we_write(read_there):
    for number in (0, 1):
        posted = read(read_there / f"posted-upload-{number}.json")
        assert (posted["endpoint"], posted["method"], posted["uri"]) == ("feature", "POST", "upload-batch")
        assert posted["json"] == read(read_there / f"upload-{number}.json")


def test_saedashboard_reads_what_we_write(read_there):
    for number in (0, 1):
        assert read(read_there / f"read-batch-{number}.json") == read(read_there / f"batch-{number}.json")


def test_our_field_lists_are_those_of_saedashboard(read_there):
    assert read(read_there / "fields.json") == [sorted(BATCH), sorted(DASHBOARD), sorted(DASHBOARD_ACTIVATION)]
