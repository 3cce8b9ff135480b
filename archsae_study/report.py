"""What a notebook asks for: tables by name, computed once or read from the committed results, and the run folder."""

import importlib
import os
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsae_core.storage import (
    CorruptArtifact,
    Store,
    canonical_hash,
    file_sha256,
    jsonable,
    mark,
    read_json,
    write_atomically,
    write_json,
)
from archsae_study.config import FIELDS, Config, ConfigError, configure
from archsae_study.pages.formatting import markdown_table
from archsae_study.source import PROJECT, STORE, default_root, determining, source_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from archsae_study.study import Study

RESULTS_ONLY = "ARCHSAE_RESULTS_ONLY"
"""Set in the environment: tables come from the committed results, and a missing one is an error."""


class MissingResult(RuntimeError):
    """The committed results lack a table for this configuration; the message says how to compute it."""


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in a notebook's namespace: every plain value whose name is a field of `Config`.

    Raises ConfigError for a plain value with any other name, since that is a misspelt parameter: call this right after
    the parameters cell, before the notebook defines anything else.
    """
    plain = (bool, int, float, str, list, tuple, type(None))
    ignored = {"In", "Out"}
    found = {
        name: value
        for name, value in namespace.items()
        if type(value) in plain and not name.startswith("_") and name not in ignored
    }
    unknown = sorted(set(found) - set(FIELDS))
    if unknown:
        raise ConfigError(f"unknown parameter {unknown[0]!r}: known are {', '.join(FIELDS)}")
    return found


def run_folder(config: Config, root: Path | None = None) -> Path:
    """Folder of a run: its name is the preset and a hash of every parameter but where it is computed."""
    return (Path(root) if root else default_root()) / f"{config.preset}-{canonical_hash(identity(config))[:8]}"


def identity(config: Config) -> dict[str, Any]:
    """What tells a run from another: every parameter but `scheduler`."""
    return {name: value for name, value in jsonable(config.flat()).items() if name != "scheduler"}


class Report:
    """Tables and files of one configuration, for a notebook."""

    def __init__(self, config: Config, root: Path | None = None) -> None:
        self.config = config
        self.results_only = bool(os.environ.get(RESULTS_ONLY))
        self.folder = run_folder(config, root)
        self._root = root
        self._study: Study | None = None
        self._manifests: list[dict[str, Any]] = []

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> "Report":
        """The report of a notebook's parameters: `Report.from_namespace(globals())` right after they are set."""
        return cls(configure(parameters_in(namespace)))

    @property
    def study(self) -> "Study":
        """The artefacts behind the tables. Raises MissingResult where only committed results may be used."""
        from archsae_study.study import Study

        if self.results_only:
            raise MissingResult(f"this needs the models themselves: unset {RESULTS_ONLY} to compute it")
        if self._study is None:
            self._study = Study(self.config, self._root)
        return self._study

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the study starts from, without loading it."""
        return source_of(self.config)

    def activations(self) -> dict[str, Any]:
        """Documents, tokens, norms, what was dropped."""
        return self._table("activations", lambda: _module("tables").activations(self.study))

    def anchors(self) -> dict[str, Any]:
        """k-means: occupancy, distinctness, inertia."""
        table = self._table("anchors", lambda: _module("tables").anchors(self.study))
        self._keep("anchor_points.safetensors", table, "anchor_points.safetensors")
        return table

    def dictionary(self, arm: str) -> dict[str, Any]:
        """Training log and held-out quality of the `topk` or `ra` dictionary."""
        name = {"topk": "standard_sae", "ra": "archetypal_sae"}[arm]
        table = self._table(name, lambda: _module("tables").dictionary(self.study, arm))
        self._keep(f"{name}.safetensors", table, "sae.safetensors")
        return table

    def hull(self) -> dict[str, Any]:
        """The free dictionary of notebook 02 rewritten inside the hull of the anchors."""
        return self._table("hull", lambda: _module("tables").hull(self.study))

    def evaluation(self) -> dict[str, Any]:
        """Free and archetypal dictionaries on held-out text."""
        return self._table("eval_results", lambda: _module("tables").evaluation(self.study))

    def stability(self) -> dict[str, Any]:
        """Arms × seeds, and the verdict."""
        return self._table("stability_results", lambda: _module("stability").stability_table(self.study))

    def ablation(self) -> dict[str, Any]:
        """The sweep over delta."""
        return self._table("ablation_results", lambda: _module("stability").ablation(self.study))

    def w_steps(self) -> dict[str, Any]:
        """Ways to move W, compared on the validation documents."""
        return self._table("w_steps", lambda: _module("w_steps").w_steps(self.study))

    def robustness(self) -> dict[str, Any]:
        """The comparison of arms at another layer and with another k."""
        return self._table("robustness", lambda: _module("generality").robustness(self.study))

    def longer(self) -> dict[str, Any]:
        """Two arms that share nothing, trained for several times the steps."""
        return self._table("longer", lambda: _module("longer").longer_table(self.study))

    def structure(self) -> dict[str, Any]:
        """The paper's structural metrics of the dictionaries of notebook 04."""
        return self._table("structure", lambda: _module("probing").structure_table(self.study))

    def probing(self) -> dict[str, Any]:
        """Topic probes of every arm, and the verdict on interpretability."""
        return self._table("probing", lambda: _module("probing").probing_table(self.study))

    def reappearance(self) -> dict[str, Any]:
        """Features that reappear in other seeds against those that do not."""
        return self._table("reappearance", lambda: _module("reappearance").reappearance_table(self.study))

    def swap(self) -> dict[str, Any]:
        """Matched features of two seeds, one in place of the other."""
        return self._table("swap", lambda: _module("reappearance").swap_table(self.study))

    def identifiability(self) -> dict[str, Any]:
        """Planted dictionaries, inside and outside the hull."""
        steps = self.config.training.steps
        return self._table("identifiability", lambda: _module("identifiability").table(self.study.store, steps))

    def features(self) -> dict[str, Any]:
        """Scan of the features, one inspected, its archetypes."""
        return self._table("features", lambda: _module("tables").features(self.study))

    def save_figure(self, figure: "Figure", name: str) -> "Figure":
        """Write a figure to the run folder's `figures`, unless only committed results are read; returns the figure."""
        if Path(name).name != name:
            raise ValueError(f"name = {name!r}: a figure's name has no folders")
        if self.results_only:
            return figure
        path = self.folder / "figures" / name
        mark(self.folder, "run")
        # No software version in the file: the same table gives the same bytes.
        options = dict(dpi=110, bbox_inches="tight", metadata={"Software": None}, format=path.suffix[1:])
        write_atomically(path, lambda temporary: figure.savefig(temporary, **options))
        return figure

    def stamp(self) -> str:
        """Markdown: what the tables of this notebook were made with."""
        packages, rows = ("torch", "transformers", "scikit-learn", "numpy"), []
        for manifest in self._manifests:
            made = manifest["environment"]
            found = (manifest["table"], made["commit"], manifest["device"], manifest["seconds"])
            rows.append(map(str, (*found, *(made[name] for name in packages))))
        return markdown_table(("table", "commit", "device", "seconds", *packages), rows)

    def _table(self, name: str, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        content = self._committed(name) if self.results_only else self._computed(name, build)
        self._manifests.append(content["manifest"])
        return content["table"]

    def _committed(self, name: str) -> dict[str, Any]:
        path = PROJECT / "results" / f"{name}.json"
        if not path.exists():
            raise MissingResult(f"{path.name} is not among the committed results: run `make report` to compute it")
        content = read_result(path)
        if content["manifest"]["config"] != determining(name, self.config):
            raise MissingResult(
                f"{path.name} was made with other parameters: unset {RESULTS_ONLY}, or run `make report` with these"
            )
        return content

    def _computed(self, name: str, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        config = determining(name, self.config)

        def write(work: Path) -> None:
            write_json(work / f"{name}.json", build())

        recipe = {"config": config, "source": self.source, "table": name}
        folder = Store(self.folder.parent / STORE, marked=True).artifact("tables", recipe, write)
        sealed = read_json(folder / "manifest.json")
        manifest = {"table": name, "config": config, "device": sealed["environment"]["device"]}
        manifest |= {"seconds": sealed["seconds"], "environment": sealed["environment"]}
        content = {"manifest": manifest, "table": read_json(folder / f"{name}.json")}
        mark(self.folder, "run")
        write_json(self.folder / "results" / f"{name}.json", content | {"seal": canonical_hash(content)})
        return content

    def _keep(self, name: str, table: Mapping[str, Any], file: str) -> None:
        """Put a copy of the artefact behind a table into the run folder under its own name."""
        if self.results_only:
            return
        source, target = self.folder.parent / STORE / table["artefact"] / file, self.folder / name
        if not target.exists() or file_sha256(target) != file_sha256(source):
            write_atomically(target, lambda path: shutil.copyfile(source, path))


def _module(name: str) -> Any:
    # Imported on use: torch and transformers take seconds, which stored results need not wait for.
    return importlib.import_module(f"archsae_study.experiments.{name}")


def read_result(path: Path) -> dict[str, Any]:
    """Manifest and table of one file of results/. Raises CorruptArtifact where the file is not what was written."""
    content = read_json(path)
    sealed = isinstance(content, dict) and {"manifest", "table", "seal"} <= content.keys()
    if not sealed or canonical_hash({k: v for k, v in content.items() if k != "seal"}) != content["seal"]:
        raise CorruptArtifact(f"{path} was altered (its hash differs from its seal): run the report again")
    return content
