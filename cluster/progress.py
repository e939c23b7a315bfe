"""One calm line of progress: drawn in place on a terminal, repeated every half minute in a log."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cluster.show import duration, rate
from engine.progress import Actors

SAY_EVERY = 30.0
"""Seconds between lines where there is no terminal."""


class ProgressLine:
    """Implements `engine.progress.Progress`. Use as a context manager, so that the terminal is left clean."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._name, self._total, self._done, self._lost, self._kept = "", 0, 0, 0, 0
        self._began = self._said = 0.0
        self._fresh = 0
        self._actors: Actors | None = None
        # The watch over the actors speaks from a thread of its own.
        self._unit, self._line = "images", ""
        self._lock = threading.RLock()

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description:9}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                console=self._console,
                refresh_per_second=4,
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_stage()
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        with self._lock:
            self._end_stage()
            self._actors, self._unit = None, unit
            self._name, self._total, self._done, self._lost, self._kept, self._fresh = name, total, done, 0, 0, 0
            self._began = self._said = time.monotonic()
            if self._bar is not None:
                self._task = self._bar.add_task(name, total=total, completed=done, detail="starting")
            elif done:
                self._console.print(
                    f"{name}: {done} of {total} {unit} were there already", highlight=False, soft_wrap=True
                )

    def actors(self, actors: Actors) -> None:
        with self._lock:
            news = self._actors is None or actors.waiting != self._actors.waiting
            self._actors = actors
            self._show(now=news and actors.waiting)

    def advance(self, images: int, lost: int = 0) -> None:
        with self._lock:
            self._done, self._lost, self._fresh = self._done + images, self._lost + lost, self._fresh + images
            self._show()

    def committed(self, rows: int, shard: str | None) -> None:
        with self._lock:
            self._kept += rows
            self._show()

    def note(self, text: str) -> None:
        with self._lock:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _detail(self) -> str:
        seconds, parts = time.monotonic() - self._began, list[str]()
        if seconds > 1 and self._fresh:
            parts.append(rate(self._fresh / seconds, self._unit))
            if self._bar is None and self._done < self._total:  # a bar has a column for it
                parts.append(f"{duration((self._total - self._done) * seconds / self._fresh)} left")
        if self._name == "generate":
            parts.append(f"{self._kept} committed")
        if self._lost:
            parts.append(f"{self._lost} lost")
        if self._actors is not None and self._done < self._total:
            parts.append(str(self._actors))
        return ", ".join(parts)

    def _show(self, now: bool = False) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, detail=self._detail())
        elif self._name and (now or time.monotonic() - self._said > SAY_EVERY):
            self._said = time.monotonic()
            self._say()

    def _end_stage(self) -> None:
        if self._name and self._bar is None:
            self._say()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, detail=self._detail())
        self._name = ""

    def _say(self) -> None:
        line = f"{self._name}: {self._done}/{self._total} {self._unit}, {self._detail()}"
        if line != self._line:
            self._line = line
            self._console.print(line, highlight=False, soft_wrap=True)
