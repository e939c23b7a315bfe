"""The board of a stage: where its actors post what they do, and where they ask before they take up a task.

A tiny Ray actor on the driver's node. It only remembers: the driver reads it and judges (`engine.watch`). Should it be
lost, the next posts fill a new one; what is forgotten costs a few more tries.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

POST_SECONDS = 3.0
"""Between two posts of an actor. A thousand actors make 300 calls a second, a tenth of what one Ray actor answers."""

READING, WAITING, COMPUTING, ENCODING, STAGING = "reading", "waiting", "computing", "encoding", "staging"
"""What is done with a task in hand. While it waits for the model, which its neighbour has, no clock runs."""
STORAGE_PHASES = frozenset({READING, STAGING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What every process is told that works for a run in Ray; a stage adds its own."""

    output_url: str
    stall_timeout: float = 900.0
    """Seconds without an answer of the model (one call, not a micro-batch) after which it counts as hung. Compiling
    kernels in the first call takes minutes; a hang that costs a quarter of an hour costs less than a wrong verdict."""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names one execution by one driver: made with the spec, on the driver, and the same in all its actors."""
    spot_notices: bool = False
    """Ask the cloud whether it takes the machine back (`actors.spot`)."""
    board: Any = None
    """Handle of the stage's Board, which `engine.watch` makes; without one nobody watches."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A task in an actor's hands: what is done with it now, and a number that changes whenever it gets on."""

    subject: str
    phase: str
    moves: int


@dataclass(frozen=True, slots=True)
class Post:
    """What one process says of itself. `actor` stays the same when another process follows it, `process` does not."""

    actor: str
    process: str
    node: str
    pid: int
    born: float
    """When the process began (psutil): with the pid it names the process and no later one."""
    limit: float = 0.0
    """Seconds that a task may stand still in its hands."""
    ready: bool = False
    """The model is loaded."""
    holdings: tuple[Holding, ...] = ()
    words: str = ""
    """The last ones: why it ends itself."""
    notice: str = ""
    """What the cloud has said of its machine (`actors.spot`)."""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """To an actor that takes up a task: in which phases others hung over it, and which processes the driver ended.

    What those were trying in their models is not to blame.
    """

    hangs: tuple[str, ...] = ()
    excused: frozenset[str] = frozenset()


class Board:
    """Made into a Ray actor by `engine.watch`."""

    def __init__(self) -> None:
        self._posts: dict[str, Post] = {}
        self._ended: set[str] = set()
        self._hangs: dict[str, list[str]] = {}

    def post(self, post: Post) -> None:
        if post.process not in self._ended:
            self._posts[post.actor] = post

    def posts(self) -> list[Post]:
        """The latest post of each actor."""
        return list(self._posts.values())

    def end(self, post: Post, hung: dict[str, str]) -> None:
        """The driver ends a process, over the tasks in `hung` (subject -> phase)."""
        self._ended.add(post.process)
        self._posts.pop(post.actor, None)
        for subject, phase in hung.items():
            self._hangs.setdefault(subject, []).append(phase)

    def ask(self, subject: str) -> Answer:
        """Called by an actor that takes up a task."""
        return Answer(tuple(self._hangs.get(subject, ())), frozenset(self._ended))
