"""What the report is made of: every table declared once, beside its builder.

A table says what it holds, how it is built, which training runs it needs and which parameters it depends on. The store,
the estimate, the runner, the command line and the notebooks all read that one declaration.

    TABLE = Table(name="longer", result=Longer, build=longer_table, runs=longer_runs, fields=("n_seeds", "arms"))
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from archsae_core.storage import jsonable, write_json
from archsae_study.code import code_of
from archsae_study.config import FIELDS, GROUP_OF, Config
from archsae_study.runs import Run
from archsae_study.scheduler import train_ahead
from archsae_study.stages import COVERED
from archsae_study.study import Study
from archsae_study.typed import to_json

R = TypeVar("R")

WITHOUT_EFFECT = frozenset({"preset", "device", "checkpoint_every", "scheduler"})
"""Parameters that no result depends on."""


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
    anchors: Callable[[Study], Iterable[tuple[Study, int | None]]] = _nothing
    """Anchors that it looks at beside those of its runs: the Study of their frame, and the part of the training
    documents, None for all of them."""
    fields: tuple[str, ...] = ()
    """Parameters of `ComparisonConfig` that it reads. All others count, but those of `WITHOUT_EFFECT`."""
    only: tuple[str, ...] | None = None
    """All parameters that it reads, where it uses neither the text nor the model."""
    file: str | None = None
    """Name in results/; None is the table's name with `.json`."""
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
        source = None if self.only is not None else study.source
        found = {"table": self.name, "config": self.determining(study.config), "source": source}
        return found | {"runs": runs, "code": self.code}


def made(study: Study, table: Table[Any]) -> Path:
    """Folder of a table in the store, with `table.json`; what is missing of what it needs is made first."""

    def build(work: Path) -> None:
        train_ahead(study, table.runs(study))
        write_json(work / "table.json", to_json(table.build(study)))

    for own, fold in table.anchors(study):  # before the key: which radii are swept depends on the anchors' norm
        own.anchor_folder(fold)
    return study.store.artifact("tables", table.recipe(study), build)


def report_runs(study: Study, tables: Iterable[Table[Any]]) -> list[Run]:
    """Every training run that some tables look at, each once, the longest first."""
    found = {study.run_key(run): run for table in tables for run in table.runs(study)}
    return sorted(found.values(), key=lambda run: -run.steps)
