"""What lies in an output and belongs to nothing: left by a driver or an actor that died, or that came too late.

None of it harms a reader, who sees what the log names. A run removes what is certainly stale when it begins;
`verify --repair` removes the rest once nobody works there.
"""

from __future__ import annotations

from diffii.dataset import checkpoints, layout
from diffii.dataset.history import History
from diffii.dataset.storage import TEMPORARY, Storage
from engine import heartbeat


def half_written(storage: Storage) -> list[str]:
    """What a process that died was writing; none on an object store, which shows a file only once it is whole."""
    if not storage.is_local:
        return []
    names = (name for folder in (layout.OWN, layout.DATA) for name, _ in storage.find(folder))
    return [name for name in names if name.rsplit("/", 1)[-1].startswith(TEMPORARY)]


def decided_already(storage: Storage, history: History) -> list[str]:
    """Staged chunks and journals of tries that the log has decided: whoever owns the run may remove them."""
    stale: list[str] = []
    for folder, number_of in ((layout.STAGING, layout.staged_number), (layout.ATTEMPTS, layout.attempt_chunk)):
        for name, _ in storage.find(folder):
            wave, chunk = layout.wave_of(name), number_of(name.rsplit("/", 1)[-1])
            if wave is not None and chunk is not None and chunk < history.next_chunk(wave):
                stale.append(name)
    return stale


def orphans(storage: Storage, history: History, complete: bool) -> list[str]:
    """All of the above, and shards and sidecars that the log does not name."""
    there = [name for folder in (layout.DATA, layout.SIDECARS) for name, _ in storage.find(folder)]
    named = {name for shard in history.shards for name in (shard.name, shard.sidecar)}
    unnamed = {name for name in there if name not in named}
    if not complete:
        # Shards are written just before their entries: what comes next is adopted by the run that goes on.
        first, ahead = len(history.shards), len(unnamed)
        unnamed -= {name(index) for index in range(first, first + ahead) for name in (layout.shard, layout.sidecar)}
    return sorted({*unnamed, *half_written(storage), *decided_already(storage, history)})


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
