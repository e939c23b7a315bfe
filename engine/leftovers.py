"""What lies in an output and belongs to nothing: left by a driver or an actor that died, or that came too late.

None of it harms a reader, who sees what the log names. A run removes what is certainly stale when it begins;
`verify --repair` removes the rest once nobody works there.
"""

from __future__ import annotations

from diffii.dataset import checkpoints, layout
from diffii.dataset.history import History
from diffii.dataset.storage import TEMPORARY, Storage
from engine import heartbeat


def stale_files(storage: Storage, history: History) -> list[str]:
    """Half-written files, staged chunks and journals that the log has decided: whoever owns the run may remove them."""
    stale: list[str] = []
    if storage.is_local:  # object stores show a file only once it is whole
        for folder in (layout.OWN, layout.DATA):
            names = (name for name, _ in storage.find(folder))
            stale += [name for name in names if name.rsplit("/", 1)[-1].startswith(TEMPORARY)]
    for wave in history.waves:
        decided = history.next_chunk(wave.wave)
        places = ((layout.staged_wave, layout.staged_number), (layout.attempts_wave, layout.attempt_chunk))
        for folder_of, number_of in places:
            folder = folder_of(wave.wave)
            numbered = ((name, number_of(name)) for name in storage.names(folder))
            stale += [f"{folder}/{name}" for name, chunk in numbered if chunk is not None and chunk < decided]
    return stale


def orphans(storage: Storage, history: History, complete: bool) -> list[str]:
    """The stale files, and shards and sidecars that the log does not name."""
    there = [name for folder in (layout.DATA, layout.SIDECARS) for name, _ in storage.find(folder)]
    named = {name for shard in history.shards for name in (shard.name, shard.sidecar)}
    unnamed = {name for name in there if name not in named}
    if not complete:
        # Shards are written just before their entries: what comes next is adopted by the run that goes on.
        first, ahead = len(history.shards), len(unnamed)
        unnamed -= {name(index) for index in range(first, first + ahead) for name in (layout.shard, layout.sidecar)}
    return sorted({*unnamed, *stale_files(storage, history)})


def repair(storage: Storage, history: History, complete: bool) -> list[str]:
    """Remove the orphans and write missing or damaged checkpoints again; what was done, a line each.

    Does nothing while a driver works there: what it is about to name would be taken from under it.
    """
    driver = heartbeat.working(storage)
    if driver is not None:
        return [f"nothing: {driver} works on this run, and its files are no orphans"]
    done: list[str] = []
    for name in orphans(storage, history, complete):
        storage.remove(name)
        done.append(f"removed {name}")
    for name in checkpoints.faulty(storage, history.version):
        storage.remove(name)
        done.append(f"wrote {name} again")
    checkpoints.write_missing(storage, history.version, 0)
    return done
