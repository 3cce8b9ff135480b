"""The Hugging Face hub: names pinned to a commit, failures within seconds, its libraries kept quiet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from huggingface_hub import HfApi, try_to_load_from_cache
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


def hub_commit(
    name: str, kind: Literal["model", "dataset"], revision: str | None, token: str | bool | None = None
) -> str:
    """Commit that `revision` of repository `name` stands for (None: its default branch).

    One request without retries: the libraries' own downloads would retry for half a minute before they give up.
    Raises HubUnreachable, or HubError where the repository, the revision or the right to read it is missing.
    """
    info = HfApi().model_info if kind == "model" else HfApi().dataset_info
    try:
        return info(name, revision=revision, timeout=TIMEOUT, token=token).sha
    except GatedRepoError as error:
        raise HubError("it is gated: accept its terms on the hub, then run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise HubError(f"it has no revision {revision!r}: change `revision`") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError("the hub has no such public repository: check the name, or run `hf auth login`") from error
    except (NotADirectoryError, PermissionError) as error:
        raise HubError(f"the hub's folder on this machine cannot be used ({error}): set HF_HOME to another") from error
    except (HTTPError, OSError) as error:
        raise HubUnreachable(f"the hub cannot be reached ({error})") from error


def reachable(name: str, file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of a download of `file` from model repository `name`, set to the local cache where the hub is away.

    Raises HubError naming the repository where it is neither there to be read nor cached.
    """
    revision, cache = options.get("revision"), options.get("cache_dir")
    if options.get("local_files_only"):
        return dict(options)
    try:
        hub_commit(name, "model", revision, options.get("token"))
    except HubUnreachable as error:
        if isinstance(try_to_load_from_cache(name, file, cache_dir=cache, revision=revision), str):
            return dict(options) | {"local_files_only": True}
        raise HubUnreachable(f"{name!r}: {error}, and it is not in the cache: give a folder, or try again") from error
    except HubError as error:
        raise HubError(f"{name!r}: {error}") from error
    return dict(options)


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
