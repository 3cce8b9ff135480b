"""Counts work: every process that has this folder on PYTHONPATH appends one line an event to $ARCHSAE_SOAK_LOG."""

import functools
import importlib.abc
import importlib.machinery
import os
import sys

LOG = os.environ.get("ARCHSAE_SOAK_LOG")


def note(event, name):
    """One write, so that lines of several processes do not mix."""
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
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
    """Steps of runs; those by which an estimate times the machine are none."""
    train, step, running = module.train, module.Trainer.train_step, []

    @functools.wraps(train)
    def counting(*arguments, **options):
        running.append(True)
        try:
            return train(*arguments, **options)
        finally:
            running.pop()

    @functools.wraps(step)
    def counted_step(*arguments, **options):
        if running:
            note("step", "-")
        return step(*arguments, **options)

    module.train, module.Trainer.train_step = counting, counted_step


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


if LOG:
    sys.meta_path.insert(0, Finder())
