"""What public functions refuse: by the argument's name and with the fix, before any work, whoever checks types."""

import json

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import unit_sae

import archsae_core as core
from archsae_core.checks import BLOCK_ROWS, require_finite
from archsae_core.config import ConfigError, DictionaryConfig, TrainingConfig
from archsae_core.metrics.stability import collapse_corrected, scores
from archsae_core.models.about import About
from archsae_core.models.dictionary import SparseArchetypalDictionary
from archsae_core.models.sae import structure as structure_of
from archsae_core.storage import CorruptArtifact


@pytest.fixture(autouse=True)
def as_people_call_it():
    """Only tests look at the annotations: here the functions themselves are to refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def points(n=12, width=4, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def with_entry(x, value):
    x = x.clone()
    x[5, 1] = value
    return x


def sae(k=2):
    return core.SAE(core.FreeDictionary(points(8)), k)


def trained_on(x):
    return core.train(sae(), x, TrainingConfig(steps=1, batch_size=4), progress=False)


TAKE_ACTIVATIONS = {
    "fit_normalizer": core.fit_normalizer,
    "fit_anchors": lambda x: core.fit_anchors(x, 3),
    "train": trained_on,
    "encode": lambda x: sae().encode(x),
    "forward": lambda x: sae()(x),
    "calibrate": lambda x: sae().calibrate(x),
    "quality": lambda x: core.quality(sae(), x),
    "quality of batches": lambda x: core.quality(sae(), [points(), x]),
    "structure": lambda x: core.structure(sae().atoms(), x, sae().encode(points())),
}
KNOW_THE_WIDTH = TAKE_ACTIVATIONS.keys() - {"fit_normalizer", "fit_anchors"}
BAD_ACTIVATIONS = {
    "NaN": (with_entry(points(), torch.nan), "holds NaN or infinity"),
    "infinity": (with_entry(points(), -torch.inf), "holds NaN or infinity"),
    "both infinities": (with_entry(with_entry(points(), torch.inf), torch.inf), "holds NaN or infinity"),
    "numbers beyond float32": (1e40 * points().double(), "row 0 holds (.*e.40, whose square|NaN or infinity)"),
    "squares beyond float32": (with_entry(points(), 1e20), "row 5 holds 1e.20, whose square is beyond float32"),
    "integers": (torch.ones(12, 4, dtype=torch.int64), "holds int64: it must be of a floating-point dtype"),
    "booleans": (torch.ones(12, 4, dtype=torch.bool), "holds bool: it must be of a floating-point dtype"),
    "complex numbers": (torch.ones(12, 4, dtype=torch.complex64), "holds complex64: it must be of a floating-point"),
    "three dimensions": (points().reshape(3, 4, 4), r"the shape \[3, 4, 4\]: .* flatten\(0, -2\)"),
    "one dimension": (points()[0], r"the shape \[4\]: it must be a matrix"),
    "an array": (points().numpy(), r"no tensor but a ndarray: torch\.from_numpy"),
}


@pytest.mark.parametrize("what", BAD_ACTIVATIONS)
@pytest.mark.parametrize("function", TAKE_ACTIVATIONS)
def test_activations_that_cannot_be_used(function, what):
    x, error = BAD_ACTIVATIONS[what]
    with pytest.raises(ConfigError, match=error):
        TAKE_ACTIVATIONS[function](x)


@pytest.mark.parametrize("function", sorted(KNOW_THE_WIDTH))
@pytest.mark.parametrize("width", [1, 5])
def test_activations_of_another_width(function, width):
    with pytest.raises(ConfigError, match=rf"the shape \[12, {width}\]: it must have 4 columns, d_model"):
        TAKE_ACTIVATIONS[function](points(12, width))


@pytest.mark.parametrize("function", ["fit_normalizer", "train", "calibrate"])
def test_no_activations(function):
    with pytest.raises(ConfigError, match=r"the shape \[0, 4\]: it must have at least one row"):
        TAKE_ACTIVATIONS[function](points(0))


def test_no_activations_to_cluster_or_to_score():
    with pytest.raises(ConfigError, match="n_anchors = 3: only 0 activations"):
        core.fit_anchors(points(0), 3)
    with pytest.raises(ValueError, match="no activations to score"):
        core.quality(sae(), points(0))
    assert sae().encode(points(0)).values.shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_dtype_is_taken_as_its_float32(dtype):
    x = points(40).to(dtype)
    assert torch.equal(core.fit_anchors(x, 5).points, core.fit_anchors(x.float(), 5).points)
    assert core.quality(sae(), x) == core.quality(sae(), x.float())
    assert torch.equal(core.fit_normalizer(x.float()).mean, core.fit_normalizer(x).mean)
    assert torch.equal(trained_on(x).W_enc, trained_on(x.float()).W_enc)
    start = core.FreeDictionary(x, unit_norm=False)
    assert torch.equal(start.D, x.float())
    assert core.ArchetypalDictionary.from_anchors(x).C.dtype == torch.float32


def test_gradients_are_neither_asked_for_nor_left_behind():
    x = points(40).requires_grad_()
    plain = x.detach()
    assert torch.equal(core.fit_anchors(x, 5).points, core.fit_anchors(plain, 5).points)
    assert not core.fit_normalizer(x).mean.requires_grad
    assert torch.equal(trained_on(x).W_enc, trained_on(plain).W_enc)
    assert core.quality(sae(), x) == core.quality(sae(), plain)
    assert core.structure(x, x, core.Codes(torch.ones(40, 1), torch.zeros(40, 1, dtype=torch.int64))).n_tokens == 40
    assert core.cosine_with_start(x, x) == pytest.approx(1)
    assert core.match(x).rows.tolist() == core.match(plain).rows.tolist()
    assert x.grad is None


def test_rows_need_not_be_contiguous():
    x = points(4, 40).T
    assert torch.equal(core.fit_anchors(x, 5).points, core.fit_anchors(x.contiguous(), 5).points)
    assert core.quality(sae(), x).r2 == pytest.approx(core.quality(sae(), x.contiguous()).r2)


def test_large_finite_numbers_are_finite_and_the_row_is_the_right_one():
    x = torch.full((BLOCK_ROWS + 3, 2), 1e19)
    require_finite("x", x)
    require_finite("x", torch.full((9, 9), 6e4, dtype=torch.float16))
    x[BLOCK_ROWS + 1, 0] = torch.nan
    with pytest.raises(ConfigError, match=f"x: row {BLOCK_ROWS + 1} holds NaN"):
        require_finite("x", x)


@pytest.mark.parametrize("x", [points(1), points(1).repeat(7, 1), 1e3 + points(1).repeat(3, 1), torch.zeros(3, 4)])
def test_r2_is_not_defined_for_one_activation_or_equal_ones(x):
    with pytest.raises(ValueError, match="R² is not defined: there is only one, or all activations are equal"):
        core.quality(sae(), x)
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match="R² is not defined: there is only one, or all activations are equal"):
            core.r2((x / 3).to(dtype), torch.zeros(x.shape, dtype=dtype))


def test_r2_of_two_activations_far_from_the_training_mean_is_defined():
    x = torch.tensor([[1e3, 0.0], [1e3, 1.0]])
    assert core.quality(unit_sae(2, 2, k=2), x).r2 == pytest.approx(1)


NO_COUNT = [0, -1, 2.5, "2", True, None]


@pytest.mark.parametrize("value", NO_COUNT)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("k", lambda n: sae(n)),
        ("k", lambda n: core.SAE(core.FreeDictionary(points(8)), n, activation="batchtopk")),
        ("n_anchors", lambda n: core.fit_anchors(points(), n)),
        ("iterations", lambda n: core.fit_anchors(points(), 3, iterations=n)),
        ("n_features", lambda n: core.FreeDictionary.random(n, 4)),
        ("d_model", lambda n: core.FreeDictionary.random(4, n)),
        ("steps", lambda n: TrainingConfig(steps=n)),
        ("batch_size", lambda n: TrainingConfig(batch_size=n)),
        ("n_features", lambda n: DictionaryConfig(n_features=n)),
    ],
)
def test_counts_are_whole_numbers_from_1(name, use, value):
    with pytest.raises(ConfigError, match=rf"{name} = {value!r}: must be (a whole number|at least 1)"):
        use(value)


@pytest.mark.parametrize("value", [0, -1, 2.5, "2", True])
def test_an_archetypal_dictionary_has_atoms(value):
    with pytest.raises(ConfigError, match=r"n_features = .*: must be (a whole number|at least 1)"):
        core.ArchetypalDictionary.from_anchors(points(), value)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_k_must_not_exceed_the_features(activation):
    with pytest.raises(ConfigError, match="k = 9: must not exceed n_features = 8"):
        core.SAE(core.FreeDictionary(points(8)), 9, activation=activation)


def test_numpy_counts_are_counts(tmp_path):
    core.save_sae(sae(np.int64(3)), tmp_path / "a.safetensors")
    assert core.load_sae(tmp_path / "a.safetensors").k == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "wide", True, None])
def test_numbers_are_finite_numbers(value):
    for name in ("lr", "aux_coefficient", "decay"):
        with pytest.raises(ConfigError, match=f"{name} = "):
            TrainingConfig(**{name: value})
    with pytest.raises(ConfigError, match="delta = "):
        core.ArchetypalDictionary(points(), torch.eye(12), delta=value)
    with pytest.raises(ConfigError, match="smoothing = "):
        DictionaryConfig(smoothing=value)


@pytest.mark.parametrize(
    ("mean", "scale", "error"),
    [
        (torch.zeros(1), 1.0, r"mean is \[1\]: it must be a tensor of the shape \[4\]"),
        (torch.zeros(1, 4), 1.0, r"mean is \[1, 4\]"),
        (torch.full((4,), torch.nan), 1.0, "mean: row 0 holds NaN"),
        ([0.0] * 4, 1.0, "mean is list"),
        (torch.zeros(4), 0.0, "scale = 0.0: must be positive and finite"),
        (torch.zeros(4), float("nan"), "scale = nan: must be positive and finite"),
        (torch.zeros(4), 1e42, r"scale = 1e\+42: must be positive and finite in float32 as well"),
        (torch.zeros(4), -1.0, "scale = -1.0: must be positive and finite"),
    ],
)
def test_a_normalizer_that_fits_no_activations(mean, scale, error):
    with pytest.raises(ConfigError, match=error):
        core.SAE(core.FreeDictionary(points(8)), 2, mean, scale)


def zeroed(x):
    x = x.clone()
    x[2] = 0
    return x


MIX = torch.eye(12)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: core.FreeDictionary(zeroed(points())), "start: row 2 is 0 and has no direction"),
        (lambda: core.FreeDictionary(with_entry(points(), torch.nan)), "start: row 5 holds NaN"),
        (lambda: core.FreeDictionary(points(0)), r"start has the shape \[0, 4\]"),
        (
            lambda: core.ArchetypalDictionary.from_anchors(with_entry(points(), torch.inf)),
            "anchors: row 5 holds",
        ),
        (lambda: core.ArchetypalDictionary.from_anchors(points().numpy()), "anchors is no tensor but a ndarray"),
        (lambda: core.ArchetypalDictionary(points(), torch.eye(4), delta=1), r"weights has the shape \[4, 4\]: .* 12"),
        (lambda: core.ArchetypalDictionary(points(), 2 * MIX, delta=1), "weights: row 0 has the sum 2"),
        (lambda: core.ArchetypalDictionary(points(), 2 * MIX - 1 / 12, delta=1), "weights: row 0 .* entry -0.08"),
        (
            lambda: core.SAE(core.ArchetypalDictionary(points(), 0 * MIX, delta=1), 2),
            "dictionary: row 0 is 0",
        ),
        (
            lambda: SparseArchetypalDictionary(points(), (torch.ones(3, 2), torch.tensor([[0, 12]] * 3)), delta=1),
            r"weights\[1\] must lie between 0 and 11",
        ),
        (
            lambda: SparseArchetypalDictionary(points(), (torch.ones(3, 2), torch.tensor([[4, 4]] * 3)), delta=1),
            r"weights\[1\]: the indices of a row must differ",
        ),
        (
            lambda: SparseArchetypalDictionary(
                points(), (torch.tensor([[2.0, -1]] * 3), torch.tensor([[4, 5]] * 3)), delta=1
            ),
            r"weights\[0\]: row 0 has the sum 1 and the smallest entry -1",
        ),
    ],
)
def test_dictionaries_that_are_none(make, error):
    with pytest.raises(ConfigError, match=error):
        make()


def test_an_atom_of_norm_0_is_kept_where_norms_are_free():
    assert core.SAE(core.FreeDictionary(zeroed(points()), unit_norm=False), 2).atoms()[2].tolist() == [0.0] * 4


A = points(6)
CODES = core.Codes(torch.ones(9, 1), torch.zeros(9, 1, dtype=torch.int64))
FEWER = core.Codes(CODES.values[:4], CODES.indices[:4])


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda: core.match(with_entry(points(6, 6), torch.nan)), "similarity: row 5 holds NaN"),
        (lambda: core.match(np.eye(3)), "similarity is no tensor but a ndarray"),
        (lambda: core.match(torch.eye(3, dtype=torch.int64)), "similarity holds int64"),
        (lambda: core.r2(points(), points()[:1]), r"x and x_hat have the shapes \[12, 4\] and \[1, 4\]"),
        (lambda: core.cosine_with_start(A, A[:1]), r"start and atoms have the shapes \[6, 4\] and \[1, 4\]"),
        (lambda: core.cosine_with_start(A, with_entry(A, torch.nan)), "atoms: row 5 holds NaN"),
        (lambda: core.hungarian_centred(A, points(6, 5)), r"b.atoms has the shape \[6, 5\]: it must have 4 columns"),
        (lambda: core.compare(core.Side(A), core.Side(with_entry(A, torch.nan))), "b.atoms: row 5 holds NaN"),
        (lambda: core.compare(core.Side(A, A[:5]), core.Side(A, A)), "a.encoder has 5 rows: .* each of the 6 atoms"),
        (lambda: core.compare(core.Side(A), core.Side(A, alive=torch.ones(6))), "b.alive holds torch.float32"),
        (lambda: core.compare(core.Side(A), core.Side(A, alive=torch.ones(5) > 0)), r"b.alive is \[5\]"),
        (
            lambda: core.chance_levels(core.Side(A, codes=CODES), core.Side(A, codes=FEWER)),
            "a.codes are of 9 tokens, b.codes of 4: encode the same",
        ),
        (lambda: core.structure(A, points(8), CODES), "codes are of 9 tokens, x of 8"),
        (lambda: core.collapse(with_entry(A, torch.nan)), "D: row 5 holds NaN"),
        (lambda: core.collapse(A, above=float("nan")), "above = nan: must lie between -1 and 1"),
        (lambda: scores(core.Side(A.numpy()), core.Side(A)), "a.atoms is no tensor but a ndarray"),
    ],
)
def test_dictionaries_that_cannot_be_compared(use, error):
    with pytest.raises(ConfigError, match=error):
        use()


def archetypal():
    dictionary = core.ArchetypalDictionary.from_anchors(points(), delta=0.5)
    with torch.no_grad():
        dictionary.relax.copy_(0.1 * points(seed=1))
    return core.SAE(dictionary, 2)


def mixed(tensors):
    tensors["dictionary.W"][3, 2] -= 0.5
    tensors["dictionary.W"][3, 4] += 0.5


@pytest.mark.parametrize(
    ("make", "settings", "change", "error"),
    [
        (sae, {"k": 9}, None, "k = 9: must not exceed n_features = 8"),
        (sae, {"k": 0}, None, "k = 0: must be at least 1"),
        (sae, {"k": None}, None, "k = None: must be a whole number"),
        (sae, {"activation": "relu"}, None, "activation = 'relu'"),
        (sae, {}, lambda t: t["W_enc"][1].fill_(torch.nan), "W_enc: row 1 holds NaN"),
        (sae, {}, lambda t: t["scale"].fill_(0), "scale = 0.0: must be positive"),
        (sae, {}, lambda t: t["dictionary.D"][1].mul_(2), "dictionary.D has a row whose norm is 1 off 1"),
        (sae, {}, lambda t: t.pop("mean"), "'mean' is missing"),
        (archetypal, {"delta": -1.0}, None, "delta = -1.0: must be 0 or larger"),
        (archetypal, {"delta": 0.01}, None, "dictionary.relax has a row of norm .* beyond delta = 0.01"),
        (archetypal, {}, mixed, "dictionary.W: row 3 .* smallest entry -"),
        (archetypal, {}, lambda t: t["dictionary.W"][3].mul_(2), "dictionary.W: row 3 has the sum 2"),
        (archetypal, {}, lambda t: t["dictionary.C"][0].fill_(torch.inf), "dictionary.C: row 0 holds NaN or infinity"),
    ],
)
def test_a_file_that_breaks_what_training_keeps_true(tmp_path, make, settings, change, error):
    path, kept = tmp_path / "a.safetensors", make()
    core.save_sae(kept, path)
    core.load_sae(path)
    tensors = load_file(path)
    if change:
        change(tensors)
    save_file(tensors, path, {"sae": json.dumps(structure_of(kept) | settings)})
    with pytest.raises(CorruptArtifact, match=rf"a\.safetensors is not a saved SAE \(.*({error}).*\): give a file"):
        core.load_sae(path)


def test_the_advice_about_a_file_is_that_of_whoever_keeps_it(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(CorruptArtifact) as found:
        core.load_sae(tmp_path / "a.safetensors")
    assert "delete" not in str(found.value)
    with pytest.raises(CorruptArtifact, match=r": delete the folder$"):
        core.load_sae(tmp_path / "a.safetensors", fix="delete the folder")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_sae_of_another_arithmetic_says_so(dtype):
    other, x = sae().to(dtype), points()
    for use in (other.encode, other, lambda x: other.decode(sae().encode(x)), lambda x: core.quality(other, x)):
        with pytest.raises(ConfigError, match=r"computes in float32: call \.float\(\)"):
            use(x)
    assert other.float().encode(x.to(dtype)).values.dtype == torch.float32


def test_inference_mode_has_no_gradients_to_train_with():
    with torch.inference_mode():
        made_inside = sae()
        made_inside.encode(points())
        with pytest.raises(ConfigError, match=r"outside of torch\.inference_mode"):
            trained_on(points())
    with pytest.raises(ConfigError, match=r"outside of torch\.inference_mode"):
        core.train(made_inside, points(), TrainingConfig(steps=1, batch_size=4), progress=False)


def test_one_atom_has_no_direction_less_its_mean():
    for compared in (core.hungarian_centred, lambda a, b: core.compare(core.Side(a), core.Side(b))):
        with pytest.raises(ConfigError, match=r"b\.atoms is one row: .* at least two"):
            compared(points(), points(1))
    with pytest.raises(ConfigError, match="n_features = 1: must be at least 2"):
        DictionaryConfig(n_features=1, k=1)


CODES_OF_12 = core.Codes(torch.ones(12, 2), torch.tensor([[0, 1]] * 12))
OTHER_CODES = {
    "too large": (torch.tensor([[0, 40]] * 12), "must lie between 0 and 11"),
    "negative": (torch.tensor([[-1, 0]] * 12), "must lie between 0 and 11"),
    "int32": (torch.zeros(12, 2, dtype=torch.int32), "holds int32: it must hold int64"),
    "another shape": (torch.zeros(12, 3, dtype=torch.int64), r"is \[12, 3\]: it must be a tensor of the shape"),
}


@pytest.mark.parametrize("what", OTHER_CODES)
def test_codes_of_another_dictionary_are_refused_before_native_code_reads_them(what):
    indices, error = OTHER_CODES[what]
    codes, atoms = CODES_OF_12._replace(indices=indices), points()
    mine, theirs = core.Side(atoms, codes=CODES_OF_12), core.Side(atoms, codes=codes)
    for use in (
        lambda: core.compare(mine, theirs),
        lambda: core.chance_levels(mine, theirs),
        lambda: core.structure(atoms, points(), codes),
        lambda: core.SAE(core.FreeDictionary(atoms), 2).decode(codes),
    ):
        with pytest.raises(ConfigError, match=rf"codes\.indices.*{error}"):
            use()


def test_codes_are_finite():
    codes = CODES_OF_12._replace(values=with_entry(CODES_OF_12.values, torch.nan))
    with pytest.raises(ConfigError, match=r"a\.codes\.values: row 5 holds NaN"):
        core.compare(core.Side(points(), codes=codes), core.Side(points(), codes=CODES_OF_12))


def test_chance_levels_of_other_scores_are_refused():
    side = core.Side(points(), codes=CODES_OF_12)
    levels = core.chance_levels(core.Side(points()), core.Side(points()))
    with pytest.raises(ConfigError, match=r"chance = .*: firing_correlation is missing: pass what chance_levels"):
        core.compare(side, side, chance=levels)
    with pytest.raises(ConfigError, match=r"chance\['greedy'\] = nan: must be a finite number"):
        core.compare(core.Side(points()), core.Side(points()), chance=levels | {"greedy": float("nan")})
    assert core.compare(core.Side(points()), core.Side(points()), chance=levels)["chance"] == levels


@pytest.mark.parametrize("value", ["false", 0, None])
def test_switches_are_true_or_false(value):
    with pytest.raises(ConfigError, match=r"unit_norm = .*: must be True or False"):
        core.FreeDictionary(points(), unit_norm=value)
    with pytest.raises(ConfigError, match=r"learn_scale = .*: must be True or False"):
        core.ArchetypalDictionary(points(), torch.eye(12), delta=1, learn_scale=value)


def test_a_normalizer_knows_its_frames():
    with pytest.raises(ConfigError, match="frame = 'xyz': must be one of centred, raw"):
        core.Normalizer(torch.zeros(4), 1.0, "xyz").normalize(points())


FOREIGN = ("sae.safetensors", "log.json", "snapshot_000001.safetensors")


@pytest.mark.parametrize("name", FOREIGN)
def test_training_replaces_no_file_of_something_else(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"work = .*: {name} is there and of no run: name another folder"):
        core.train(sae(), points(), TrainingConfig(steps=1, batch_size=4), str(tmp_path), progress=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_finished_run_is_replaced(tmp_path):
    for steps in (1, 2):
        core.train(sae(), points(), TrainingConfig(steps=steps, batch_size=4), tmp_path, progress=False)
    assert json.loads((tmp_path / "log.json").read_text())[-1]["step"] == 2


def changed(**changes):
    other = sae()
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def spoiled():
    other = sae()
    with torch.no_grad():
        other.W_enc[2, 1] = torch.nan
    return other


UNSOUND = {
    "another arithmetic": (lambda: sae().bfloat16(), "holds bfloat16 and computes in float32"),
    "NaN": (spoiled, "W_enc: row 2 holds NaN"),
    "k": (lambda: changed(k=0), "k = 0: must be at least 1"),
    "about": (lambda: changed(about=About(layer=-1)), r"about\.layer = -1: must be a whole number from 0"),
    "a path": (lambda: changed(about=About(note={1, 2})), "about: cannot be saved"),
}


@pytest.mark.parametrize("what", UNSOUND)
@pytest.mark.parametrize("save", [core.save_sae, core.to_saelens, lambda sae, path: sae.save_pretrained(path)])
def test_what_could_not_be_read_again_is_not_saved(what, save, tmp_path):
    make, error = UNSOUND[what]
    with pytest.raises(ConfigError, match=error):
        save(make(), tmp_path / "sae")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    core.save_sae(changed(about=About(metrics={"r2": np.float32(0.5)})), tmp_path / "a.safetensors")
    assert core.load_sae(tmp_path / "a.safetensors").about.metrics == {"r2": 0.5}


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_the_default_dtype_of_torch_changes_nothing(activation, tmp_path):
    anchors, x = core.fit_anchors(points(40), 8).points, points(40, seed=1)

    def made():
        free = core.SAE(core.FreeDictionary.random(8, 4), 2, scale=0.123456, activation=activation)
        archetypal = core.SAE(core.ArchetypalDictionary.from_anchors(anchors, 10), 2, scale=0.123456)
        core.save_sae(free, tmp_path / "a.safetensors")
        return [each(x) for each in (free, archetypal, core.load_sae(tmp_path / "a.safetensors"))]

    before = made()
    torch.set_default_dtype(torch.bfloat16)
    try:
        after = made()
        assert core.fit_anchors(points(40), 8).points.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_metrics_leave_what_they_are_given_as_it_is_whatever_the_default_dtype():
    """Codes share their memory with the sparse matrices of metrics; half of these codes are 0, as after ReLU."""
    x, sides = points(200, seed=3), []
    for seed in (0, 1):
        one = core.SAE(core.FreeDictionary(points(12, seed=seed)), 8)
        codes = one.encode(x)
        assert (codes.values == 0).float().mean() > 0.1
        sides.append(core.Side(one.atoms().detach(), one.W_enc.detach(), codes=codes))
    a, b = sides
    tensors = [x, *(t for side in sides for t in (side.atoms, side.encoder, *side.codes))]
    before = [t.clone() for t in tensors]

    def measured():
        return [
            core.compare(a, b),
            core.chance_levels(a, b),
            core.structure(a.atoms, x, a.codes),
            core.collapse(a.atoms),
            core.collapse(a.atoms, centred=False),
            collapse_corrected(a.atoms, b.atoms),
        ]

    found = measured()
    torch.set_default_dtype(torch.float64)
    try:
        again = measured()
    finally:
        torch.set_default_dtype(torch.float32)
    assert str(again) == str(found)
    for tensor, kept in zip(tensors, before, strict=True):
        assert torch.equal(tensor, kept)


def test_a_file_of_something_else_is_not_saved_over(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(ConfigError, match="is of something else than an SAE and would be replaced"):
            core.save_sae(sae(), place)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for _ in range(2):
        core.save_sae(sae(), tmp_path / "mine.safetensors")


def test_codes_of_a_feature_that_is_named_twice_are_added():
    codes = core.Codes(torch.tensor([[2.0, 0.0]]), torch.tensor([[0, 0]]))
    assert codes.dense(8)[0].tolist() == [2.0] + [0.0] * 7
    assert torch.allclose(codes.dense(8) @ sae().atoms(), sae().decode(codes))


def test_training_leaves_no_gradients():
    assert all(weights.grad is None for weights in trained_on(points()).parameters())
