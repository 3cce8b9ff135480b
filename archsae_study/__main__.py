"""Command line: fetch, report, sweep, explore, export, compare, timing, clean."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from archsae_core.config import require_given, shortened
from archsae_core.storage import REPAIR, CorruptArtifact, write_json
from archsae_study.settings.config import PRESETS, ConfigError, coerce
from archsae_study.settings.values import given_path

ELSEWHERE = ": set --runs (or ARCHSAE_RUNS), and ARCHSAE_CACHE, to folders that can be written"
DISK = {
    errno.ENOSPC: ": free space, then run the same again; finished stages are kept",
    errno.EROFS: ELSEWHERE,
    errno.EACCES: ELSEWHERE,
}
"""What to do about a disk's error, also where a notebook reports it."""


def _folder(text: str) -> Path:
    try:
        return given_path("runs", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m archsae_study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="download the embedded model and text; afterwards no network is needed")
    fetch.add_argument("names", nargs="*", help="only these; gemma3-270m, which has terms of its own, only by its name")
    fetch.add_argument("--repair", action="store_true", help="make damaged files again instead of refusing")
    report = commands.add_parser("report", help="run the seven notebooks; continues a broken run")
    sweep = commands.add_parser("sweep", help="notebooks 03 and 04 once for each delta")
    sweep.add_argument("--deltas", required=True, metavar="0,0.5,1", help="radii, separated by commas")
    explore = commands.add_parser("explore", help="a page of every feature of a run's dictionaries, opened from a file")
    explore.add_argument("--arms", help="arms on show (default: TopK and RA-SAE of the run's frame, own centroids)")
    explore.add_argument(
        "--sae", action="append", default=[], help="another SAE of the same layer to show beside them, as of compare"
    )
    explore.add_argument("--k", type=int, help="codes a token of state dicts of overcomplete, which do not hold it")
    export = commands.add_parser("export", help="a trained dictionary in the files of other tools")
    export.add_argument("folder", help="new folder to write")
    export.add_argument("--to", required=True, metavar="TOOL", help="pretrained, saelens, neuronpedia or sae-dashboard")
    export.add_argument("--arm", help="arm of the comparison (default: RA-SAE of the run's frame, own centroids)")
    export.add_argument("--licence", metavar="SPDX", help="for `pretrained` and `saelens`, such as mit")
    export.add_argument("--model-id", help="Neuronpedia's name of the model")
    export.add_argument("--set-name", help="Neuronpedia's name of the set of sources")
    for command in (report, sweep, explore, export):
        command.add_argument("--preset", choices=sorted(PRESETS), default="quick")
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
        command.add_argument("--runs", type=_folder, help="folder for runs (default: $ARCHSAE_RUNS, else runs/)")
        command.add_argument("--repair", action="store_true", help="make damaged artefacts again instead of refusing")
    report.add_argument("--dry-run", action="store_true", help="print stages, sizes and expected time, then stop")
    report.add_argument("--publish", action="store_true", help="make this run the committed report")
    compare = commands.add_parser("compare", help="do saved SAEs, ours or other people's, hold the same features?")
    compare.add_argument(
        "saes", nargs="+", metavar="SAE",
        help="two or more: .safetensors files, folders of save_pretrained or of SAELens, overcomplete's state dicts, "
        "or user/repository[/folder] of the hub",
    )  # fmt: skip
    compare.add_argument("--figure", default="comparison.png", help="default: comparison.png")
    compare.add_argument("--json", help="write every score there too")
    compare.add_argument("--activations", help="compare codes too, of a matrix in a .safetensors file")
    compare.add_argument("--k", type=int, help="active codes a token, for state dicts of overcomplete")
    timing = commands.add_parser("timing", help="what the stages of a run were said to take, and what they took")
    timing.add_argument("folder", metavar="RUN_FOLDER")
    timing.add_argument("--each", action="store_true", help="a line for each stage instead of each kind of stage")
    clean = commands.add_parser("clean", help="delete what reports made in the folder of runs, and nothing else")
    clean.add_argument("--runs", type=_folder, help="folder of runs (default: $ARCHSAE_RUNS, else runs/)")
    clean.add_argument("--dry-run", action="store_true", help="say what would be deleted and what kept, then stop")
    return parser


def parameters_of(preset: str, assignments: Sequence[str]) -> dict[str, Any]:
    """`--preset` and `--set NAME=VALUE` as parameters. Raises ConfigError naming the field.

    Values stay texts, so that `tokens=None` is not taken for a parameter that nobody set.
    """
    parameters: dict[str, Any] = {"preset": preset}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment!r}: expected NAME=VALUE, such as delta=0.5")
        if (name := name.strip()) == "preset":
            raise ConfigError(f"--set {assignment!r}: give the preset by --preset")
        if name in parameters:
            raise ConfigError(f"--set {name}: given twice, as {parameters[name]} and {value.strip()}: give one of them")
        parameters[name] = value.strip()
        coerce(name, value.strip())
    return parameters


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _check_texts(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for an option that was given empty, most often by a variable of the shell that is not set."""
    for name, value in vars(arguments).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                require_given(name, text)


def _run(arguments: argparse.Namespace) -> int:
    _check_texts(arguments)
    if arguments.command == "fetch":
        from archsae_core.data import assets

        for line in assets.fetch(*arguments.names):
            _say(line)
        return 0
    if arguments.command == "compare":
        return _compare(arguments)
    if arguments.command == "export":
        return _export(arguments)
    if arguments.command == "timing":
        return _timing(arguments.folder, each=arguments.each)
    # Imported here: papermill and torch take seconds, which `--help` and a mistyped name need not wait for.
    from archsae_core.progress import showing
    from archsae_study.commands import runner
    from archsae_study.commands.publishing import check_place, publish
    from archsae_study.engine import estimate
    from archsae_study.engine.source import default_root
    from archsae_study.pages.answer import answer

    root = arguments.runs or default_root()
    if arguments.command == "clean":
        return _clean(root, dry_run=arguments.dry_run)
    parameters = parameters_of(arguments.preset, arguments.set)
    if arguments.command == "sweep":
        with showing():
            folders = runner.run_sweep(parameters, coerce("deltas", arguments.deltas), root=root, say=_say)
        for folder in folders:
            _say(f"run folder: {folder}")
        return 0
    if arguments.command == "explore":
        arms = None if arguments.arms is None else coerce("arms", arguments.arms)
        page = runner.run_explorer(parameters, arms, saes=arguments.sae, k=arguments.k, root=root, say=_say)
        sys.stdout.write(f"{page}\n")
        return 0
    if arguments.publish:
        check_place()
    if arguments.dry_run:
        study, found = runner.planned(parameters, root)
        sys.stdout.write("\n".join(study.text_notes()) + "\n\n")
        sys.stdout.write(f"{estimate.table(found)}\n\n{estimate.summary(found, root)}\n")
        estimate.check_room(found, root)
        return 0
    with showing():
        folder = runner.run_report(parameters, root=root, say=_say)
    if arguments.publish:
        publish(folder)
        _say("published: `make readme` puts its answer and its tables into README.md and docs")
    sys.stdout.write(answer(folder) + f"\nrun folder: {folder}\n")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from archsae_study.commands.export import export
    from archsae_study.engine.study import Study
    from archsae_study.settings.config import configure

    parameters = parameters_of(arguments.preset, arguments.set)
    study = Study(configure(parameters), arguments.runs, progress=sys.stderr.isatty())
    if arguments.arm is not None:
        study.require_followed(arguments.arm, parameters)
    options = {name: getattr(arguments, name) for name in ("licence", "model_id", "set_name")}
    for file in export(study, arguments.arm, arguments.folder, arguments.to, **options):
        sys.stdout.write(f"{file}\n")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from archsae_study.commands import compare

    wanted = arguments.activations is not None
    inputs = [*arguments.saes, *filter(None, [arguments.activations])]
    drawn, scores = compare.outputs(arguments.figure, arguments.json, inputs)
    entries = compare.read(arguments.saes, arguments.k, codes=wanted)
    x = compare.read_activations(arguments.activations, entries[0].sae.d_model) if wanted else None
    for warning in compare.warnings(entries):
        _say(f"warning: {warning}")
    found = compare.compare(entries, x)
    sys.stdout.write(compare.report(found) + "\n")
    compare.save_figure(found, drawn)
    _say(f"figure: {arguments.figure}")
    if scores is not None:
        write_json(scores, found.as_json())
    return 0


def _timing(folder: str, *, each: bool) -> int:
    from archsae_study.engine import execution

    rows = execution.read(given_path("folder", folder))
    if not rows:
        raise ConfigError(f"{folder}: no {execution.TIMING} there: name the folder of a run that `report` made")
    sys.stdout.write(execution.table(rows, each=each) + "\n")
    return 0


def _clean(root: Path, *, dry_run: bool) -> int:
    from archsae_study.commands.cleaning import clean

    found = clean(root, dry_run=dry_run)
    if not root.exists():
        sys.stdout.write(f"there is no folder {root}\n")
        return 0
    sys.stdout.write("\n".join(found.lines()) + "\n")
    return 1 if found.failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; bad input ends with one line on stderr and exit status 2, a failed notebook with 1."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character gets ? for it
        sys.stdout.reconfigure(errors="replace")
    if getattr(arguments, "repair", False):
        os.environ[REPAIR] = "1"  # kernels inherit it
    try:
        return _run(arguments)
    except ConfigError as error:
        _say(f"error: {error}")
        return 2
    except (CorruptArtifact, RuntimeError, SafetensorError) as error:  # the last where a disk fills
        said = shortened(str(error))
        _say(f"error: {said}{next((fix for code, fix in DISK.items() if os.strerror(code) in said), '')}")
        return 1
    except OSError as error:  # a disk that is full or read-only, a folder of someone else's
        _say(f"error: {shortened(str(error))}{DISK.get(error.errno, '')}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
