"""What may go wrong while chunks are made, what is done about it, how often, and why. The one place that decides.

a row raises ........................ its batch is bisected in place, at the same shape -> the row is `poisoned`
  and so does every row ............. not the rows: a bug of ours; the error leaves the actor and stops the run
the model's process dies ............ Ray restarts the actor and gives the chunk again (`task_retries`)
  segfault, kill, host out of memory  the journal (`actors.attempts`) says which rows were being tried; they are
                                      bisected over the retries -> `poisoned` after `SILENT_DEATHS` or more
  hang .............................. `actors.watchdog` writes it down and ends the process; then as above
  CUDA context lost ................. the process can compute nothing any more: written down, ended, as above
  too many such rows in one chunk ... not the rows: the machine or the driver -> ModelError, the run stops
the node goes (spot, drain, SIGTERM)  the try does not count; the chunk is made elsewhere
the driver dies ..................... its actors die with it; their last tries do not count
CUDA out of memory .................. free the cache, once more at the same shape, then the actor ends and another
                                      takes the chunk; `OUT_OF_MEMORY_TRIES` in vain -> ModelError names the key
storage fails ....................... tried again with growing pauses, then OutputError; a resume goes on
an inversion is gone or damaged ..... that row is `poisoned`
the model does not load ............. a fresh actor, a few times over (`engine.stream`), then the run stops
anything else ....................... a bug of ours; nothing may swallow it, so it stops the run
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from safetensors import SafetensorError

from diffii.errors import OutputError

RowFault = (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, OSError, SafetensorError)
"""What one row's data can raise while it is made. Such a row is set aside with the reason; its mates go on."""

SILENT_DEATHS = 4
"""Processes that must have died over a row, the last with nothing else in hand, before it is blamed. Out of four, an
unlucky row that was there when a stranger killed its actor has been let go again; with two it would not."""
STATED_DEATHS = 2
"""The same where the process said why it ended (a hang, a lost CUDA context): no stranger did that. Not one, because
a card that is falling off its bus hangs over whichever row it holds."""
MAX_KILLERS = 3
"""Rows of one chunk that may be poisoned by deaths. A broken driver kills over every row, and each costs several loads
of the model to find."""
OUT_OF_MEMORY_TRIES = 3
"""Actors that may run out of CUDA memory over one chunk. One may share its card with a stranger; three do not."""
STORAGE_PAUSES = (0.5, 2.0, 8.0, 30.0)
"""Seconds between tries at storage: object stores throttle for tens of seconds when a large pool starts at once."""

assert 1 < STATED_DEATHS <= SILENT_DEATHS


def deaths_to_isolate(rows: int, micro_batch: int, attempts: int = SILENT_DEATHS) -> int:
    """Deaths until one killing row among `rows` is blamed: the chunk, its micro-batch, then halves of that."""
    of_the_chunk = int(rows > micro_batch)
    halvings = (min(rows, micro_batch) - 1).bit_length()
    return max(attempts, of_the_chunk + 1 + halvings)


def task_retries(rows: int, micro_batch: int, attempts: int = SILENT_DEATHS) -> int:
    """Retries Ray must grant a task: an upper bound, for the journal ends the loop earlier and says why.

    Twice what isolation needs, since a chunk that is read or encoded while its neighbour kills the process dies too.
    Ray's own default is without end: a chunk that kills from outside the model's calls would be tried for ever.
    """
    own = (MAX_KILLERS + 1) * deaths_to_isolate(rows, micro_batch, attempts) + OUT_OF_MEMORY_TRIES
    retries = 2 * own
    assert retries > own >= deaths_to_isolate(rows, micro_batch, attempts)
    return retries


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine, not the row, is at fault. The CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_lost(device: torch.device) -> bool:
    """Whether an error has taken the CUDA context with it: then every later call of this process fails, whatever its
    rows, and bisecting here would poison them all."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def leave() -> NoReturn:
    """End this process so that Ray starts the actor anew. `ray.actor.exit_actor` would end it for good."""
    os._exit(1)


T = TypeVar("T")


def patiently(what: str, call: Callable[[], T]) -> T:
    """Call storage, again after pauses when it fails. Raises OutputError at last; FileNotFoundError is an answer."""
    for pause in STORAGE_PAUSES:
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause)
    try:
        return call()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OutputError(
            f"{what}: storage failed {len(STORAGE_PAUSES) + 1} times over, last with {describe(error)}; "
            "nothing is lost: mend it and run the same command again"
        ) from error
