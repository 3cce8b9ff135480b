"""The training loop: one for every dictionary, seeded to the bit, resumable."""

import dataclasses
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from archsae_core.checks import require_matrix, require_rows
from archsae_core.config import ConfigError, TrainingConfig, require, require_given, require_whole
from archsae_core.data.activations import ActivationSet
from archsae_core.kernels import sparse as kernels
from archsae_core.kernels.processor import keep_freed_memory
from archsae_core.models.auxk import by_dead_features, by_features
from archsae_core.models.dictionary import ArchetypalDictionary, Decoder, SparseArchetypalDictionary, rounds
from archsae_core.models.sae import SAE, is_saved_sae, require_sound, save_sae, structure, uncompiled
from archsae_core.models.snapshots import is_snapshot, snapshot_file, snapshot_steps, write_snapshot
from archsae_core.models.w_step import MirrorStep, SparseMirrorStep
from archsae_core.progress import track
from archsae_core.storage import CorruptArtifact, read_json, write_atomically, write_json
from archsae_core.tensor_files import read_tensors

CHECKPOINT, FINISHED, LOG = "checkpoint.safetensors", "sae.safetensors", "log.json"
LOG_EVERY = 20
CLEAR_EVERY, TINY = 100, 1e-32
"""Steps, and size of a momentum below which it is cleared: 0.9^100 of it is above the least normal number, 1.2e-38."""
CLIP = 1.0
WITHOUT_VARIANCE = 1e6
"""A loss, in shares of a batch's variance, beyond which that variance is looked at."""
ORIGIN_ROWS = 1024
"""Rows of a tensor by which a checkpoint knows it again."""
RELAX_SHARE = 0.1
"""Longest step of Λ_i as a share of its radius δ."""


class ForeignCheckpoint(ConfigError):
    """A checkpoint is of another run."""


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the last good checkpoint is kept."""


Batches = Callable[[int], Tensor]
"""Raw activations [batch, d_model] of a step: a function of the step alone, so a resumed run sees the same data."""


class ShuffledBatches:
    """Shuffled batches, a function of the step, so that runs can be resumed.

    In an epoch each activation is drawn at most once; those that would not fill another batch wait for the next.
    """

    def __init__(
        self, gather: Callable[[Tensor], Tensor], rows: Int[Tensor, " n"], batch_size: int, seed: int = 0
    ) -> None:
        """`gather` gives the raw activations [batch, d_model] of some `rows`; a batch has at most all of them."""
        self.gather, self.rows, self.seed = gather, rows, seed
        self.batch_size = min(batch_size, len(rows))
        self.per_epoch = len(rows) // self.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Float[Tensor, "batch d_model"]:
        """Raw activations of one step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, self.rows[torch.randperm(len(self.rows), generator=generator)]
        return self.gather(self._order[place * self.batch_size : (place + 1) * self.batch_size])


def as_batches(x: Tensor | ActivationSet | Batches, batch_size: int, seed: int = 0) -> Batches:
    """Batches of a tensor of raw activations [tokens, d_model] or of a set's kept rows; a function stays as it is.

    Raises ConfigError for a tensor that is no floating-point matrix or holds NaN or infinity.
    """
    if isinstance(x, ActivationSet):
        return ShuffledBatches(x.gather, torch.as_tensor(x.kept), batch_size, seed)
    if torch.is_tensor(x):
        require_rows("x", x)
        return ShuffledBatches(x.detach().__getitem__, torch.arange(len(x)), batch_size, seed)
    if not callable(x):
        require_matrix("x", x)  # says how a tensor is made of it
    return x


class Losses(NamedTuple):
    """One step's losses and codes."""

    fvu: Float[Tensor, ""]
    aux: Float[Tensor, ""]
    values: Float[Tensor, "batch k"]
    indices: Int[Tensor, "batch k"]


def learning_rate_of_relax(dictionary: ArchetypalDictionary, config: TrainingConfig) -> float:
    """Adam's rate for Λ: scaled by the anchors' norm where atoms are unit-norm, so that Λ turns an atom as fast as D.

    Adam moves every entry of a row by about its rate, and the row by √d_model times that. A step as long as the radius
    would throw Λ_i from one side of its ball to the other: at most `RELAX_SHARE` of the radius is taken.
    """
    turns_atoms = config.w_step != "published" and dictionary.unit_norm
    rate = config.lr * (float(dictionary.C.norm(dim=1).median()) if turns_atoms else 1.0)
    return min(rate, RELAX_SHARE * dictionary.delta / math.sqrt(dictionary.C.shape[1]))


def decayed(step: int, config: TrainingConfig) -> float:
    """Learning rates of step `step` (from 0) as a share of those of the first: 1, then linearly to 0 at the end."""
    left = config.steps - step
    return max(0.0, min(1.0, left / (config.decay * config.steps))) if config.decay else 1.0


def _require_gradients(sae: SAE) -> None:
    if torch.is_inference_mode_enabled() or any(weights.is_inference() for weights in sae.parameters()):
        fix = "build and train the SAE outside of torch.inference_mode()"
        raise ConfigError(f"sae: weights of inference mode have no gradients: {fix}")
    if not any(weights.requires_grad for weights in sae.parameters()):
        fix = "train the SAE as it was built, or save it and load it again"
        raise ConfigError(f"sae: none of its weights requires a gradient, so that nothing would be trained: {fix}")


def _require_moving(dictionary: ArchetypalDictionary) -> None:
    """Raise ConfigError where W or Λ was frozen by hand: they are moved all the same."""
    moved = {name: weights for name, weights in dictionary.named_parameters() if name in ("W", "relax")}
    if dictionary.delta == 0:  # Λ is 0 and stays there
        moved.pop("relax")
    if dictionary.W_is_stepped:  # by an earlier training, which takes W out of autograd
        moved.pop("W", None)
    frozen = [name for name, weights in moved.items() if not weights.requires_grad]
    if frozen:
        fix = "for atoms that stay, build the SAE of FreeDictionary(dictionary.atoms(), trainable=False)"
        raise ConfigError(f"sae: dictionary.{frozen[0]} requires no gradient and would be trained: {fix}")


def _require_known_k(sae: SAE) -> None:
    if sae.about.k_recorded is False:
        fix = "set sae.k, and sae.about = dataclasses.replace(sae.about, k_recorded=None)"
        raise ConfigError(f"k = {sae.k}: it is a guess, since the files of this SAE do not say it: {fix}")


def _require_variance(batch: Tensor) -> None:
    if (batch == batch[0]).all():
        what = "has one row" if len(batch) == 1 else f"has {len(batch)} rows, all equal"
        raise ConfigError(f"x: the first batch {what}: the loss is a share of their variance: give rows that differ")


def _require_support(dictionary: SparseArchetypalDictionary, config: TrainingConfig) -> None:
    held, n_anchors = dictionary.W_values.shape[1], len(dictionary.C)
    fix = f"an atom of the dictionary mixes {held} of {n_anchors} anchors at most: give both the same support"
    require(held == min(config.support, n_anchors), "support", config.support, fix)


def _warn_of_vertices(dictionary: ArchetypalDictionary, config: TrainingConfig) -> None:
    """A step that multiplies weights leaves at 0 what is 0: rows of W that hold one anchor stay as they are."""
    held = (dictionary.W > 0).sum(dim=1) < 2
    if config.w_step == "mirror" and len(dictionary.C) > 1 and 2 * int(held.sum()) >= len(held):
        rows = f"{int(held.sum())} of {len(held)} rows of W hold one anchor, which w_step='mirror' never leaves"
        fix = "build it with a `smoothing` above 0, or train with w_step='published'"
        warnings.warn(f"{rows}: {fix}", stacklevel=4)


class Trainer:
    """State of one run: model, optimisers, dead-feature clock, log."""

    def __init__(self, sae: SAE, config: TrainingConfig) -> None:
        keep_freed_memory()
        _require_gradients(sae)
        self.sae, self.config = sae, config
        self.step, self.log = 0, []
        self.last_fired = torch.zeros(sae.n_features, dtype=torch.int64, device=sae.mean.device)
        archetypal = isinstance(sae.dictionary, ArchetypalDictionary)
        mirror = archetypal and config.w_step != "published"
        sparse = isinstance(sae.dictionary, SparseArchetypalDictionary)
        if archetypal and sparse != (config.w_step == "sparse"):
            raise ConfigError(f"w_step = {config.w_step!r}: the dictionary is a {type(sae.dictionary).__name__}")
        _require_known_k(sae)
        if archetypal:
            _require_moving(sae.dictionary)
            sae.dictionary.rounded = rounds(config)
        if sparse:
            _require_support(sae.dictionary, config)
        elif archetypal:
            sae.dictionary.W.requires_grad_(not mirror)
            sae.dictionary.W_is_stepped = mirror
            _warn_of_vertices(sae.dictionary, config)
        step = SparseMirrorStep if sparse else MirrorStep
        self.mirror = step(sae.dictionary, config.w_rate) if mirror else None
        slow = {id(weights) for name, weights in sae.dictionary.named_parameters() if name in ("W", "relax")}
        groups = [{"params": [p for p in sae.parameters() if p.requires_grad and id(p) not in slow], "lr": config.lr}]
        if archetypal:
            groups.append({"params": [sae.dictionary.relax], "lr": learning_rate_of_relax(sae.dictionary, config)})
            if not mirror:
                groups.append({"params": [sae.dictionary.W], "lr": config.w_rate})
        self.rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.Adam(groups, fused=True)

    def losses(self, x: Float[Tensor, "batch d_model"]) -> Losses:
        """Fraction of variance unexplained on a raw batch (per-dimension mean of the batch) and the AuxK loss."""
        sae = self.sae
        x = sae.normalize(x)
        centred = x - sae.b_dec.detach()
        values, indices = sae.choose(centred)
        dead = self.step - self.last_fired > self.config.dead_after
        aux_codes = self._aux_codes(dead)
        # W C is not computed again where the mirror step has it
        hull_points = (self.mirror.hull,) if self.mirror else ()
        decode = sae.dictionary.decoder(len(x), sae.k + aux_codes, *hull_points)
        values, x_hat = by_features(sae, values, indices, centred, decode)
        x_hat = x_hat + sae.b_dec
        variance = torch.linalg.vector_norm(x - x.mean(dim=0)).square()
        fvu = F.mse_loss(x_hat, x, reduction="sum") / variance.clamp_min(1e-12)
        aux = self._aux(dead, centred, x, x_hat.detach(), decode) if aux_codes else x.new_zeros(())
        return Losses(fvu, aux, values.detach(), indices)

    def _aux_codes(self, dead: Tensor) -> int:
        """Dead features that reconstruct a token's residual; on a GPU, where the host does not know, as if all were."""
        if self.config.aux_coefficient == 0:
            return 0
        return min(self.config.aux_k, len(dead) if kernels.on_gpu(dead) else int(dead.sum()))

    def _aux(self, dead: Tensor, centred: Tensor, x: Tensor, x_hat: Tensor, decode: Decoder) -> Tensor:
        """AuxK (Gao et al. 2024): the dead features' reconstruction of the residual, as a share of the residual."""
        error = x - x_hat
        rest = error - by_dead_features(self.sae, dead, self.config.aux_k, centred, decode)
        return dead.any() * rest.square().sum() / error.square().sum().clamp_min(1e-12)

    def train_step(self, x: Float[Tensor, "batch d_model"]) -> None:
        """One optimiser step, then the constraint. Raises TrainingDiverged; on a GPU it is looked for now and then."""
        if len(x) == 0:
            raise TrainingDiverged(f"x has no rows at step {self.step}: give batches that have some")
        with torch.autocast(self.sae.mean.device.type, enabled=False):  # around the language model, not here
            losses, norm = self._update(x)
        self.step += 1
        logged = self.step % LOG_EVERY == 0 or self.step == self.config.steps
        if logged or not kernels.on_gpu(norm):
            self._check(self._loss(losses), x)
        if logged or self.step == 1:
            self.log.append(self._row(losses, float(norm)))

    def _update(self, x: Float[Tensor, "batch d_model"]) -> tuple[Losses, Float[Tensor, ""]]:
        """All that a step does to tensors; its losses, detached, and the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        share = decayed(self.step, self.config)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        with torch.enable_grad():  # a kernel interrupted while it left `no_grad` stays without gradients
            losses = self.losses(x)
            self._loss(losses).backward()
        norm = self._gradient_norm()
        # fused Adam divides by it on the way: clipping without another pass over the gradients
        within = not kernels.on_gpu(norm) and norm <= CLIP
        self.optimizer.grad_scale = None if within else (norm / CLIP).clamp_min(1.0)
        self.optimizer.step()
        if self.step % CLEAR_EVERY == 0 and not kernels.on_gpu(norm):
            self._clear_denormals()
        if self.mirror:
            self.mirror.step(self.sae.dictionary.relax.grad, self.step, share)
            self.sae.dictionary.project_relax_()
        else:
            self.sae.dictionary.project_()
        if self.sae.activation == "batchtopk":
            self.sae.follow_threshold(losses.values)
        fired = self.step * (losses.values > 0).long()
        self.last_fired.scatter_reduce_(0, losses.indices.flatten(), fired.flatten(), "amax")
        return losses._replace(fvu=losses.fvu.detach(), aux=losses.aux.detach()), norm

    @torch.no_grad()
    def _clear_denormals(self) -> None:
        """Set to 0 the momenta that would become denormal numbers before the next time, as those of dead features do.

        A processor takes up to a hundred times as long for these. Adam divides by at least 1e-8, so that a parameter
        would move by less than 1e-26; a mirror step, by the same share of the gradient's usual size.
        """
        momenta = [state["exp_avg"] for state in self.optimizer.state.values()]
        for momentum in (*momenta, self.mirror.momentum) if self.mirror else momenta:
            momentum.masked_fill_(momentum.abs() < TINY, 0.0)

    def _gradient_norm(self) -> Float[Tensor, ""]:
        """Over all parameters; by rows, which is faster and more exact than one sum over millions of squares."""
        gradients = (p.grad for p in self.sae.parameters() if p.grad is not None)
        return torch.linalg.vector_norm(torch.cat([torch.linalg.vector_norm(g, dim=-1).flatten() for g in gradients]))

    def _loss(self, losses: Losses) -> Float[Tensor, ""]:
        return losses.fvu + self.config.aux_coefficient * losses.aux

    def _check(self, loss: Tensor, x: Tensor) -> None:
        fix = None
        if not torch.isfinite(loss):
            finite = x.isfinite().all()
            fix = (
                "lower lr or w_lr, then run again" if finite else "x holds NaN or infinity there: mend the activations"
            )
        elif loss > WITHOUT_VARIANCE and (x == x[0]).all():
            fix = "the rows of x are all equal there, and the loss is a share of their variance: give rows that differ"
        if fix:
            raise TrainingDiverged(f"loss is {float(loss)} at step {self.step - 1}: {fix}")

    @torch.no_grad()
    def _row(self, losses: Losses, norm: float) -> dict[str, float | int]:
        row = {"step": self.step, "r2": 1 - float(losses.fvu), "aux": float(losses.aux), "gradient_norm": norm}
        row["l0"] = float((losses.values > 0).sum(dim=1).float().mean())
        row["dead"] = float((self.step - self.last_fired > self.config.dead_after).float().mean())
        if isinstance(self.sae.dictionary, ArchetypalDictionary):
            row |= constraint_state(self.sae.dictionary)
        return row

    def save(self, path: Path, origin: str = "") -> None:
        """Write everything a bit-identical continuation needs, atomically; `origin` tells the run from others."""
        tensors = {f"model.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in state.items()}
        if self.mirror:
            tensors |= {f"mirror.{name}": tensor for name, tensor in self.mirror.tensors().items()}
        tensors["last_fired"] = self.last_fired
        tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        metadata = {"step": str(self.step), "log": json.dumps(self.log), "origin": origin}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))

    def load(self, path: Path, origin: str = "") -> None:
        """Continue from a checkpoint. Raises ConfigError for a damaged one, ForeignCheckpoint for another origin."""
        try:
            tensors, metadata = read_tensors(path)
        except SafetensorError as error:
            raise ConfigError(f"work: {path} cannot be read ({error}): delete it, and the run begins anew") from None
        if metadata.get("origin", "") != origin:
            raise ForeignCheckpoint(
                f"work: {path} is of another run: its data, start, seed or settings were others: give another folder, "
                "or delete it"
            )
        self.step, self.log = int(metadata["step"]), json.loads(metadata["log"])
        device = self.last_fired.device
        self.last_fired = tensors["last_fired"].to(device)
        self.sae.load_state_dict(_under(tensors, "model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, "adam.").items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        for name, tensor in _under(tensors, "mirror.").items():
            setattr(self.mirror, name, tensor.to(device))


def constraint_state(dictionary: ArchetypalDictionary) -> dict[str, float | int]:
    """Share of atoms with Λ at its bound, and the median effective number of anchors exp(H(W_i))."""
    at_bound = dictionary.relax.norm(dim=1) >= dictionary.delta * (1 - 1e-4)
    # not xlogy, which takes five times as long and took a twelfth of all training; by rows, to stay in the cache
    rows = dictionary.weights.split(64)
    entropy = torch.cat([-(row * row.clamp_min(torch.finfo(row.dtype).tiny).log_()).sum(dim=1) for row in rows])
    return {"relax_at_bound": float(at_bound.float().mean()), "effective_anchors": float(entropy.exp().median())}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train(
    sae: SAE,
    x: Tensor | ActivationSet | Batches,
    config: TrainingConfig,
    work: str | Path | None = None,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> SAE:
    """Train `sae` in place for `config.steps` steps, and return it.

    `x` holds raw activations: a tensor [tokens, d_model] or an `ActivationSet`, drawn in shuffled batches of
    `config.batch_size` (`ShuffledBatches`, by `seed`), or a function from a step to its batch, which `seed` leaves
    alone. The loss is a share of the variance of a batch, so that its rows must differ; of the first this is checked.

    Without `work` nothing is written. Otherwise a checkpoint of the same run, found in that folder, is continued, to
    the bit, and what is left there is `sae.safetensors`, `log.json` and a `snapshot_file` at each of `snapshot_steps`.
    A finished run that is there is replaced, with its snapshots. `progress` shows a bar; None is as `showing` says.
    Raises TrainingDiverged where the loss is not finite; the last checkpoint stays. Raises ConfigError before anything
    is trained or written for an `x` that `SAE.encode` would refuse (of a function, its first batch), for a first batch
    of equal rows, for a `seed` that is no whole number, for an `sae` of which weights that are trained were frozen, or
    that `save_sae` would refuse, and for files of something else under the names that are written; ForeignCheckpoint,
    which is one, for a checkpoint of another `config`, `sae` as it is given, first batch, or rows of a tensor.
    """
    require_whole("seed", seed, 0)
    given, sae = sae, uncompiled(sae)
    _require_gradients(sae)
    work = None if work is None else _place(work, sae, config.steps)
    if torch.is_tensor(x):
        require_matrix("x", x, width=sae.d_model)
    batches = as_batches(x, config.batch_size, int(seed))
    continued = work is not None and (work / CHECKPOINT).exists()
    first = batches(0)
    require_rows("x", first, width=sae.d_model)
    _require_variance(first)
    origin = "" if work is None else _origin(sae, config, first, x)
    trainer = Trainer(sae, config)
    if not continued and not (sae.b_enc.any() or sae.b_dec.any()):  # else it is trained already
        sae.calibrate(first)
    if continued:
        trainer.load(work / CHECKPOINT, origin)
    elif work is not None:
        _remove_former(work)
        write_snapshot(sae, work, 0)
    steps = range(trainer.step, config.steps)
    options = {"initial": trainer.step, "total": config.steps, "shown": progress}
    for step in track(steps, "training", unit="step", **options):
        trainer.train_step(batches(step))
        if work is not None:
            _keep(trainer, work, origin)
    trainer.optimizer.zero_grad(set_to_none=True)  # what the caller computes next starts from none
    _check_atoms(sae)
    if work is not None:
        save_sae(sae, work / FINISHED)
        write_json(work / LOG, trainer.log)
        (work / CHECKPOINT).unlink(missing_ok=True)
    return given


def _place(given: str | Path, sae: SAE, steps: int) -> Path:
    """Folder of a run. Raises ConfigError where it is none, where a file that would be replaced is not of a run, and
    for an SAE that could not be kept there."""
    require_sound(sae)
    require_given("work", str(given))
    work = Path(given)
    require(work.is_dir() or not os.path.lexists(work), "work", str(work), "is no folder: name another place")
    written = {FINISHED: is_saved_sae, LOG: _is_log}
    written |= {snapshot_file(step): is_snapshot for step in snapshot_steps(steps)}
    for name, is_ours in written.items():
        fix = f"{name} is there and of no run: name another folder, or move it elsewhere"
        require(not (work / name).exists() or is_ours(work / name), "work", str(work), fix)
    return work


def _remove_former(work: Path) -> None:
    """Delete the run that is replaced, which would stand beside what is left of this one if it diverges."""
    for path in work.glob("snapshot_*.safetensors"):
        if re.fullmatch(r"snapshot_\d{6,}\.safetensors", path.name) and is_snapshot(path):
            path.unlink()
    for name in (FINISHED, LOG):
        (work / name).unlink(missing_ok=True)


def _is_log(path: Path) -> bool:
    try:
        rows = read_json(path, fix="")
    except CorruptArtifact:
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and "step" in row for row in rows)


def _check_atoms(sae: SAE) -> None:
    """Raise TrainingDiverged where atoms are not finite, or 0 where they have norm 1: the loss does not always tell."""
    norms = torch.linalg.vector_norm(sae.atoms(), dim=1)
    if not norms.isfinite().all() or (sae.dictionary.unit_norm and not norms.all()):
        raise TrainingDiverged("atoms are 0 or not finite after the last step: lower lr or w_lr, then run again")


def _origin(sae: SAE, config: TrainingConfig, first: Tensor, x: Any) -> str:
    """What tells a run from others: its settings, the autoencoder as it is given, the first batch, and of a tensor `x`
    its size and rows from all over it."""
    settings = dataclasses.asdict(config) | {"checkpoint_every": None} | {"sae": structure(sae)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    some = {}
    if torch.is_tensor(x):
        digest.update(str(len(x)).encode())
        some = {"some": x[:: max(1, len(x) // ORIGIN_ROWS)]}
    for name, tensor in [*sorted(sae.state_dict().items()), ("first", first), *some.items()]:
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _keep(trainer: Trainer, work: Path, origin: str) -> None:
    """Write the snapshot or the checkpoint that is due at this step."""
    step, config = trainer.step, trainer.config
    snapshot, checkpoint = step in snapshot_steps(config.steps), step % config.checkpoint_every == 0
    if snapshot or checkpoint:
        _require_numbers(trainer)
    if snapshot:
        write_snapshot(trainer.sae, work, step)
    if checkpoint and step < config.steps:
        trainer.save(work / CHECKPOINT, origin)


def _require_numbers(trainer: Trainer) -> None:
    """Raise TrainingDiverged where a weight is not finite: the loss tells a step later, and a GPU's when it is read."""
    for name, weights in trainer.sae.state_dict().items():
        if weights.is_floating_point() and not weights.isfinite().all():
            raise TrainingDiverged(f"{name} is not finite at step {trainer.step - 1}: lower lr or w_lr, then run again")


def read_log(folder: Path) -> list[dict[str, float | int]]:
    """The training log of a finished run: a row at step 1, every `LOG_EVERY` steps, and at the last."""
    return read_json(folder / LOG)
