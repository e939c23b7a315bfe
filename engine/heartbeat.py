"""The heartbeat: a driver at work says so, so that a second one waits instead of doing the same work for nothing.

It is advice, never a lock: what fences a second driver is the exclusive creation of the next log entry (law 2). So
nothing here ends a run. A driver of this host whose process is gone is taken over from at once; one that cannot be
looked at (another host) is when its heartbeat has stood still for `SILENT_SECONDS`, by the watcher's own clock, so that
the hosts' clocks need not agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from diffii.dataset import layout
from diffii.dataset.driver import BEAT_SECONDS, SILENT_SECONDS, Doing, Driver, read_driver
from diffii.dataset.storage import Storage
from diffii.errors import OutputError

_LOOK_SECONDS = 2.0
_LEAVE_SECONDS = 15.0
"""So long a beat under way is waited for: storage that does not answer must not keep a run from its end. What is left
there is a dead driver's, and taken over from at once."""


def this_driver() -> Driver:
    pid = os.getpid()
    return Driver(socket.gethostname(), _machine(), pid, psutil.Process(pid).create_time(), secrets.token_hex(8))


@contextlib.contextmanager
def driving(storage: Storage, note: Callable[[str], None], doing: Callable[[], Doing] = Doing) -> Iterator[bool]:
    """Wait until nobody else works on this output, then say that this process does, until the end of the block.

    Each beat says what it is `doing`. Yields whether somebody else did: then the log has gone on, and is to be read
    again.
    """
    mine = this_driver()
    waited = _wait(storage, note)
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(storage, mine, doing, stop), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield waited
    finally:
        stop.set()
        thread.join(_LEAVE_SECONDS)
        if not thread.is_alive():
            _leave(storage, mine)


def _leave(storage: Storage, mine: Driver) -> None:
    # Whatever ends the block is what the user should hear, not a storage that fails here too.
    with contextlib.suppress(OSError, OutputError):
        current = read_driver(storage)
        if current is not None and current.token == mine.token:
            storage.remove(layout.HEARTBEAT)


def seen(storage: Storage) -> Driver | None:
    """The driver that last said it works here, unless it can be seen to be gone; asks once and does not wait."""
    driver = read_driver(storage)
    if driver is None or _dead(driver):
        return None
    # Only for show, so the hosts' clocks may do for once.
    return driver if _alive(driver) or time.time() - driver.at < 2 * SILENT_SECONDS else None


def working(storage: Storage) -> Driver | None:
    """The driver that works on this output now, as far as that can be told; looks for some seconds at one elsewhere."""
    last = read_driver(storage)
    if last is None or _dead(last):
        return None
    if _alive(last):
        return last
    since = time.monotonic()
    while time.monotonic() - since < SILENT_SECONDS:
        time.sleep(_LOOK_SECONDS)
        now = read_driver(storage)
        if now != last:
            return now
    return None


def _wait(storage: Storage, note: Callable[[str], None]) -> bool:
    """Return once nobody beats; whether anybody had to be waited for."""
    last, since, told = read_driver(storage), time.monotonic(), ""
    while last is not None and not _dead(last):
        if told != last.token:
            told = last.token
            note(f"{last} works on {storage.url}; waiting for its end, to go on from there (Ctrl-C leaves it be)")
        time.sleep(_LOOK_SECONDS)
        now = read_driver(storage)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > SILENT_SECONDS and not _alive(last):
            note(f"{last} has been silent for {SILENT_SECONDS:.0f} s: taking over")
            return True
    if last is not None:
        note(f"{last} is gone: taking over")
    return last is not None or bool(told)


def _beat(storage: Storage, mine: Driver, doing: Callable[[], Doing], stop: threading.Event) -> None:
    beat = 0
    while True:
        # Advice that cannot be given is not worth ending a run for; the log's own writes will say what is wrong.
        with contextlib.suppress(OSError, OutputError):
            said = replace(mine, beat=beat, at=time.time(), doing=doing())
            storage.put(layout.HEARTBEAT, json.dumps(asdict(said)).encode())
        beat += 1
        if stop.wait(BEAT_SECONDS):
            return


def _dead(driver: Driver) -> bool:
    return driver.machine == _machine() and not _runs(driver)


def _alive(driver: Driver) -> bool:
    return driver.machine == _machine() and _runs(driver)


def _runs(driver: Driver) -> bool:
    try:
        process = psutil.Process(driver.pid)
        return process.create_time() == driver.started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _machine() -> str:
    """This boot and this space of process numbers; without a /proc the host's name and boot time say it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
