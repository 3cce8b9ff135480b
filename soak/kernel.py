"""A Jupyter kernel of its own process, in which cells are run, and interrupted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import NamedTuple

from jupyter_client import BlockingKernelClient, KernelManager

from soak.processes import PROJECT, environment

TIMEOUT = 600
"""Seconds that a cell may take."""


class Kernel(NamedTuple):
    """A kernel and the connection to it."""

    manager: KernelManager
    client: BlockingKernelClient

    def start(self, code: str) -> str:
        """Begin a cell; `end` takes its name."""
        return self.client.execute(code)

    def end(self, cell: str, timeout: float = TIMEOUT) -> str | None:
        """The error of a cell, the empty text where it ended well, None where it has not ended within `timeout` s."""
        limit = time.monotonic() + timeout
        while (left := limit - time.monotonic()) > 0:
            with suppress(Empty):
                reply = self.client.get_shell_msg(timeout=left)
                if reply["parent_header"].get("msg_id") == cell:
                    content = reply["content"]
                    return f"{content['ename']}: {content['evalue']}" if content["status"] == "error" else ""
        return None

    def interrupt(self) -> None:
        """What the button of JupyterLab does."""
        self.manager.interrupt_kernel()


@contextmanager
def kernel(log: Path | None) -> Iterator[Kernel]:
    """A kernel in the project's folder, whose work is counted in `log`."""
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel(env=environment(log), cwd=str(PROJECT))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
