"""Counts work: a process that has this folder on PYTHONPATH, or was forked from `soak.warm`, appends one line an event
to $ARCHSAE_SOAK_LOG."""

import functools
import importlib.abc
import importlib.machinery
import itertools
import os
import sys
import time


def note(event, name):
    """One write, so that lines of several processes do not mix."""
    log = os.environ.get("ARCHSAE_SOAK_LOG")
    if not log:
        return
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{event} {name}\n".encode())
    os.close(descriptor)


def counted(owner, attribute, event, name_of):
    """Note the event whenever the function is called, under the name that its arguments give."""
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def wrapper(*arguments, **options):
        note(event, name_of(*arguments))
        return original(*arguments, **options)

    setattr(owner, attribute, wrapper)


def patch_store(module):
    """Artefacts begun and sealed."""
    counted(module.Store, "_build", "build", lambda store, folder, *_: f"{folder.parent.name}/{folder.name}")
    counted(module, "seal", "seal", lambda work, *_: f"{work.parent.name}/{work.name.removesuffix('.partial')}")


def patch_training(module):
    """Steps of artefacts; those by which an estimate times the machine leave none."""
    train, step, building = module.train, module.Trainer.train_step, []

    @functools.wraps(train)
    def counting(sae, x, config, work=None, **options):
        building.append(work is not None and work.suffix == ".partial")
        try:
            return train(sae, x, config, work, **options)
        finally:
            building.pop()

    @functools.wraps(step)
    def counted_step(*arguments, **options):
        if building and building[-1]:
            note("step", "-")
        return step(*arguments, **options)

    module.train, module.Trainer.train_step = counting, counted_step


def patch_clock():
    """Ten years forth or back at every look at the clock; what only counts seconds (`monotonic`) goes on."""
    shifts, now = itertools.cycle((0, 315_360_000, -315_360_000)), time.time
    of_day = {name: getattr(time, name) for name in ("gmtime", "localtime")}
    time.time = lambda: now() + next(shifts)
    time.time_ns = lambda: int(time.time() * 1e9)
    for name, original in of_day.items():
        setattr(time, name, lambda seconds=None, f=original: f(time.time() if seconds is None else seconds))


PATCHES = {
    "archsae_core.storage": patch_store,
    "archsae_core.models.training": patch_training,
    "archsae_core.data.extraction": lambda module: counted(module, "forward", "batch", lambda *_: "-"),
}


class Finder(importlib.abc.MetaPathFinder):
    """Patches a module of PATCHES right after it was imported."""

    def find_spec(self, name, path, target=None):
        """The module's own spec, with a loader that patches afterwards."""
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("ARCHSAE_SOAK_CLOCK"):
    patch_clock()
sys.meta_path.insert(0, Finder())
