"""Notebook 05: the contrasts of the raw frame, g3 and g2, at the sizes of `full`; g1 at these is in `generality.py`.

On raw data the hull excludes most directions. Each has a length of its own, since with the published step, g2's, most
features are dead at this size and AuxK takes time: a step takes twice as long as the chosen one.
"""

from collections.abc import Iterator

from archsae_study.engine.costs import Cost, together
from archsae_study.engine.plan import Table
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study
from archsae_study.experiments.generality import (
    GeneralityResult,
    Setting,
    no_full_sizes,
    results,
    setting_cost,
    setting_runs,
)
from archsae_study.protocol import contrasts
from archsae_study.settings.config import FULL_SIZES

SEEDS = 3
"""Seeds per arm, at most."""
LENGTHS = {"g3": "raw_full_size_steps", "g2": "published_full_size_steps"}
"""By contrast, the parameter that says how long its runs are. Both share TopK where they are equally long."""


def settings(study: Study) -> Iterator[Setting]:
    """The sizes of `full` for each contrast, or why they are left out."""
    sizes = f"{FULL_SIZES['n_features']:,} features, k = {FULL_SIZES['k']}"
    for key, length in LENGTHS.items():
        (one,) = (one for one in contrasts.PRIMARY if one.key == key)
        name = f"raw, {'published step, ' * (key == 'g2')}{sizes}"
        skipped = no_full_sizes(study, length)
        yield Setting(name, dict(FULL_SIZES), study.config[length], [one.ra, one.free], SEEDS, skipped)


def runs(study: Study) -> list[Run]:
    """Every run of every arm, each once."""
    return list(dict.fromkeys(run for setting in settings(study) for run in setting_runs(study, setting)))


def build(study: Study) -> GeneralityResult:
    """The arms at the end of their training, as further settings."""
    return results(study, list(settings(study)))


def _cost(study: Study) -> Cost:
    return together([setting_cost(study, setting) for setting in settings(study)])


TABLE = Table(
    name="raw_full_sizes",
    result=GeneralityResult,
    build=build,
    runs=runs,
    fields=("arms", "n_seeds", *LENGTHS.values(), "behaviour_tokens"),
    cost=_cost,
)
