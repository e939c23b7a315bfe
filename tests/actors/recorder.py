"""Progress that remembers what it was told."""

from __future__ import annotations

from engine.progress import Actors, Silent


class Recorder(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.states: list[Actors] = []

    def actors(self, actors: Actors) -> None:
        self.states.append(actors)

    def note(self, text: str) -> None:
        self.notes.append(text)
