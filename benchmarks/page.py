"""The tables of docs/performance.md, from what the benchmarks wrote; `docs/pages.py` puts them into the page."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from archsae_core.storage import read_json
from archsae_study.formatting import markdown_table as table
from benchmarks import paper, results, scaling

GIB = 2**30
LIMIT = 24 * GIB


def speed(found: Mapping[str, Any]) -> str:
    """How the training steps of one run of `python -m benchmarks` compare with other packages'."""
    names = {"topk": "TopK", "ra": "RA-SAE, mirror step", "ra-published": "RA-SAE, published step"}
    names |= {f"{case}-bf16": f"{names[case]}, gradient of W in bfloat16" for case in ("ra", "ra-published")}
    others = {"topk-bf16": "TopK, bf16 autocast", "ra": "RA-SAE"}
    rows = []
    for case, ratios in found["ratios"].items():
        rows.append([f"**{names.get(case, case)}**", f"**{median(found['ms'][f'ours {case}']):.0f}**", ""])
        for other, ratio in ratios.items():
            package, step = other.split()
            spread = f"{ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}]"
            label = f"{found['versions'][package]}, {others.get(step, names.get(step, step))}"
            rows.append([label, f"{median(found['ms'][other]):.0f}", spread])
    return table(["training step", "ms", "this package is times as fast"], rows)


def machine(found: Mapping[str, Any]) -> str:
    """Whose times these are: its processor, and what that reaches."""
    rates, about = found["shares"]["tflops"], found["machine"]
    return (
        f"{about['cores']} cores of {about['processor']}: {rates['float32']:.2f} TFLOP/s in float32, "
        f"{rates['bfloat16']:.2f} in bfloat16, {rates['gb_per_s']:.0f} GB/s; commit {about['commit']}"
    )


def kmeans(found: Mapping[str, Any]) -> str:
    rows, base = [], median(found["rows"]["ours"]["inertia"])
    ours = median(found["rows"]["ours"]["seconds"])
    for name, row in found["rows"].items():
        taken, excess = median(row["seconds"]), 100 * (median(row["inertia"]) / base - 1)
        rows.append([name, f"{taken:.1f}", f"{taken / ours:.2f}", f"{excess:+.2f} %"])
    return table(["k-means", "s", "times ours", "inertia above ours"], rows)


def matching(found: Mapping[str, Any]) -> str:
    names = list(next(iter(found["assignment"].values())))
    rows = [[what, *(f"{row[name]:.2f}" for name in names)] for what, row in found["assignment"].items()]
    whole = "; ".join(f"{what}: {value:.1f} s" for what, value in found["compare"].items())
    return table(["exact matching, s", *names], rows) + f"\n\nAll stability metrics of a pair: {whole}."


def extraction(found: Mapping[str, Any]) -> str:
    names = {
        "forward": "forward pass, full windows",
        "compiled": "the same, blocks compiled by `torch.compile`",
        "extract": "`extract`: text, padding, checks, writing",
    }
    rows = [
        [name, f"{found[f'{part}_tokens_per_s']:.0f}", f"{found[f'{part}_share']:.2f}"]
        for part, name in names.items()
        if f"{part}_share" in found
    ]
    head = ["reading activations", "tokens/s", f"share of the matrix rate ({found['matrix_gflops']:.0f} GFLOP/s)"]
    notes = [f"A TopK step on these activations waits {found['reading_share']:.1%} of its time for its shuffled batch."]
    if "operations" in found:
        parts = ", ".join(f"{kind} {share:.0%}" for kind, share in found["operations"].items())
        notes.insert(0, f"Of the time of a forward pass: {parts}.")
    return f"{table(head, rows)}\n\n{' '.join(notes)}"


def evaluation(found: Mapping[str, Any]) -> str:
    return (
        f"Evaluation of two SAEs on {found['tokens']:,} held-out tokens: {found['quality_s']:.1f} s for "
        f"reconstruction, {found['ce_and_kl_s']:.1f} s for CE and KL."
    )


def workers(found: Mapping[str, Any]) -> str:
    here = [
        [str(row["processes"]), f"{row['seconds']:.1f}", f"{row['formula']:.1f}", f"{row['efficiency']:.2f}"]
        for row in found["measured"]
    ]
    head = [f"processes on {found['machine']['cores']} cores", "s", "by the formula, s", "efficiency"]
    first, *beyond = found["modelled, 100 runs"]
    lengths = [name for name in first if name != "processes"]
    model = [[str(row["processes"]), *(f"{row[name]:.2f}" for name in lengths)] for row in beyond]
    text = f"{found['runs']} runs of {found['t']:.2f} s; sending and collecting one takes {1e3 * found['d']:.1f} ms."
    titles = ["processes, a core each", *(f"efficiency, 100 runs of {name}" for name in lengths)]
    return "\n\n".join([text, table(head, here), table(titles, model)])


def measured(rows: list[Mapping[str, Any]]) -> str:
    """One line a case, one column a size; what was skipped says why below."""
    parts, skipped = [], []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        sizes = sorted({row["size"] for row in rows if row["axis"] == axis})
        lines = []
        for case in dict.fromkeys(row["case"] for row in rows if row["axis"] == axis):
            of_size = {row["size"]: row for row in rows if (row["axis"], row["case"]) == (axis, case)}
            lines.append([case, *(_cell(of_size.get(size)) for size in sizes)])
            skipped += [
                f"{case} at {axis} = {size}: {row['skipped']}" for size, row in of_size.items() if "skipped" in row
            ]
        parts.append(table([f"{axis} (ms, MiB)", *map(str, sizes)], lines))
    return "\n\n".join(parts + (["Left out: " + "; ".join(skipped) + "."] if skipped else []))


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "seconds" not in row:
        return "–"
    memory = f" ({row['memory'] / 2**20:.0f})" if "memory" in row else ""
    ms = 1e3 * row["seconds"]
    return (f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}") + memory


def exponents(rows: list[dict[str, Any]]) -> str:
    fits = scaling.exponents(rows)
    lines = [
        [fit["axis"], fit["case"], f"{fit['exponent']:.2f} ± {fit['error']:.2f}", f"{fit['theory']:.2f}"]
        for fit in fits
    ]
    return table(["size", "case", "exponent", "of the floor"], lines)


def limits(rows: list[Mapping[str, Any]]) -> str:
    lines = []
    for case in scaling.CASES:
        found = (scaling.largest_in(LIMIT * scaling.SHARE_OF_MEMORY, case, square=square) for square in (False, True))
        lines.append([case, *(f"{n:,}" for n in found)])
    found = table(["a 24 GiB machine ends at", "features, 4,096 anchors", "features = anchors"], lines)
    ratios = [row["memory"] / row["memory_by_theory"] for row in rows if "memory" in row]
    if not ratios:
        return found
    largest = max((row for row in rows if "memory" in row), key=lambda row: row["memory"])
    return (
        f"{found}\n\nMeasured over {len(ratios)} steps, memory is {min(ratios):.2f} to {max(ratios):.2f} times what "
        f"the sizes give; the largest, {largest['case']} at {largest['axis']} = {largest['size']:,}, takes "
        f"{largest['memory'] / GIB:.1f} GiB and {largest['seconds']:.1f} s a step."
    )


def parts() -> dict[str, str]:
    """Content of each pair of markers; a section that was never measured names the command that measures it."""
    found = results.load()
    rows = read_json(scaling.PATH)["rows"] if scaling.PATH.exists() else []
    sections = {"kmeans": kmeans, "matching": matching, "extraction, cpu": extraction, "evaluation, cpu": evaluation}
    filled = {name.split(",")[0]: show(found[name]) if name in found else "Not measured yet: `make bench`."
              for name, show in sections.items()}  # fmt: skip
    missing = "Not measured yet: `make bench-scaling`."
    filled["workers"] = workers(found["workers"]) if "workers" in found else "Not measured yet: `make bench-workers`."
    elsewhere = found.get("steps elsewhere", {}).values()
    filled |= {
        "speed": f"{machine(found['steps'])}.\n\n{speed(found['steps'])}",
        "limits": limits(rows),
        "paper": paper.page(),
    }
    filled["elsewhere"] = "\n\n".join(f"{machine(other)}.\n\n{speed(other)}" for other in elsewhere)
    if not rows:
        return filled | dict.fromkeys(("scaling", "exponents"), missing)
    figure = "![Time against every size](scaling.png)"
    return filled | {"scaling": f"{measured(rows)}\n\n{figure}", "exponents": exponents(rows)}
