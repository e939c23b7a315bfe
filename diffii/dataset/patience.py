"""Which failures of storage pass by themselves, and how long they are waited for.

An object store throttles for tens of seconds when a large pool of actors starts at once, and a network drops a call in
a hundred thousand. Neither may end a run of a week; a full disk, a missing right or a missing file may not be waited
for, since they stay as they are.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from diffii.errors import OutputError

PAUSES = (0.5, 2.0, 8.0, 30.0)
"""Seconds between tries."""

_ANSWERS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""What storage says about a file, not about itself."""
_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET})
"""Of a mounted disk: what a network file system says when its server is busy or has just come back."""
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "urllib3", "requests", "google", "gcsfs", "azure")
"""Packages whose own exceptions, when they are not translated, mean that a call did not get through."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls of storage, and how many of them were made again after a failure."""

    calls: int = 0
    retries: int = 0


class Meter:
    """Reads what this process has asked of storage since the last reading; safe to use from several threads."""

    _lock = threading.Lock()
    _calls = _retries = 0

    def __init__(self) -> None:
        with Meter._lock:
            self._seen = (Meter._calls, Meter._retries)

    @staticmethod
    def count(calls: int = 0, retries: int = 0) -> None:
        with Meter._lock:
            Meter._calls += calls
            Meter._retries += retries

    def read(self) -> Tally:
        with Meter._lock:
            (calls, retries), self._seen = self._seen, (Meter._calls, Meter._retries)
            return Tally(self._seen[0] - calls, self._seen[1] - retries)


def passing(error: BaseException, remote: bool) -> bool:
    """Whether a failure of storage may pass by itself."""
    if isinstance(error, (*_ANSWERS, PermissionError)):
        return False
    if isinstance(error, OSError):
        return remote or error.errno in _PASSING
    return remote and type(error).__module__.partition(".")[0] in _CLIENTS


def patiently(what: str, remote: bool, call: Callable[[], T]) -> T:
    """The answer of `call`, which is made again after each of `PAUSES` while storage fails.

    Raises OutputError when it still fails, and at once for what does not pass by itself, such as a full disk or a
    missing right. What storage says about a file, and what is no failure of storage, is raised as it is.
    """
    Meter.count(calls=1)
    try:
        return _tried(remote, call)
    except Exception as error:
        if passing(error, remote):
            said = f"storage failed {len(PAUSES) + 1} times over, last with {type(error).__name__}: {error}"
        elif isinstance(error, OSError) and not isinstance(error, _ANSWERS):
            said = f"storage fails: {error.strerror or error}"
        else:
            raise
        raise OutputError(f"{what}: {said}; nothing is lost: mend it and run the same command again") from error


def _tried(remote: bool, call: Callable[[], T]) -> T:
    """The answer of `call`, or what its last try raised."""
    try:
        return call()
    except Exception as error:
        if not passing(error, remote):
            raise
        failures = [error]

    def again() -> T:
        # The first try is over: making a `Retrying` costs more than a call of a local disk.
        if failures:
            raise failures.pop()
        return call()

    retrying = Retrying(
        stop=stop_after_attempt(len(PAUSES) + 1),
        wait=wait_chain(*(wait_fixed(pause) for pause in PAUSES)),
        retry=retry_if_exception(lambda error: passing(error, remote)),
        before_sleep=lambda state: Meter.count(retries=1),
        reraise=True,
    )
    return retrying(again)
