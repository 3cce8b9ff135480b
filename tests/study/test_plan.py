"""Nothing stale: what determines a result is in its key, the code that makes it included; and the graph is complete."""

import json
import subprocess
from dataclasses import dataclass
from functools import partial

import pytest

from archsae_core.data import random_model
from archsae_core.models import training
from archsae_study.engine import code, stages, study
from archsae_study.engine import plan as engine_plan
from archsae_study.engine.code import code_of, imported, item_hash, module_hash
from archsae_study.engine.plan import Table, made, plan, report_runs
from archsae_study.engine.study import Study
from archsae_study.experiments import TABLES
from archsae_study.report import Report, table_named
from archsae_study.settings.config import GROUP_OF, Config, ConfigError, configure

ARMS = "topk-random-own,topk-kmeans-own,ra-own"
SMOKE = {"preset": "smoke", "steps": 10, "ablation_steps": 5, "n_seeds": 2, "longer_factor": 1, "arms": ARMS}
BUILDER = '''"""A table for this test."""
from archsae_study.engine.plan import Table


def build(study):
    """Made from nothing."""
    return {value}


TABLE = Table(name="made_up", result=dict, build=build, only=("steps",))
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of tables in a copy of the packages' place: a function that writes it and returns its table."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    place = tmp_path / "archsae_study" / "made_up.py"
    place.parent.mkdir()

    def write(text):
        place.write_text(text)
        space = {"__name__": "archsae_study.made_up"}
        exec(compile(text, place, "exec"), space)
        return space["TABLE"]

    return write


def test_a_changed_builder_gives_the_new_table(module, tmp_path):
    config = configure(SMOKE)
    for value in ("{'rows': 1}", "{'rows': 2}", "{'rows': 1}"):
        table = module(BUILDER.replace("{value}", value))
        assert Report(config, tmp_path / "runs", compute=True).table(table) == eval(value)
    assert len(list((tmp_path / "runs" / "store" / "tables").glob("*/table.json"))) == 2


def test_comments_and_docstrings_are_no_code(module):
    table = module(BUILDER.replace("{value}", "{}"))
    before = table.code
    other_words = BUILDER.replace("{value}", "{}  # nothing").replace("Made from nothing", "Other words")
    assert module(other_words).code == before
    assert module(BUILDER.replace("{value}", "dict()")).code != before


def test_code_follows_imports_at_any_place(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    metrics = tmp_path / "archsae_core" / "metrics"
    metrics.mkdir(parents=True)
    (tmp_path / "archsae_study").mkdir()
    (tmp_path / "archsae_study" / "a.py").write_text(
        "import numpy\nfrom archsae_core.metrics import inner\ndef f():\n    import archsae_core.metrics.other\n"
    )
    (metrics / "inner.py").write_text("from archsae_core.metrics.deep import g\n")
    (metrics / "deep.py").write_text("def g():\n    return 1\n")
    (metrics / "other.py").write_text("x = 1\n")
    assert imported("archsae_study.a") == ("archsae_core.metrics.inner", "archsae_core.metrics.other")
    before = code_of(["archsae_study.a"])
    (metrics / "deep.py").write_text("def g():\n    return 2\n")
    after = code_of(["archsae_study.a"])
    assert after != before
    assert code_of(["archsae_study.a"], without=["archsae_core.metrics.deep"]) != after
    (metrics / "other.py").write_text("x = 2\n")
    assert code_of(["archsae_study.a"]) != after


def test_code_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"archsae_study\.nowhere"):
        module_hash("archsae_study.nowhere")
    with pytest.raises(LookupError, match=r"defines no Study\.nothing"):
        item_hash("archsae_study.engine.study:Study.nothing")


def test_code_that_was_edited_while_a_process_runs_is_named(monkeypatch):
    """It would be the name of results that other code made."""
    before = module_hash("archsae_core.text")
    path = code.ROOT / "archsae_core" / "text.py"
    monkeypatch.setitem(code.LOADED, path, f"# another comment\n{path.read_text()}")
    code.require_as_loaded()
    monkeypatch.setitem(code.LOADED, path, "what was there at first")
    for ask in (
        lambda: module_hash("archsae_core.text"),
        lambda: item_hash("archsae_core.text:x"),
        code.require_as_loaded,
    ):
        with pytest.raises(ConfigError, match=r"text\.py has changed since this process began.*restart the kernel"):
            ask()
    monkeypatch.undo()
    code.require_as_loaded()
    assert module_hash("archsae_core.text") == before


def test_a_change_that_leaves_every_result_as_it_was_is_declared(tmp_path, monkeypatch):
    """And only that change: the next one counts again."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "EQUAL", tmp_path / "equal_code.json")
    code.EQUAL.write_text("{}")
    path, name = tmp_path / "archsae_core" / "a.py", "archsae_core.a"
    path.parent.mkdir()

    def write(value):
        path.write_text(f"def f():\n    return {value}\n")
        return module_hash(name)

    first = write(1)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    assert write(2) != first
    code.declare_equal(name, "two is one")
    assert module_hash(name) == first
    subprocess.run("git -c user.name=a -c user.email=a@b commit -qam second".split(), cwd=tmp_path, check=True)
    assert write(4) != first
    code.declare_equal(name, "a first attempt")
    assert write(3) != first
    code.declare_equal(name, "so is three")
    assert code.equal_code()[name] | {"now": ""} == {"as": first, "because": "two is one; so is three", "now": ""}
    assert (module_hash(name), write(4) == first, write(1)) == (first, False, first)
    write(2)
    with pytest.raises(ValueError, match="its code did not change"):
        code.declare_equal(name, "nothing")


def test_what_is_declared_equal_is_the_code_as_it_is():
    for module, equal in code.equal_code().items():
        assert equal["now"] == code._parsed(code._existing_file(module))[0], f"{module}: remove it from equal_code.json"
        assert equal["because"]
        assert equal["as"] != equal["now"]
        assert module not in stages.COVERED
        assert not code._is_plumbing(module)


def test_the_code_of_expensive_stages_is_that_of_their_versions():
    """Where this fails: raise the version that is named, or record that every bit is the same."""
    assert stages.changed() == []


def test_a_change_of_an_expensive_stage_without_a_new_version_is_told(tmp_path, monkeypatch):
    recorded = json.loads(stages.RECORD.read_text())
    recorded["runs"]["code"]["archsae_core.models.training"] = "0"
    monkeypatch.setattr(stages, "RECORD", tmp_path / "stages.json")
    stages.RECORD.write_text(json.dumps(recorded))
    (found,) = stages.changed()
    assert found.startswith("archsae_core.models.training changed: raise the version of runs")
    recorded["runs"]["version"] -= 1
    stages.RECORD.write_text(json.dumps(recorded))
    (found,) = stages.changed()
    assert found.startswith("runs is not recorded")
    stages.main()
    assert stages.changed() == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study with two trained dictionaries."""
    found = Study(configure(SMOKE), tmp_path_factory.mktemp("runs"))
    for arm in ("topk", "ra"):
        found.scores(found.main_run(arm))
    return found


def test_a_new_metric_scores_finished_runs_again_and_trains_nothing(trained, monkeypatch):
    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(training.Trainer, "train_step", refuse)
    monkeypatch.setattr(study, "code_of", lambda *_, **__: "another metric")
    fresh = Study(trained.config, trained.root)
    run = fresh.main_run("ra")
    assert fresh.score_folder(run) != trained.store.path("scores", {"no": "such"})
    assert len(list((trained.root / "store" / "scores").glob("*/scores.json"))) == 3
    assert fresh.scores(run).quality == fresh.scores(run).quality
    assert fresh.scores(run).violation == 0


@pytest.mark.parametrize("table", [table for table in TABLES if table.only is None], ids=lambda table: table.name)
def test_a_change_of_what_scores_a_run_makes_every_table_of_runs_again(table, trained, monkeypatch):
    before = table.recipe(trained)
    monkeypatch.setattr(engine_plan, "_carried", lambda: ["another"])
    assert (table.recipe(trained) != before) == bool(before["runs"])


@pytest.mark.parametrize("module", ["archsae_core.metrics.reconstruction", "archsae_core.metrics.stability"])
def test_scores_and_cosines_are_among_what_reaches_a_table(monkeypatch, module):
    before = engine_plan._carried()
    hashed = code.module_hash
    monkeypatch.setattr(code, "module_hash", lambda name: "another" if name == module else hashed(name))
    assert engine_plan._carried() != before


@pytest.mark.parametrize("changed", ["text", "model"])
def test_what_is_read_later_is_what_the_study_began_with(tmp_path, changed):
    text, model = tmp_path / "a.txt", tmp_path / "model"
    text.write_text("\n\n".join(f"document {i} of a text" for i in range(40)))
    for part in (random_model.gpt2(32), random_model.tokenizer()):
        part.save_pretrained(model)
    begun = Study(configure(SMOKE | {"text": str(text), "model": str(model)}), tmp_path / "runs")
    assert begun.source
    if changed == "text":
        text.write_text("\n\n".join(f"another document {i}" for i in range(40)))
    else:
        changed_model = random_model.gpt2(32)
        changed_model.get_input_embeddings().weight.data.mul_(1.01)
        changed_model.save_pretrained(model)
    with pytest.raises(ConfigError, match=rf"{changed} = .* has changed since this began: start again"):
        _ = begun.corpus if changed == "text" else begun.model
    again = Study(begun.config, begun.root)
    assert again.corpus.texts
    assert again.model is not None
    assert again.source != begun.source


def test_another_number_of_scored_tokens_trains_nothing(trained):
    other = Study(trained.config.changed(heldout_tokens=100), trained.root)
    run = other.main_run("topk")
    assert other.run_folder(run) == trained.run_folder(run)
    assert other.scores(run).quality.n_tokens == 100 != trained.scores(run).quality.n_tokens


@dataclass(frozen=True)
class Tokens:
    heldout: int


def test_a_result_that_is_not_of_its_type_is_refused(trained):
    table = Table(name="tokens", result=Tokens, build=lambda _: Tokens(3), only=())
    assert Report(trained.config, trained.root, compute=True).table(replaced(table)) == Tokens(3)


def replaced(table):
    """The table with a builder that has code in the packages: a function of this test has none."""
    from dataclasses import replace

    def build(_):
        return Tokens(3)

    build.__module__ = "archsae_study.engine.typed"
    return replace(table, build=build)


class Recorder:
    """A group of parameters that notes which of them are read."""

    def __init__(self, group, seen):
        object.__setattr__(self, "_group", group)
        object.__setattr__(self, "_seen", seen)

    def __getattr__(self, name):
        if name in GROUP_OF:
            self._seen.add(name)
        return getattr(self._group, name)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_a_table_declares_every_parameter_of_the_comparison_that_its_runs_depend_on(table, tmp_path, monkeypatch):
    found, seen, all_values = Study(configure(SMOKE), tmp_path), set(), configure(SMOKE).flat()
    _ = found.source  # looks at every file that is named, whatever a table reads
    flat = Config.flat
    # a variant of the configuration copies every parameter, which is no use of them
    monkeypatch.setattr(Config, "flat", lambda config: all_values if config is found.config else flat(config))
    object.__setattr__(found.config, "comparison", Recorder(found.config.comparison, seen))
    list(table.runs(found)), list(table.anchors(found))
    assert seen - {"scheduler"} <= set(table.fields)


def test_everything_is_made_in_the_order_of_the_plan_and_no_more(tmp_path):
    found = Study(configure(SMOKE), tmp_path)
    wanted = [table for table in TABLES if table.name in ("standard_sae", "evaluation")]
    nodes = plan(found, wanted)
    assert len({node.folder for node in nodes}) == len({node.name for node in nodes}) == len(nodes)
    assert list(tmp_path.iterdir()) == []
    for node in nodes:
        others = [other for other in nodes if not other.kept]
        assert others[0] is node
        node.make()
        assert node.kept
    store = tmp_path / "store"
    sealed = {path.parent for path in store.glob("*/*/manifest.json")}
    assert sealed - {path for path in sealed if path.parent.name == "layers"} == {node.folder for node in nodes}


def test_runs_of_several_tables_are_made_once(tmp_path):
    found = Study(configure(SMOKE), tmp_path)
    keys = [found.run_key(run) for run in report_runs(found, TABLES)]
    assert len(set(keys)) == len(keys)
    steps = [run.steps for run in report_runs(found, TABLES)]
    assert steps == sorted(steps, reverse=True)


def test_every_run_of_the_report_is_checked(tmp_path):
    found = Study(configure(SMOKE), tmp_path)
    checks, controls = (table_named(name) for name in ("checks", "controls"))
    # a run may have two names: a radius that is the study's own
    checked, of_controls, planned = (
        {found.run_key(run) for run in runs}
        for runs in (checks.runs(found), controls.runs(found), report_runs(found, TABLES))
    )
    assert of_controls  # which check their own (tests/study/test_controls.py)
    assert checked | of_controls == planned


def test_made_is_made_once(tmp_path):
    found, calls = Study(configure(SMOKE), tmp_path), []

    def build(_):
        calls.append(1)
        return {}

    build.__module__ = "archsae_study.engine.typed"
    table = Table(name="counted", result=dict, build=build, only=())
    twice = partial(made, found, table)
    assert twice() == twice()
    assert calls == [1]


def test_validation_is_read_after_the_layer_of_the_study_alone(tmp_path):
    """Other layers, which 05 looks at beside it, are scored on held-out documents only."""
    nodes = plan(Study(configure({"preset": "smoke"}), tmp_path), TABLES)
    read = [node for node in nodes if node.kind == "activations"]
    assert sum("heldout" in node.name for node in read) == 2
    (validation,) = (node for node in read if "validation" in node.name)
    assert validation.name == "activations, validation, random-gpt2, layer 1"
    assert validation.cost().work
