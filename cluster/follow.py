"""What a job says, as it says it: its own calm lines, on a connection that may break and is made again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp
import requests

from cluster.access import answering
from cluster.submit import ENDED
from diffii.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

GIVE_UP_SECONDS = 600.0
"""A cluster that does not answer for so long is left; its job is not."""
_RAY_SAYS = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\tINFO \w+\.py:\d+ -- "
    r"|^Running entrypoint for job |^Runtime env is setting up"
    r"|^\[.*\] logging\.cc:\d+: Set ray log level"
)
"""Begins what Ray writes into a job's log about itself."""


def follow(jobs: JobSubmissionClient, name: str, show: Callable[[str], None]) -> str | None:
    """Show each line of a job until it ends; gives how it ended, in lower case, or None when the user pressed Ctrl-C.

    The job knows nothing of being followed. Raises ClusterError.
    """
    try:
        return asyncio.run(_Log(jobs, name, show).follow())
    except KeyboardInterrupt:
        return None


class _Log:
    def __init__(self, jobs: JobSubmissionClient, name: str, show: Callable[[str], None]) -> None:
        self._jobs, self._name, self._show = jobs, name, show
        self._seen = 0
        self._rest = ""

    async def follow(self) -> str:
        silent_since: float | None = None
        while True:
            try:
                await self._tail()
                state = self._state()
                if state in ENDED:
                    await self._finish(state)
                    return state
                silent_since = None
            # A tunnel that breaks, a head that is busy: the job goes on, and so do we.
            except (aiohttp.ClientError, requests.RequestException, OSError, RuntimeError) as error:
                if silent_since is None:
                    silent_since = time.monotonic()
                    self._show(f"the connection is lost ({type(error).__name__}); the run goes on, trying again")
                elif time.monotonic() - silent_since > GIVE_UP_SECONDS:
                    with answering(self._jobs._address):
                        raise
            await asyncio.sleep(2.0)

    async def _tail(self) -> None:
        """A new connection tells everything from the beginning: what was shown is passed over."""
        told = 0
        async for text in self._jobs.tail_job_logs(self._name):
            fresh = text[max(0, self._seen - told) :]
            told += len(text)
            self._seen = max(self._seen, told)
            self._lines(fresh)

    def _lines(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip() and not _RAY_SAYS.match(line):
                self._show(line)

    def _state(self) -> str:
        return self._jobs.get_job_status(self._name).value.lower()

    async def _finish(self, state: str) -> None:
        # The end of the log may be written after the job's end is known.
        whole = self._jobs.get_job_logs(self._name)
        self._lines(whole[self._seen :] + "\n")
        if state == "failed" and not whole.strip():
            # It never began: there is no log, and only Ray knows why.
            raise ClusterError(f"{self._name} did not start: {self._jobs.get_job_info(self._name).message}")
