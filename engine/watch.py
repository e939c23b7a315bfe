"""The watch over a stage: reads the board, tells progress what the actors do, and ends a process that stands still.

A thread of the driver beside `engine.stream`. A clock here counts the watch's own rounds, each for little more than
its usual length: when the driver, the board or the whole machine was stopped for a while, nobody is blamed for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.board import POST_SECONDS, WAITING, Board, Post
from actors.preemption import gone_nodes
from actors.watchdog import GRACE_SECONDS
from engine.progress import Actors, Progress

ROUND_SECONDS = 2.0
MARGIN = GRACE_SECONDS + 30.0
"""Seconds beyond an actor's own limit: its watchdog, which can tell rows apart, is to act first."""
STOP_SECONDS = 10.0
"""How long a finished stage waits for the round that goes on."""
ABSENT_SECONDS = 5 * POST_SECONDS
"""Silence after which an actor is not counted as being at work; it may be starting anew."""


@dataclass(slots=True)
class _Clock:
    """Seconds for which `mark` has not changed."""

    mark: Any
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Still:
    """A process to be ended: what it says last, for how long that, and the tasks (-> phase) that stand still."""

    post: Post
    seconds: float
    hung: dict[str, str]
    silent: bool

    @property
    def reason(self) -> str:
        if self.silent:
            return f"it gave no sign of life for {self.seconds:.0f} s"
        return f"it stood still for {self.seconds:.0f} s while {', '.join(sorted(set(self.hung.values())))}"


class Clocks:
    """What the rounds have shown of each actor: a pure function of the posts and the seconds between them."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._posts: dict[str, Post] = {}
        self._clocks: dict[tuple[str, str], _Clock] = {}
        self.ended: list[Post] = []
        """Last posts of processes that another has followed, since the last round."""

    def round(self, posts: Sequence[Post], seconds: float) -> list[Still]:
        """Take in the board's posts after `seconds`; returns the processes whose time is up."""
        self.ended = []
        marks: dict[tuple[str, str], Any] = {}
        for post in posts:
            before = self._posts.get(post.actor)
            if before is not None and before.process != post.process:
                self.ended.append(before)
            self._posts[post.actor] = post
            marks[post.process, ""] = post.number
            for holding in post.holdings:
                if holding.phase != WAITING:
                    marks[post.process, holding.subject] = (holding.phase, holding.moves)
        self._clocks = {
            key: _Clock(mark, clock.seconds + seconds)
            if (clock := self._clocks.get(key)) and clock.mark == mark
            else _Clock(mark)
            for key, mark in marks.items()
        }
        stills = [still for post in posts if (still := self._judge(post)) is not None]
        for still in stills:
            del self._posts[still.post.actor]
        return stills

    def silence(self, post: Post) -> float:
        return self._clocks[post.process, ""].seconds

    def _judge(self, post: Post) -> Still | None:
        limit = post.limit + self._margin
        phases = {holding.subject: holding.phase for holding in post.holdings}
        silence = self.silence(post)
        if silence > limit:
            return Still(post, silence, phases, silent=True)
        clocks = {subject: self._clocks.get((post.process, subject)) for subject in phases}
        seconds = {subject: clock.seconds for subject, clock in clocks.items() if clock and clock.seconds > limit}
        hung = {subject: phases[subject] for subject in seconds}
        return Still(post, max(seconds.values()), hung, silent=False) if hung else None


class Watch:
    """Runs from `start` to `stop`. `board` is the handle that the stage's actors post to."""

    def __init__(self, wanted: int, progress: Progress) -> None:
        self._wanted, self._progress = wanted, progress
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On the driver's node it lives and dies with the driver, and no spot notice takes it.
        made = ray.remote(Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self.board: Any = made
        self._clocks = Clocks(MARGIN)
        self._condemned: list[Still] = []
        self._last = time.monotonic()
        self._alone = 0.0
        self._noticed: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(STOP_SECONDS)
        ray.kill(self.board)

    def _run(self) -> None:
        while not self._over.wait(ROUND_SECONDS):
            with contextlib.suppress(RayError):
                self._round(ray.get(self.board.posts.remote(), timeout=5 * ROUND_SECONDS))

    def _round(self, posts: Sequence[Post]) -> None:
        now = time.monotonic()
        seconds, self._last = min(now - self._last, 2 * ROUND_SECONDS), now
        self._condemned += self._clocks.round(posts, seconds)
        self._tell(posts, seconds)
        self._tell_notices(posts)
        reasons = Counter(_why(post) for post in self._clocks.ended)
        while self._condemned:
            # Stays in the list when the call fails, and is tried again in the next round.
            reasons.update([self._condemned[0].reason] * self._end(self._condemned[0]))
            del self._condemned[0]
        for reason, count in reasons.items():
            self._progress.note(f"{_actors(count)} ended ({reason}) and {'was' if count == 1 else 'were'} replaced")

    def _tell(self, posts: Sequence[Post], seconds: float) -> None:
        here = [post for post in posts if self._clocks.silence(post) < ABSENT_SECONDS]
        self._alone = 0.0 if here else self._alone + seconds
        self._progress.actors(
            Actors(
                wanted=self._wanted,
                here=len(here),
                ready=sum(post.ready for post in here),
                busy=sum(bool(post.holdings) for post in here),
                alone=self._alone,
            )
        )

    def _tell_notices(self, posts: Sequence[Post]) -> None:
        for post in posts:
            if post.notice and post.node not in self._noticed:
                self._noticed.add(post.node)
                self._progress.note(
                    f"{post.notice} (node {post.node[:8]}): what its actors cannot finish is made elsewhere"
                )

    def _end(self, still: Still) -> bool:
        """End a process where it is; False when it was gone already."""
        post = still.post
        # One that ended and has no successor yet, for want of a machine, has not hung; nor has a node that went.
        there = post.node not in gone_nodes() and self._at(post, process_is_here)
        # Told first: the actor that takes the task over asks at once.
        ray.get(self.board.end.remote(post, still.hung if there else {}), timeout=5 * ROUND_SECONDS)
        return there and self._at(post, kill_process)

    def _at(self, post: Post, act: Callable[[int, float], bool]) -> bool:
        """What `act` says on the machine of a process."""
        place = NodeAffinitySchedulingStrategy(post.node, soft=False)
        task = ray.remote(act).options(num_cpus=0, max_retries=0, scheduling_strategy=place)
        return ray.get(task.remote(post.pid, post.born), timeout=60.0)


@contextlib.contextmanager
def watching(wanted: int, progress: Progress) -> Iterator[Any]:
    """Watch a stage that wants so many actors; gives the board's handle for their spec."""
    watch = Watch(wanted, progress)
    watch.start()
    try:
        yield watch.board
    finally:
        watch.stop()


def process_is_here(pid: int, born: float) -> bool:
    """Whether a process of this node that was born then still is."""
    try:
        return psutil.Process(pid).create_time() == born
    except psutil.NoSuchProcess:
        return False


def kill_process(pid: int, born: float) -> bool:
    """End a process of this node that was born then; False when there is none.

    By its pid and not with `ray.kill`: that would hit the actor's next process if this one has just ended by itself,
    and needs its handle, whose copy in the driver would keep the pool's actors alive after their work.
    """
    if not process_is_here(pid, born):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _why(post: Post) -> str:
    if post.words:
        return post.words
    return "its node is gone" if post.node in gone_nodes() else "without a word"


def _actors(count: int) -> str:
    return "an actor" if count == 1 else f"{count} actors"
