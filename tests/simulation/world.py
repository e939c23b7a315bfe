"""A world to run drivers in: storage that is a dictionary, where every call may fail, lie, or be the process's last.

All of it follows from one seed. Storage is a file system of fsspec's own kind, so what runs above it is the real code,
its patience with storage included; only the pauses are not slept.
"""

from __future__ import annotations

import errno
import io
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from diffii.dataset import layout, log
from diffii.hashing import sha256

ROOT = Path(__file__).parents[2]
OURS = {str(ROOT / room) for room in ("diffii", "engine")}
STORAGE = {str(ROOT / "diffii" / "dataset" / name) for name in ("storage.py", "patience.py")}


CALLS_PER_SECOND = 5
"""The world's clock counts calls of storage; a pause is worth so many of them."""


class Crash(BaseException):
    """The process is gone. Not an Exception, because nothing on the way may notice it."""


@dataclass(slots=True)
class Faults:
    """How often things go wrong, per call of storage."""

    crash: float = 0.0
    throttle: float = 0.0
    """The call does nothing and fails; the next one may succeed."""
    lost_answer: float = 0.0
    """The call does what it should, and fails."""
    duplicate: float = 0.0
    """A chunk's result comes twice."""
    zombie: float = 0.0
    """An actor that is thought dead stages its chunk some time later."""


@dataclass
class World:
    """One storage and whoever works on it. `current` is the one that `sim://` means now."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    current = None

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.files: dict[str, bytes] = {}
        self.crash_points: Counter[tuple[str, str, str]] = Counter()
        """(place in our code, operation, before or after) -> deaths."""
        self.calls: Counter[tuple[str, str]] = Counter()
        self.late: list[tuple[int, Callable[[], None]]] = []
        self.clock = 0
        self.turn: Callable[[], None] = lambda: None
        """Called at every call of storage: where another process may come to run."""
        self.committed: list[log.Entry] = []
        World.current = self

    def call(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        """One call of storage by the process that runs now."""
        self.turn()
        self.clock += 1
        self._wake_zombies()
        if getattr(_calm, "now", False):
            return act()
        place = _place()
        self.calls[place, operation] += 1
        chance = self.draw.random()
        faults = self.faults
        if chance < faults.crash:
            before = self.draw.random() < 0.5
            self.crash_points[place, operation, "before" if before else "after"] += 1
            if not before:
                _quietly(act)
            raise Crash
        chance -= faults.crash
        if chance < faults.throttle:
            raise OSError(errno.EBUSY, f"slow down: {operation} {path}")
        chance -= faults.throttle
        result = act()
        if chance < faults.lost_answer:
            raise OSError(errno.EIO, f"the connection ended: {operation} {path}")
        return result

    def sleep(self, seconds: float) -> None:
        """The process that runs now waits: others go on meanwhile, and what is late comes."""
        self.clock += round(seconds * CALLS_PER_SECOND)
        if not getattr(_calm, "now", False):
            self._wake_zombies()
            self.turn()

    def later(self, act: Callable[[], None]) -> None:
        """Have something happen a few calls from now, whoever is alive then."""
        self.late.append((self.clock + self.draw.randrange(5, 200), act))

    def _wake_zombies(self) -> None:
        due = [act for at, act in self.late if at <= self.clock]
        if due:
            self.late = [(at, act) for at, act in self.late if at > self.clock]
            with calm():
                for act in due:
                    act()

    def wrote(self, path: str, data: bytes, before: bytes | None) -> None:
        """What no write may do, checked as it happens."""
        name = path.partition("/")[2]
        if name.startswith(layout.LOG) and name.endswith(".json"):
            assert before is None, f"{name} was written over"
            self._check_entry(int(name.rsplit("/", 1)[-1].removesuffix(".json")), data)
        elif name.startswith((layout.DATA, layout.SIDECARS, layout.STAGING)):
            assert before is None, f"{name} was written over"

    def _check_entry(self, version: int, data: bytes) -> None:
        """The log has no gaps; no chunk is decided twice or out of order; a shard is there before it is named."""
        assert version == len(self.committed), f"entry {version} after {len(self.committed)}"
        entry = log.decode(data, str(version))
        if isinstance(entry, log.CommitEntry):
            earlier = [e for e in self.committed if isinstance(e, log.CommitEntry) and e.wave == entry.wave]
            assert entry.first == (earlier[-1].last + 1 if earlier else 0), "chunks are decided in order, each once"
            if entry.shard is not None:
                names = ((entry.shard.name, entry.shard.sha256), (entry.shard.sidecar, entry.shard.sidecar_sha256))
                for name, digest in names:
                    assert sha256(self.files[f"out/{name}"]) == digest, f"{name} is not what its entry says"
                assert entry.shard.rows == entry.kept
        self.committed.append(entry)

    def removed(self, path: str) -> None:
        name = path.partition("/")[2]
        assert not name.startswith((layout.DATA, layout.SIDECARS)) or not self._named(name), f"{name} was removed"
        assert not (name.startswith(layout.LOG) and name.endswith(".json")), f"{name} was removed"

    def _named(self, name: str) -> bool:
        shards = (entry.shard for entry in self.committed if isinstance(entry, log.CommitEntry) and entry.shard)
        return any(name in (shard.name, shard.sidecar) for shard in shards)


class SimFileSystem(AbstractFileSystem):
    """`sim://`: the files of `World.current`, with the calls that `diffii.dataset.storage` makes."""

    protocol = "sim"
    cachable = False

    @property
    def _world(self) -> World:
        assert World.current is not None
        return World.current

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return str(path).removeprefix("sim://").strip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self._world.call("read", path, lambda: self._get(path))

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        return io.BytesIO(self._world.call("open", path, lambda: self._get(path)))

    def _get(self, path: str) -> bytes:
        try:
            return self._world.files[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)

        def act() -> None:
            world = self._world
            if mode == "create" and path in world.files:
                raise FileExistsError(path)
            world.wrote(path, value, world.files.get(path))
            world.files[path] = value

        self._world.call("put_once" if mode == "create" else "put", path, act)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)

        def act() -> None:
            self._get(path)
            self._world.removed(path)
            del self._world.files[path]

        self._world.call("remove", path, act)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        base = self._strip_protocol(path) + "/"

        def act() -> list[str]:
            below = (name[len(base) :] for name in self._world.files if name.startswith(base))
            found = sorted({base + name.partition("/")[0] for name in below})
            if not found:
                raise FileNotFoundError(path)
            return found

        return self._world.call("list", path, act)

    def find(self, path: str, *_: Any, **__: Any) -> Any:
        base = self._strip_protocol(path) + "/"

        def act() -> dict[str, Any]:
            files = self._world.files
            return {name: {"size": len(data)} for name, data in files.items() if name.startswith(base)}

        return self._world.call("find", path, act)


def sleep(seconds: float) -> None:
    """Stands where `time.sleep` would."""
    assert World.current is not None
    World.current.sleep(seconds)


fsspec.register_implementation("sim", SimFileSystem, clobber=True)

_calm = threading.local()


class calm:
    """Within it nothing fails: for what is not under trial (zombies, readers, the judge at the end)."""

    def __enter__(self) -> None:
        self._before = getattr(_calm, "now", False)
        _calm.now = True

    def __exit__(self, *_: object) -> None:
        _calm.now = self._before


def _quietly(act: Callable[[], Any]) -> None:
    try:
        act()
    except OSError:
        return


def _place() -> str:
    """The function of our code, storage's own aside, that makes the call."""
    frame = sys._getframe(2)
    while frame is not None:
        if place := _named(frame.f_code):
            return place
        frame = frame.f_back
    return "elsewhere"


@cache
def _named(code: CodeType) -> str:
    name = code.co_filename
    if name in STORAGE or not any(name.startswith(room) for room in OURS):
        return ""
    return f"{Path(name).relative_to(ROOT)}:{code.co_qualname}"
