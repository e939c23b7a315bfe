"""`--fork`: begin a data set anew with other settings, and take along what was paid for and still fits.

What fits is a matter of names alone: contexts, concepts, inversions and signatures lie under the hash of all that
shapes them, so whatever of them the new run comes to ask for, it finds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from diffii.dataset import layout
from diffii.dataset.history import newest_version
from diffii.dataset.storage import Storage
from diffii.errors import ConfigError, OutputError
from engine.run import Run

_COPIES = 16
_CACHES = (layout.CONTEXTS, layout.CONCEPTS, layout.INVERSIONS, layout.SIGNATURES)


def take_along(run: Run, url: str) -> int:
    """Copy the caches of the output at `url` into that of `run`; how many files. The old output is not touched.

    On one disk they are linked and take no room. Raises OutputError when there is no data set, ConfigError when it is
    the very same one.
    """
    other = Storage(url)
    if other.url == run.storage.url:
        raise ConfigError(f"--fork {url}: that is the output itself; name a new one")
    if newest_version(other) < 0:
        raise OutputError(f"{url} holds no data set of diffii, so there is nothing to fork")
    names = [name for folder in _CACHES for name, _ in other.find(folder)]
    with ThreadPoolExecutor(_COPIES) as pool:
        list(pool.map(lambda name: run.storage.take_over(name, other), names))
    return len(names)
