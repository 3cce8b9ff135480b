"""A process that has imported what the smoke report needs: programs forked from it start in no time.

Imports take most of a small program's time. `multiprocessing`'s fork server imports this module, and computes nothing.
Forks share its hash seed, that is the order of sets.
"""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("soak_hooks", Path(__file__).parent / "hooks" / "sitecustomize.py")
hooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooks)  # before what it patches is imported

import transformers  # noqa: E402

import archsae_study.experiments  # noqa: E402
import archsae_study.report  # noqa: E402, F401 (for the forks)

LAZY = (transformers.GPT2LMHeadModel, transformers.PreTrainedTokenizerFast, transformers.AutoModelForCausalLM)
"""Imported when they are first named."""
