"""Two layers read in one pass: what each layer's study then finds, and what a kill in between costs."""

import pytest

from archsae_core.data import extraction
from archsae_core.storage import Store
from archsae_study.engine import layers
from archsae_study.engine.study import Study
from archsae_study.settings.config import configure


@pytest.fixture
def passes(monkeypatch):
    """Layers of every forward pass."""
    real, found = extraction.residuals_after, []

    def forward(model, wanted, *batch):
        found.append(tuple(wanted))
        return real(model, wanted, *batch)

    monkeypatch.setattr(extraction, "residuals_after", forward)
    return found


def studies(root):
    study = Study(configure({"preset": "smoke"}), root)
    return study, study.variant(layer=0), study.variant(k=2)


def rows(study):
    """Where the rows of each part are, and what the files there hold."""
    folders = [study._activation_folder(part) for part in ("train", "heldout")]
    files = [folder / name for folder in folders for name in (extraction.ROWS_FILE, extraction.INDEX_FILE)]
    return [path.read_bytes() for path in files], {path.name for folder in folders for path in folder.iterdir()}


def test_both_layers_are_there_after_one_pass_as_after_two(tmp_path, passes):
    alone = [rows(study) for study in studies(tmp_path / "alone")]
    two = len(passes)
    together = studies(tmp_path / "together")
    layers.read_layers(together)
    assert [rows(study) for study in together] == alone
    assert set(passes[two:]) == {(1, 0)}
    assert len(passes) == 1.5 * two
    assert not list((tmp_path / "together" / "store" / "layers").glob("*/layer_*"))


def test_nothing_is_read_where_one_layer_at_most_is_missing(tmp_path, passes):
    study, other, _ = studies(tmp_path)
    rows(study)
    before = len(passes)
    layers.read_layers([study, other])
    layers.read_layers([other])
    assert len(passes) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("begun", [0, 1])
def test_a_kill_between_the_pass_and_its_end_costs_no_second_pass(tmp_path, passes, monkeypatch, begun):
    study, other, _ = studies(tmp_path)
    real, calls = Store.begin, []

    def begin(store, stage, recipe, fill):
        if len(calls) == begun:
            raise Killed
        calls.append(recipe)
        real(store, stage, recipe, fill)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "begin", begin)
        with pytest.raises(Killed):
            layers.read_layers([study, other])
    train = len(passes)
    layers.read_layers([study, other])
    heldout = len(passes) - train
    assert 0 < heldout < train
    rows(study)
    rows(other)
    assert len(passes) == train + heldout


def test_folders_of_a_pass_are_no_artefacts(tmp_path):
    study, other, _ = studies(tmp_path)
    layers.read_layers([study, other])
    (left,) = {path.suffix for path in (tmp_path / "store" / "activations").iterdir() if path.is_dir()}
    assert left == ".partial"
