"""The Hugging Face hub: names pinned to a commit, failures within seconds, its libraries kept quiet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TIMEOUT = 10.0
"""Seconds the hub may take to answer before it counts as unreachable."""


class HubError(RuntimeError):
    """A name cannot be had from the hub; the message says why, and what to do."""


class HubUnreachable(HubError):
    """The hub did not answer at all, so that only its local cache is left."""


def hub_commit(name: str, kind: Literal["model", "dataset"], revision: str | None) -> str:
    """Commit that `revision` of repository `name` stands for (None: its default branch).

    One request without retries: the libraries' own downloads would retry for half a minute before they give up.
    Raises HubUnreachable, or HubError where the repository, the revision or the right to read it is missing.
    """
    info = HfApi().model_info if kind == "model" else HfApi().dataset_info
    try:
        return info(name, revision=revision, timeout=TIMEOUT).sha
    except GatedRepoError as error:
        raise HubError("it is gated: accept its terms on the hub, then run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise HubError(f"it has no revision {revision!r}: change `revision`") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError("the hub has no such public repository: check the name, or run `hf auth login`") from error
    except (HTTPError, OSError) as error:
        raise HubUnreachable(f"the hub cannot be reached ({error})") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and log messages inside the block, and restore both afterwards."""
    # Imported here: it takes seconds, which reading stored results need not wait for.
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()
