"""Other people's SAEs in the explorer, beside the study's own."""

import pytest
import torch

from archsae_core.interop import from_saelens, to_saelens
from archsae_core.interop.saelens import OURS
from archsae_core.models.about import OWN_UNITS, About
from archsae_core.models.dictionary import FreeDictionary
from archsae_core.models.sae import SAE
from archsae_study.engine.runs import arm_runs
from archsae_study.engine.study import Study
from archsae_study.explorer import of_study
from archsae_study.explorer.of_study import guest_keys, subject_runs
from archsae_study.settings.config import ConfigError, configure


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(configure({"preset": "smoke"}), tmp_path_factory.mktemp("runs"))


def test_an_imported_sae_is_shown_like_the_studys_own(study, tmp_path):
    folder = to_saelens(study.sae(arm_runs(study.config, "ra-own")[0]), tmp_path / "theirs")
    (folder / OURS).unlink()  # as someone else's: a free dictionary on raw activations
    explorer = of_study(study, arms=("ra-own",), saes={"saes/their SAE": from_saelens(folder)})
    own, guest = explorer.about.dictionaries
    assert (guest.key, guest.label, guest.kind) == ("saes-their-SAE", "saes/their SAE", "free")
    assert (own.seed, guest.seed) == (0, None)
    assert own.units == f"the activations times {float(study.normalizer.scale):.3g}"
    assert (guest.units, guest.k) == ("the activations", own.k)
    assert guest.n_features == own.n_features
    mine, theirs = explorer.summaries(own.key), explorer.summaries(guest.key)
    assert [each.density for each in theirs] == pytest.approx([each.density for each in mine], abs=2e-3)
    assert [each.name for each in theirs[:10]] == [each.name for each in mine[:10]]
    near = explorer.feature(guest.key, 0).counterparts
    assert (near[0].dictionary, near[0].cosine) == ("ra-own", pytest.approx(1, abs=1e-5))


def test_what_an_imported_sae_does_not_say_is_not_made_up(study):
    sae = SAE(FreeDictionary(torch.eye(32)), 3)
    sae.about = About(k_recorded=False, note=OWN_UNITS)
    guest = of_study(study, arms=("ra-own",), saes={"theirs": sae}).about.dictionaries[1]
    assert (guest.k, guest.units) == (None, "the threshold of each feature")


def test_an_sae_of_another_width_is_named(study):
    other = SAE(FreeDictionary(torch.eye(5)), 1)
    with pytest.raises(ConfigError, match="saes = 'mine': has d_model = 5, layer 1 has 32"):
        of_study(study, arms=("ra-own",), saes={"mine": other})


def test_names_that_give_one_key_are_numbered_and_no_key_leaves_the_folder():
    names = ["日本", "語", "a b", "a-b", "ra-own", "..", ".", "x/../y"]
    keys = guest_keys(names, ["ra-own"])
    assert keys == ["sae", "sae-2", "a-b", "a-b-2", "ra-own-2", "sae-3", "sae-4", "x-..-y"]


def test_an_sae_of_another_width_is_named_before_anything_is_trained(tmp_path):
    fresh = Study(configure({"preset": "smoke"}), tmp_path)
    with pytest.raises(ConfigError, match="saes = 'mine': has d_model = 5"):
        of_study(fresh, arms=("ra-own",), saes={"mine": SAE(FreeDictionary(torch.eye(5)), 1)})
    assert not list(tmp_path.glob("store/*"))


def test_a_feature_is_matched_with_runs_from_other_centroids_only(study):
    for seed, folds in ((0, 2), (3, 2), (5, 3)):
        own = study.variant(seed=seed, anchor_folds=folds, n_seeds=2)
        for arm in ("ra-own", "topk-kmeans-own"):
            run, *others = subject_runs(own, arm)
            assert run.seed == seed
            assert others
            assert own.fold(run) not in {own.fold(other) for other in others}
        assert [run.seed for run in subject_runs(own, "topk-random-own")] == [seed, *({0, 1} - {seed})]


@pytest.mark.parametrize(
    ("about", "error"),
    [
        (About(layer=0), "saes = 'mine': is of layer 0, not 1: set `layer`"),
        (About(source="SAELens, blocks.1.hook_mlp_out"), "saes = 'mine': does not read the residual stream"),
    ],
)
def test_an_sae_of_another_place_is_named(study, about, error):
    other = SAE(FreeDictionary(torch.eye(32)), 1)
    other.about = about
    with pytest.raises(ConfigError, match=error):
        of_study(study, arms=("ra-own",), saes={"mine": other})
