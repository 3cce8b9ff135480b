"""Notebook 05: the contrasts of the raw frame, g2 and g3, at the sizes of `full`; g1 at these is in `generality.py`.

On raw data the hull excludes most directions. With the published step most features are dead at this size, and AuxK
takes time: the runs are the longest of a report, so that a table of their own is asked for by `raw_full_size_steps`.
"""

from archsae_study.engine.costs import Cost
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
ARMS_ON_RAW = tuple(dict.fromkeys(arm for one in contrasts.PRIMARY if one.frame == "raw" for arm in (one.ra, one.free)))
"""The arms of g2 and g3, which share TopK."""


def setting(study: Study) -> Setting:
    """The sizes of `full`, or why they are left out."""
    name = f"raw, {FULL_SIZES['n_features']:,} features, k = {FULL_SIZES['k']}"
    steps, skipped = study.config.comparison.raw_full_size_steps, no_full_sizes(study, "raw_full_size_steps")
    return Setting(name, dict(FULL_SIZES), steps, list(ARMS_ON_RAW), SEEDS, skipped)


def runs(study: Study) -> list[Run]:
    """Every run of every arm."""
    return setting_runs(study, setting(study))


def build(study: Study) -> GeneralityResult:
    """The arms at the end of their training, as one more setting."""
    return results(study, [setting(study)])


def _cost(study: Study) -> Cost:
    return setting_cost(study, setting(study))


TABLE = Table(
    name="raw_full_sizes",
    result=GeneralityResult,
    build=build,
    runs=runs,
    fields=("arms", "n_seeds", "raw_full_size_steps", "behaviour_tokens"),
    cost=_cost,
)
