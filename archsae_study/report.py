"""What a notebook asks for: tables by name, computed once or read from the committed results, and the run folder."""

import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from IPython.display import Markdown, display

from archsae_core.models.sae import SAE
from archsae_core.progress import in_jupyter, showing
from archsae_core.storage import (
    CorruptArtifact,
    canonical_hash,
    file_sha256,
    jsonable,
    mark,
    read_json,
    switched_on,
    write_json,
)
from archsae_study import live
from archsae_study.engine import estimate, execution
from archsae_study.engine.made import note_made, write_made
from archsae_study.engine.plan import Table, made, plan
from archsae_study.engine.source import PROJECT, default_root, local_inputs
from archsae_study.engine.study import Study
from archsae_study.engine.typed import ResultMismatch, from_json
from archsae_study.experiments import TABLES
from archsae_study.formatting import table as as_table
from archsae_study.protocol.arms import explored_arms
from archsae_study.settings.config import BESIDE, Config, ConfigError, configure
from archsae_study.settings.parameters import parameters_in
from archsae_study.settings.values import absolute

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from archsae_study.explorer import Explorer
    from archsae_study.explorer.widget import FeatureWidget

R = TypeVar("R")


COMPUTE = "ARCHSAE_COMPUTE"
"""Set in the environment: no table comes from the committed results. `make report` sets it for its notebooks."""
RESULTS_ONLY = "ARCHSAE_RESULTS_ONLY"
"""Set in the environment: tables come from the committed results, and a missing one is an error."""


FIGURES = (".png", ".svg", ".pdf")
"""Kinds of figures that are the same bytes each time."""


class MissingResult(RuntimeError):
    """The committed results lack a table for this configuration; the message says how to compute it."""


def run_folder(config: Config, root: Path | None = None) -> Path:
    """Folder of a run: its name is the preset and a hash of every parameter but where it is computed."""
    return (absolute(root) if root else default_root()) / f"{config.preset}-{canonical_hash(identity(config))[:8]}"


def identity(config: Config) -> dict[str, Any]:
    """What tells a run from another: every parameter but `scheduler`."""
    return {name: value for name, value in jsonable(config.flat()).items() if name != "scheduler"}


class Report:
    """Tables and files of one configuration, for a notebook.

    A table whose parameters are those of the committed report is read from results/, in milliseconds; `status()` says
    so. A table with other parameters is made, or read from the run folder where it was made before. `compute` asks for
    the second in every case.
    """

    def __init__(self, config: Config, root: Path | None = None, *, compute: bool = False) -> None:
        self.config = config
        self.compute = compute or switched_on(COMPUTE)
        self.results_only = switched_on(RESULTS_ONLY)
        self.folder = run_folder(config, root)
        self._root = self.folder.parent
        self._manifests: dict[str, dict[str, Any]] = {}
        self._made = False

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> "Report":
        """The report of a notebook's parameters: `Report.from_namespace(globals())` right after they are set.

        `compute = True` among them is no parameter of the study: it makes every table again, committed or not.
        """
        report = cls(configure(parameters_in(namespace)), compute=bool(namespace.get("compute")))
        live.install(lambda: report.live)
        return report

    @overload
    def table(self, table: Table[R]) -> R: ...
    @overload
    def table(self, table: str) -> Any: ...
    def table(self, table: Any) -> Any:
        """A table, by its declaration or its name. Raises MissingResult, LookupError for a name that there is not."""
        declared = table_named(table) if isinstance(table, str) else table
        content = None if self.compute and not self.results_only else self._committed(declared)
        content = content or self._computed(declared)
        self._manifests[declared.name] = content["manifest"]
        try:
            return from_json(content["table"], declared.result)
        except ResultMismatch as error:
            fix = f"was written by another version of this project ({error}): run the report again"
            raise CorruptArtifact(f"{declared.file_name} {fix}") from None

    @cached_property
    def is_committed(self) -> bool:
        """Whether the parameters are those of the committed report."""
        return all(self._read_committed(table) is not None for table in TABLES)

    @property
    def live(self) -> bool:
        """Whether cells may use the models themselves: they are kept, or are to be made here."""
        if self.results_only:
            return False
        return self.compute or not self.is_committed or all(map(Path.exists, self._main_runs()))

    def _main_runs(self) -> list[Path]:
        study = self.study
        shown = [study.main_run(role) for role in ("topk", "ra")]
        explored = explored_arms(self.config.activations.frame)
        shown += [study.shown_run(arm, self.config.comparison.seed) for arm in explored]
        return [study.store.path("runs", study.run_recipe(run)) for run in shown]

    def status(self) -> Markdown | None:
        """Where the numbers of this notebook come from, for its first cell; nothing where a batch run made them."""
        if self.results_only or self.compute:
            return None
        contents = ((table, self._read_committed(table)) for table in TABLES)
        read = [(table, content["manifest"]) for table, content in contents if content is not None]
        if len(read) < len(TABLES):
            shared = f" Tables that they do not concern are the committed ones.{_by_others(read)}" if read else ""
            return Markdown(
                "*These parameters are not those of the committed report. What is missing is computed here, with its "
                f"progress, and kept in `{self.folder}`.{shared}*"
            )
        last = max((manifest["environment"] for _, manifest in read), key=lambda made: made.get("date", ""))
        when = f"of {last['date']} " if "date" in last else ""
        return Markdown(
            f"*The numbers are those of the committed report {when}(commit `{last['commit']}`, preset "
            f"`{self.config.preset}`): nothing is computed.{_by_others(read)} Another parameter, or "
            "`compute = True`, computes.*"
        )

    @cached_property
    def study(self) -> Study:
        """The artefacts behind the tables. Raises MissingResult where only committed results may be used."""
        if self.results_only:
            raise MissingResult(f"this needs the models themselves: unset {RESULTS_ONLY} to compute it")
        return Study(self.config, self._root)

    def sae(self, role: str = "ra", seed: int | None = None) -> SAE:
        """The autoencoder of a role in notebooks 02 to 04, `topk`, `topk-kmeans` or `ra`, for a cell that begins with
        %%live; `seed` None is that of the config."""
        run = self.study.main_run(role)
        return self.study.sae(run if seed is None else replace(run, seed=seed))

    @cached_property
    def explorer(self) -> "Explorer":
        """Every feature of both dictionaries, matched over seeds: minutes on first use, from what the study trained."""
        from archsae_study.explorer import of_study

        return of_study(self.study, progress=True)

    def features_frame(self) -> "pd.DataFrame":
        """One row a feature of both dictionaries: name, density, stability and more (`explorer.features_frame`)."""
        from archsae_study.explorer import features_frame

        return features_frame(self.explorer)

    def explore(self) -> "FeatureWidget":
        """The feature explorer in this notebook; a table of the most stable features where no kernel runs."""
        from archsae_study.explorer.widget import FeatureWidget

        return FeatureWidget(self.explorer)

    def save_figure(self, figure: "Figure", name: str) -> "Figure":
        """Write a figure to the run folder's `figures`, where this report made a table; returns the figure."""
        if Path(name).name != name:
            raise ValueError(f"name = {name!r}: a figure's name has no folders")
        if Path(name).suffix not in FIGURES:
            raise ValueError(f"name = {name!r}: a figure's name ends in one of {', '.join(FIGURES)}")
        if not self._made:  # a run of these parameters may be there, of other numbers than the committed ones
            return figure
        path = self.folder / "figures" / name
        mark(self.folder, "run")
        # No software version in the file: the same table gives the same bytes.
        options = dict(dpi=110, bbox_inches="tight", metadata={"Software": None}, format=path.suffix[1:])
        write_made(self.folder, path, lambda unfinished: figure.savefig(unfinished, **options))
        return figure

    def stamp(self) -> "pd.DataFrame":
        """What the tables of this notebook were made with: one row a table."""
        packages, rows = ("torch", "transformers", "scikit-learn", "numpy"), []
        for manifest in self._manifests.values():
            made = manifest["environment"]
            found = (manifest["table"], made["commit"], manifest["device"], manifest["seconds"])
            rows.append(map(str, (*found, *(made[name] for name in packages))))
        return as_table(("table", "commit", "device", "seconds", *packages), rows)

    def _committed(self, table: Table[Any]) -> dict[str, Any] | None:
        """Committed manifest and table, None where they are others; MissingResult where nothing else may be used."""
        content = self._read_committed(table)
        if content is not None or not self.results_only:
            return content
        name = table.file_name
        if not (PROJECT / "results" / name).exists():
            raise MissingResult(f"{name} is not among the committed results: run `make report` to compute it")
        raise MissingResult(
            f"{name} was made with other parameters: unset {RESULTS_ONLY}, or run `make report` with these"
        )

    def _read_committed(self, table: Table[Any]) -> dict[str, Any] | None:
        path = PROJECT / "results" / table.file_name
        content = read_result(path, table.name) if path.exists() else None
        same = content is not None and _same(table.determining(self.config), content["manifest"]["config"])
        return content if same and self._same_inputs(content["manifest"]) else None

    def _same_inputs(self, manifest: Mapping[str, Any]) -> bool:
        """Whether files that the results were made from are what they were, as far as they are here."""
        then = manifest.get("inputs", {})
        return all(then.get(name) == now for name, now in local_inputs(self.config).items())

    def _computed(self, table: Table[Any]) -> dict[str, Any]:
        self._make(table)
        folder = made(self.study, table)
        sealed = read_json(folder / "manifest.json")
        manifest = {"table": table.name, "config": table.determining(self.config), "code": table.code}
        manifest |= {"device": sealed["environment"]["device"], "seconds": sealed["seconds"]}
        manifest |= {"environment": sealed["environment"]}
        self.study.require_same_inputs()
        if self.study.inputs:
            manifest["inputs"] = self.study.inputs
        content = {"manifest": manifest, "table": read_json(folder / "table.json")}
        self._made = True
        mark(self.folder, "run")
        with_seal = content | {"seal": canonical_hash(content)}
        write_made(self.folder, self.folder / "results" / table.file_name, lambda path: write_json(path, with_seal))
        for name, artefact in table.copies.items():
            _copy(self.folder, artefact(self.study), self.folder / name)
        return content

    def _make(self, table: Table[Any]) -> None:
        """Make what the table needs; say first what that is and about how long it takes, unless a batch run asks."""
        nodes = plan(self.study, [table])
        if all(node.kept for node in nodes):
            return
        self.study.check()
        found = estimate.estimate(nodes, self.config)
        estimate.check_room(found, self.folder.parent)
        quiet = switched_on(COMPUTE)
        if not quiet:
            count, time = len(found.missing), estimate.duration(found.seconds)
            tell(f"{table.name}: {count} stage{'s' * (count > 1)} to compute, about {time}: {estimate.times(found)}.")
        mark(self.folder, "run")
        with showing(not quiet):
            execution.make_tables(self.study, [table], found, self.folder, name=table.name)


def _by_others(read: Iterable[tuple[Table[Any], Mapping[str, Any]]]) -> str:
    """Which committed tables, by their manifests, were made by other code than that which is here, as a sentence."""
    try:
        others = [table.name for table, manifest in read if manifest.get("code") != table.code]
    except ConfigError as error:  # edited since this process began
        return f" {error}."
    return f" The code has changed since for {', '.join(others)}." if others else ""


def tell(line: str) -> None:
    """One line to who waits: under the cell in a notebook, on stderr elsewhere."""
    if in_jupyter():
        display(Markdown(line))
    else:
        sys.stderr.write(line + "\n")


def _same(asked: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether results were made with the parameters asked for; one that is newer than the results has to be None."""
    besides = BESIDE if asked.get("other_model") is None else ()
    return all(found.get(name) == value for name, value in asked.items() if name not in besides)


def _copy(folder: Path, source: Path, target: Path) -> None:
    """A copy in a run folder, written where it is not there already: it may hold a hundred megabytes."""
    if target.exists() and file_sha256(target) == file_sha256(source):
        note_made(folder, target)
    else:
        write_made(folder, target, lambda path: shutil.copyfile(source, path))


def table_named(name: str) -> Table[Any]:
    """The report's table of a name. Raises LookupError."""
    found = {table.name: table for table in TABLES}
    if name not in found:
        raise LookupError(f"no table is called {name!r}: known are {', '.join(found)}")
    return found[name]


def read_result(path: Path, table: str) -> dict[str, Any]:
    """Manifest and content of one table in a file of results/.

    Raises CorruptArtifact where the file is not what was written, or holds another table.
    """
    fix = "restore it, or run the report again"
    content = read_json(path, fix=fix)
    sealed = isinstance(content, dict) and {"manifest", "table", "seal"} <= content.keys()
    if not sealed or canonical_hash({k: v for k, v in content.items() if k != "seal"}) != content["seal"]:
        raise CorruptArtifact(f"{path} was altered (its hash differs from its seal): {fix}")
    if not {"config", "environment"} <= content["manifest"].keys():
        raise CorruptArtifact(f"{path} was written by another version of this project: {fix}")
    if (found := content["manifest"].get("table")) != table:
        raise CorruptArtifact(f"{path} holds the table {found!r} in the place of {table!r}: {fix}")
    return content
