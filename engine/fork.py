"""`--fork`: begin a data set anew with other settings, and take along what was paid for and still fits.

What fits is a matter of names alone: contexts, concepts, inversions and signatures lie under the hash of all that
shapes them. What is learned is small and copied whole before it is asked for; of the images' files only those are
that the new plan names.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from diffii.dataset import layout
from diffii.dataset.history import newest_version
from diffii.dataset.storage import Storage
from diffii.errors import ConfigError, OutputError
from engine.run import Run

_COPIES = 16


class Fork:
    """An older output, and what of it has been taken along: `files`. Raises OutputError when there is no data set at
    `url`, ConfigError when it is the new one itself. The old output is never written to."""

    def __init__(self, run: Run, url: str) -> None:
        self._run, self._other = run, Storage(url)
        self.files = 0
        if self._other.url == run.storage.url:
            raise ConfigError(f"--fork {url}: that is the output itself; name a new one")
        if newest_version(self._other) < 0:
            raise OutputError(f"{url} holds no data set of diffii, so there is nothing to fork")

    def take_learned(self) -> None:
        """Contexts, condensed lists and concepts: what a plan is made with."""
        self._take(name for folder in (layout.CONTEXTS, layout.CONCEPTS) for name, _ in self._other.find(folder))

    def take_images(self) -> None:
        """Inversions and signatures that the plan names, and why there is none where an image was set aside."""
        plan = self._run.plan
        names = {layout.inversion(item.key) for item in plan.inversions() if item.key}
        names |= {layout.signature(key) for image in plan.source.images if (key := plan.signature_key(image))}
        names |= {layout.set_aside(name) for name in names}
        there = (name for folder in (layout.INVERSIONS, layout.SIGNATURES) for name, _ in self._other.find(folder))
        self._take(names.intersection(there))

    def _take(self, names: Iterable[str]) -> None:
        wanted = list(names)
        with ThreadPoolExecutor(_COPIES) as pool:
            # On one disk they are linked and take no room.
            list(pool.map(lambda name: self._run.storage.take_over(name, self._other), wanted))
        self.files += len(wanted)

    def __str__(self) -> str:
        return f"{self.files} files taken along from {self._other.url}"
