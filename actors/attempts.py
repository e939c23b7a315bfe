"""The journal of a task: what is being tried, written before it is tried, so that the next process can read it.

A task is a chunk of rows, or a batch of real images in one step of their inversion. Entries are small files numbered
from 0, created exclusively, as long as their task is not done. A process that dies leaves a try as its last entry. Not
every such try counts as a death:

- its node is gone (preemption, drain): the node's end, not the row's;
- nobody of the same run came after it: the driver died, and its actors with it;
- the process wrote `preempted` (SIGTERM), `out-of-memory`, or `too-large` (the next takes a smaller batch) behind it;
- the driver ended it over something else, or because it was frozen (`actors.board.Answer.excused`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field

from actors.failures import MAX_KILLERS, OUT_OF_MEMORY_TRIES
from actors.isolation import Death, blamed, groups
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ModelError

TRY, PASSED = "try", "passed"
PREEMPTED, OUT_OF_MEMORY, TOO_LARGE = "preempted", "out-of-memory", "too-large"
STALLED, DEVICE_LOST = "stalled", "device-lost"
GENERATION = "generation.micro_batch"


@dataclass(frozen=True, slots=True)
class Process:
    """Who writes: the run (one execution of one driver), the process, and the Ray node it is on, if any."""

    run: str
    node: str = ""
    name: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: a try of `rows`, or how the process's last try ended."""

    run: str
    node: str
    process: str
    kind: str
    rows: tuple[int, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a journal is about: where its entries are, what errors call it, and the key of its micro-batch."""

    journal: str
    words: str
    setting: str


def of_chunk(wave: int, chunk: int) -> Subject:
    words = f"chunk {chunk} of wave {wave}"
    return Subject(layout.chunk_journal(wave, chunk), words, GENERATION)


def of_images(step: str, batch: str) -> Subject:
    """A batch of real images, named by a hash of what is to be done, in one step of the inversion stage."""
    return Subject(layout.image_journal(step, batch), f"batch {batch} of images to be {step}", "inversion.micro_batch")


class Journal:
    """The journal of one task as one process sees and continues it."""

    def __init__(
        self,
        storage: Storage,
        subject: Subject,
        process: Process,
        gone: Callable[[], set[str]],
        excused: Collection[str] = (),
    ) -> None:
        self._storage, self._subject, self._process = storage, subject, process
        self._entries: list[Entry] = []
        while (data := self._read(len(self._entries))) is not None:
            value = json.loads(data)
            self._entries.append(Entry(**{**value, "rows": tuple(value["rows"])}))
        self._next = len(self._entries)
        # Asking the cluster costs a call to its head, which a thousand healthy actors should not make per task.
        self.deaths = _deaths(self._entries, process, gone(), excused) if self._entries else []

    def blamed(self, attempts: int) -> dict[int, str]:
        """Rows to give up, with the reason. Raises ModelError when so many die that it cannot be them."""
        guilty = blamed(self.deaths, attempts)
        if len(guilty) > MAX_KILLERS:
            self.clear()
            raise ModelError(
                f"backbone: {self._subject.words} has ended its process over {len(guilty)} rows, "
                f"last: {list(guilty.values())[-1]}; that is not the rows but the machine: look at the host's memory, "
                "its GPU and driver, then run the same command again"
            )
        return guilty

    def groups(self, rows: int, micro_batch: int) -> list[list[int]]:
        return groups(rows, self.deaths, micro_batch)

    def check_memory(self, micro_batch: int) -> None:
        """Raises ModelError when this run's actors ran out of CUDA memory over this task too often."""
        vain = sum(entry.kind == OUT_OF_MEMORY and entry.run == self._process.run for entry in self._entries)
        if vain >= OUT_OF_MEMORY_TRIES:
            self.clear()
            generating = self._subject.setting == GENERATION
            smaller = "; or let such cards take less: actors.allow_smaller_batch=true" if generating else ""
            raise ModelError(
                f"{self._subject.setting}: {micro_batch} images at a time do not fit into the memory of this device; "
                f"{vain} actors tried. Set a smaller one in a new output, or use a larger card (or one that nothing "
                f"else uses) and run the same command again{smaller}"
            )

    def begin(self, rows: list[int]) -> None:
        """Say that `rows` are tried now."""
        self._append(TRY, rows=tuple(rows))

    def end(self, kind: str, cause: str = "") -> None:
        """Say how this process's tries ended."""
        self._append(kind, cause=cause)

    def passed(self) -> None:
        """The task went through the model: should the process die now, it is not over these rows."""
        if self._next == 1:
            self.clear()  # a healthy task, as nearly all are: one file fewer than an entry that says so
        else:
            self.end(PASSED)

    def clear(self) -> None:
        """Remove the journal, the last entry first: what an interruption leaves is still numbered from 0."""
        for number in reversed(range(self._next)):
            self._storage.remove(layout.attempt(self._subject.journal, number))
        self._next = 0

    def _append(self, kind: str, rows: tuple[int, ...] = (), cause: str = "") -> None:
        mine = self._process
        data = json.dumps(asdict(Entry(mine.run, mine.node, mine.name, kind, rows, cause)), sort_keys=True).encode()
        while not self._put(self._next, data):
            self._next += 1  # a process that is thought dead and is not
        self._next += 1

    def _put(self, number: int, data: bytes) -> bool:
        return self._storage.put_once(layout.attempt(self._subject.journal, number), data)

    def _read(self, number: int) -> bytes | None:
        return self._storage.read_or_none(layout.attempt(self._subject.journal, number))


def _deaths(entries: list[Entry], reader: Process, gone: set[str], excused: Collection[str]) -> list[Death]:
    """The tries that ended with their process, oldest first."""
    last: dict[str, Entry] = {}
    tried: dict[str, Entry] = {}
    for entry in entries:
        last[entry.process] = entry
        if entry.kind == TRY:
            tried[entry.process] = entry
    processes = list(last)
    deaths: list[Death] = []
    for index, name in enumerate(processes):
        entry = last[name]
        ended_by_rows = name in tried and entry.kind in (TRY, STALLED, DEVICE_LOST)
        if not ended_by_rows or name == reader.name or name in excused:
            continue
        followed = entry.run == reader.run or any(last[later].run == entry.run for later in processes[index + 1 :])
        if followed and entry.node not in gone:
            deaths.append(Death(frozenset(tried[name].rows), entry.cause))
    return deaths
