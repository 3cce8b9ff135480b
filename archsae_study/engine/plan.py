"""What the report is made of: every table declared once, beside its builder.

A table says what it holds, how it is built, which training runs it needs and which parameters it depends on. The store,
the estimate, the runner, the command line and the notebooks all read that one declaration.

    TABLE = Table(name="longer", result=Longer, build=longer_table, runs=longer_runs, fields=("n_seeds", "arms"))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from archsae_core.models.training import TrainingDiverged
from archsae_core.storage import canonical_hash, jsonable, write_json
from archsae_study.engine import costs
from archsae_study.engine.code import code_of, item_hash
from archsae_study.engine.costs import Cost, Costing
from archsae_study.engine.layers import read_layers
from archsae_study.engine.runs import Run
from archsae_study.engine.stages import COVERED
from archsae_study.engine.study import SCORED_BATCHES, SCORING, Study
from archsae_study.engine.typed import to_json
from archsae_study.protocol.arms import ARMS
from archsae_study.settings.config import FIELDS, GROUP_OF, Config

R = TypeVar("R")

CARRIED = (*SCORING, "archsae_core.metrics.stability")
"""Modules whose results reach a table through the engine, which it need not import: scores and cosines of its runs."""

CARRIED_ITEMS = (
    SCORED_BATCHES,
    "archsae_core.models.snapshots:snapshots",
    "archsae_study.engine.runs:cosines_with_start",
    "archsae_study.engine.study:Study.alive",
    "archsae_study.engine.study:Study.fired",
    "archsae_study.engine.study:Study.task_activations",
)
"""The same of single functions."""

WITHOUT_EFFECT = frozenset({"preset", "device", "checkpoint_every", "scheduler"})
"""Parameters that no result depends on."""


def _carried() -> list[str]:
    return [code_of(CARRIED, without=COVERED), *map(item_hash, CARRIED_ITEMS)]


def _nothing(_: Study) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Table(Generic[R]):
    """One table of the report. `report.table(TABLE)` returns an instance of `result`."""

    name: str
    """How the report calls it: `report.table("stability")`."""
    result: type[R]
    """Dataclass or named tuple; what JSON cannot say is refused when it is read again."""
    build: Callable[[Study], R]
    """Makes it from the artefacts of a Study."""
    runs: Callable[[Study], Iterable[Run]] = _nothing
    """Training runs that it looks at: trained and scored before it."""
    parts: tuple[str, ...] = ("heldout",)
    """Parts of the documents on which it wants the scores of its runs: train, validation or heldout."""
    anchors: Callable[[Study], Iterable[tuple[Study, int | None]]] = _nothing
    """Anchors that it looks at beside those of its runs: the Study of their frame, and the part of the training
    documents, None for all of them."""
    prompts: bool = False
    """Whether it looks at the activations of the probing tasks' prompts."""
    fields: tuple[str, ...] = ()
    """Parameters of `ComparisonConfig` that it reads. Every parameter outside that group counts too, except those of
    `WITHOUT_EFFECT`."""
    only: tuple[str, ...] | None = None
    """All parameters that it reads, where it uses neither the text nor the model."""
    file: str | None = None
    """Name in results/; None is the table's name with `.json`."""
    cost: Costing = costs.nothing
    """How much work it is, in units that are timed on the machine: `costs.table_cost`."""
    copies: Mapping[str, Callable[[Study], Path]] = field(default_factory=dict)
    """Files that the run folder gets beside it: name there, and the artefact they are copies of."""

    @property
    def file_name(self) -> str:
        """Name in results/."""
        return self.file or f"{self.name}.json"

    @property
    def code(self) -> str:
        """Hash of the code that builds it: of its module, and of what that imports."""
        return code_of([self.build.__module__], without=COVERED)

    def determining(self, config: Config) -> dict[str, Any]:
        """The parameters of `config` that its content depends on, as JSON knows them."""
        shared = {name for name in FIELDS if GROUP_OF[name] not in (None, "comparison")}
        names = (shared | set(self.fields) if self.only is None else set(self.only)) - WITHOUT_EFFECT
        return {name: value for name, value in jsonable(config.flat()).items() if name in names}

    def recipe(self, study: Study) -> dict[str, Any]:
        """Everything that determines its content: its key in the store is the hash of this."""
        runs = sorted({study.run_key(run) for run in self.runs(study)})
        carried = {"carried": _carried()} if runs else {}
        source = None if self.only is not None else study.source
        found = {"table": self.name, "config": self.determining(study.config), "source": source}
        if self.prompts:
            found["prompts"] = canonical_hash(study.prompts_recipe)
        return found | {"runs": runs, "code": self.code} | carried


@dataclass(frozen=True)
class Node:
    """One artefact of a report, made or not."""

    kind: str
    """Folder in the store: `activations`, `prompts`, `normalizer`, `anchors`, `runs`, `scores` or `tables`."""
    name: str
    """For people."""
    folder: Path
    """Where it is or will be; its own name is the hash of everything that determines it."""
    make: Callable[[], object]
    """Makes it where it is missing."""
    cost: Callable[[], Cost]
    """What that takes; the text is read and the model loaded for it."""

    @property
    def kept(self) -> bool:
        """Whether it is there."""
        return self.folder.exists()


def plan(study: Study, tables: Iterable[Table[Any]]) -> list[Node]:
    """Every artefact that some tables need, each once, in an order in which they can be made. Nothing is written.

    Which runs a table looks at may depend on the anchors, so ask again once those are there.
    """
    tables = list(tables)
    runs = report_runs(study, tables)
    found = [*_inputs(study, tables, runs), *_anchors(study, tables, runs)]
    found += [_run(study, run) for run in runs]
    found += [_scores(study, run, part) for table in tables for run in table.runs(study) for part in table.parts]
    found += [_table(study, table) for table in tables]
    return _first_of_each(found, lambda node: node.folder)  # named by who needs it first


def _first_of_each(items: Iterable[R], key: Callable[[R], object]) -> list[R]:
    """Items without those whose key came before, in their order."""
    found: dict[object, R] = {}
    for item in items:
        found.setdefault(key(item), item)
    return list(found.values())


def report_runs(study: Study, tables: Iterable[Table[Any]]) -> list[Run]:
    """Every training run that some tables look at, each once, the longest first."""
    found = {study.run_key(run): run for table in tables for run in table.runs(study)}
    return sorted(found.values(), key=lambda run: -run.steps)


def made(study: Study, table: Table[Any]) -> Path:
    """Folder of a table in the store, with `table.json`; what is missing of what it needs is made first."""

    def build(work: Path) -> None:
        write_json(work / "table.json", to_json(table.build(study)))

    for own, fold in table.anchors(study):  # before the key: which radii are swept depends on the anchors' norm
        own.anchor_folder(fold)
    return study.store.artifact("tables", table.recipe(study), build)


def _inputs(study: Study, tables: Sequence[Table[Any]], runs: Sequence[Run]) -> Iterator[Node]:
    """Activations of every layer and normalizer of every frame; layers that are missing come from one pass."""
    if all(table.only is not None for table in tables):
        return
    studies = [study, *(study.of(run) for run in runs), *(own for table in tables for own, _ in table.anchors(study))]
    layers = _first_of_each(studies, lambda own: canonical_hash(own.source))  # the study's own comes first
    for part in dict.fromkeys(["train", "heldout", *(part for table in tables for part in table.parts)]):
        read = layers if part in ("train", "heldout") else layers[:1]
        for own in read:
            of_model = [other for other in read if other.source["model_hash"] == own.source["model_hash"]]
            yield _activations(own, of_model, part)
    if any(table.prompts for table in tables) and study.config.comparison.probe_tasks != 0:
        yield _prompts(study)
    for own in studies:
        folder = own.store.path("normalizer", own.normalizer_recipe)
        name = f"normalizer, {own.config.activations.frame} frame, layer {own.config.language_model.layer}"
        yield Node("normalizer", name, folder, partial(getattr, own, "normalizer"), partial(costs.of_normalizer, own))


def _activations(own: Study, layers: Sequence[Study], part: str) -> Node:
    folder = own.store.path("activations", own.source | {"part": part})

    def make() -> None:
        if part in ("train", "heldout"):
            read_layers(layers)
        own.activations(part)

    def cost() -> Cost:
        found = costs.of_activations(own, part)
        folders = {other: other.store.path("activations", other.source | {"part": part}) for other in layers}
        missing = [other.config.language_model.layer for other, path in folders.items() if not path.exists()]
        # one pass reads them all, and ends after the deepest
        return found if own.config.language_model.layer == max(missing) else found._replace(work=())

    model, layer = Path(own.config.language_model.model).name, own.config.language_model.layer
    name = f"activations, {part}, {model}, layer {layer}"
    return Node("activations", name, folder, make, cost)


def _prompts(study: Study) -> Node:
    folder, name = study.store.path("prompts", study.prompts_recipe), "prompts of the probing tasks"
    return Node("prompts", name, folder, study.prompts_folder, partial(costs.of_prompts, study))


def _anchors(study: Study, tables: Sequence[Table[Any]], runs: Sequence[Run]) -> Iterator[Node]:
    wanted = [pair for table in tables for pair in table.anchors(study)]
    for run in runs:
        if ARMS[run.arm].anchors != "none":
            wanted.append((study.of(run), study.of(run).fold(run)))
    for own, fold in wanted:
        part = "all documents" if fold is None else f"part {fold}"
        layer, frame = own.config.language_model.layer, own.config.activations.frame
        folder = own.store.path("anchors", own.anchor_recipe(fold))
        name = f"anchors of {part}, {frame} frame, layer {layer}"
        yield Node("anchors", name, folder, partial(own.anchor_folder, fold), partial(costs.of_anchors, own))


def _run(study: Study, run: Run) -> Node:
    def make() -> None:
        # a run that diverged is an entry of the table that looks at it
        with suppress(TrainingDiverged):
            study.run_folder(run)

    folder = study.store.path("runs", study.run_recipe(run))
    return Node("runs", str(run), folder, make, partial(costs.of_run, study.of(run), run))


def _scores(study: Study, run: Run, part: str) -> Node:
    def make() -> None:
        with suppress(TrainingDiverged):
            study.score_folder(run, part)

    folder = study.store.path("scores", study.score_recipe(run, part))
    return Node("scores", f"{part} scores of {run}", folder, make, partial(costs.of_scores, study.of(run), part))


def _table(study: Study, table: Table[Any]) -> Node:
    folder = study.store.path("tables", table.recipe(study))
    return Node("tables", table.name, folder, partial(made, study, table), partial(table.cost, study))
