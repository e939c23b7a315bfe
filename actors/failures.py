"""What may go wrong while images are made, what is done about it, how often, and why. The one place that decides.

A row is an image to be, in a chunk, or a real image to be inverted or signed, in a batch.

a row raises ........................ its batch is bisected in place, at the same shape -> the row is `poisoned`, a
                                      real image set aside (`actors.set_aside`), and rows made from it `poisoned`
  and so does every row ............. not the rows: a bug of ours; the error leaves the actor and stops the run
the model's process dies ............ Ray restarts the actor and gives the task again (`task_retries`)
  segfault, kill, host out of memory  the journal (`actors.attempts`) says which rows were being tried; they are
                                      bisected over the retries -> as above after `SILENT_DEATHS` or more
  the model hangs ................... `actors.watchdog` writes it down and ends the process; then as above
  CUDA context lost ................. the process can compute nothing any more: written down, ended, as above; a
                                      captioner, which keeps no journal, ends with its last words alone
  too many such rows in one task .... not the rows: the machine or the driver -> ModelError, the run stops
a task stands still in an actor's hands, outside of the model, or the whole process does (frozen, lost in a library)
                                      the driver (`engine.watch`) reads it off the board and kills the process; no row
                                      is blamed, another actor takes the task
  `HANGS` times over one task ....... OutputError if it was storage each time, else ModelError: the run stops
a captioner, a learning worker or the measuring process hangs, in its model too
                                      the same; it keeps no journal, and what it had done is there or is done again
no actor can be had (no GPU, no node) `waiting for capacity`, shown, for as long as it takes: no clock runs
the node goes (spot, drain, SIGTERM)  the try does not count; the task is done elsewhere
the driver dies ..................... its actors die with it; their last tries do not count
CUDA out of memory .................. free the cache, once more at the same shape, then the actor ends and another
                                      takes the task; `OUT_OF_MEMORY_TRIES` in vain -> ModelError names the key
  and the run allows a smaller batch  such cards take half from then on (`actors.small_cards`), down to one row
storage fails ....................... `diffii.dataset.patience` tries again, then OutputError; a resume goes on
a source image is gone or changed ... SourceError names it
an inversion is gone or damaged ..... rows made from it are `poisoned`
the board is lost ................... Ray restarts it, the next posts fill it; its count of hangs begins again
the model does not load ............. a fresh actor, a few times over (`engine.stream`), then the run stops
anything else ....................... a bug of ours; nothing may swallow it, so it stops the run
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import torch
from safetensors import SafetensorError

from diffii.memory import no_memory

T = TypeVar("T")

RowFault = (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, OSError, SafetensorError)
"""What one row's data can raise while it is made. Such a row is set aside with the reason; its mates go on."""

SILENT_DEATHS = 4
"""Processes that must have died over a row, the last with nothing else in hand, before it is blamed. Out of four, an
unlucky row that was there when a stranger killed its actor has been let go again; with two it would not."""
STATED_DEATHS = 2
"""The same where the process said why it ended (a hang, a lost CUDA context): no stranger did that. Not one, because
a card that is falling off its bus hangs over whichever row it holds."""
MAX_KILLERS = 3
"""Rows of one task that may be given up for deaths. A broken driver kills over every row, and each costs several loads
of the model to find."""
OUT_OF_MEMORY_TRIES = 3
"""Actors that may run out of CUDA memory over one task. One may share its card with a stranger; three do not."""
HANGS = 3
"""Processes that may be ended because one task stood still in their hands. One may have met a bad disk or a frozen
machine; each costs the stall timeout, a quarter of an hour."""

assert 1 < STATED_DEATHS <= SILENT_DEATHS


def deaths_to_isolate(rows: int, micro_batch: int, attempts: int = SILENT_DEATHS) -> int:
    """Deaths until one killing row among `rows` is blamed: the chunk, its micro-batch, then halves of that."""
    of_the_chunk = int(rows > micro_batch)
    halvings = (min(rows, micro_batch) - 1).bit_length()
    return max(attempts, of_the_chunk + 1 + halvings)


def task_retries(rows: int, micro_batch: int, attempts: int = SILENT_DEATHS) -> int:
    """Retries Ray must grant a task: an upper bound, for the journal ends the loop earlier and says why.

    Twice what isolation needs, since a task that is read or encoded while its neighbour kills the process dies too.
    Ray's own default is without end: a task that kills from outside the model's calls would be tried for ever.
    """
    own = (MAX_KILLERS + 1) * deaths_to_isolate(rows, micro_batch, attempts) + OUT_OF_MEMORY_TRIES + HANGS
    retries = 2 * own
    assert retries > own >= deaths_to_isolate(rows, micro_batch, attempts)
    return retries


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine, not the row, is at fault."""
    return no_memory(error)


def free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class NoRoom(Exception):
    """The memory was full twice; says what was said."""


def with_room(call: Callable[[], T]) -> T:
    """What `call` gives; without memory it is called once more, with the cache freed. Raises NoRoom."""
    cause = ""
    for _ in range(2):
        try:
            return call()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            cause = describe(error)
        # Not within the handler of the error: its frames hold the tensors that are to go.
        free_memory()
    raise NoRoom(cause)


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


def refuse_if_all(errors: Sequence[Exception], tried: int, example: str) -> None:
    """Raise RuntimeError when each of `tried` rows raised, alone, and they are too many to be bad ones."""
    if len(errors) == tried > MAX_KILLERS:
        raise RuntimeError(
            f"all {tried} rows of a task fail in the model, each alone, so it is not the rows: "
            f"{describe(errors[0])}; the first row's recipe: {example}"
        ) from errors[0]
