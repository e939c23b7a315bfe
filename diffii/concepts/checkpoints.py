"""A learner's whole state as one safetensors file, whose header holds the numbers as JSON. No pickles.

A run that is killed and resumed from any of them ends with the same bytes (same kind of device).
"""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffii.concepts.learning import Learner
from diffii.dataset.storage import Storage
from diffii.errors import OutputError
from diffii.model_checks import one_line

KEPT = 2
"""Checkpoints kept: the newest, and the one before it, should a reader be in the middle of that."""
_PREFIX, _SUFFIX = "checkpoint-", ".safetensors"


def write_checkpoint(learner: Learner, storage: Storage, folder: str) -> None:
    """Publish the learner's state; older checkpoints but one go."""
    step = learner.progress.step
    storage.put(f"{folder}/{_name(step)}", dump(learner))
    for older in steps_of(storage, folder)[:-KEPT]:
        storage.remove(f"{folder}/{_name(older)}")


def restore_checkpoint(learner: Learner, storage: Storage, folder: str, step: int) -> None:
    """Continue from the checkpoint of `step`. Raises OutputError when it is damaged or of another run."""
    name = f"{folder}/{_name(step)}"
    try:
        load_state(learner, storage.read(name))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"{storage.url}/{name} is no checkpoint of this run ({one_line(error)}); remove it"
        ) from error


def steps_of(storage: Storage, folder: str) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    names = [name for name in storage.names(folder) if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return sorted(int(name.removeprefix(_PREFIX).removesuffix(_SUFFIX)) for name in names)


def dump(learner: Learner) -> bytes:
    """The state as bytes; the same state gives the same bytes."""
    tensors: dict[str, Tensor] = {"sums": learner.progress.sums, "window": learner.progress.window}
    for name, value in learner.parameters.items():
        tensors[f"parameter/{name}"] = value.detach()
        tensors |= {f"optimiser/{name}/{key}": part for key, part in learner.optimiser.state[value].items()}
    tensors |= {f"average/{name}": value for name, value in learner.average.items()}
    numbers = {"progress": learner.progress.to_dict(), "scaler": learner.scaler.state_dict()}
    text = json.dumps(numbers, sort_keys=True, allow_nan=False)
    return save({name: value.cpu().contiguous() for name, value in tensors.items()}, {"state": text})


def load_state(learner: Learner, data: bytes) -> None:
    """Put the state of `dump` into a fresh learner of the same lesson and settings."""
    tensors = load(data)
    numbers = _header(data)
    for name, value in learner.parameters.items():
        value.data.copy_(tensors[f"parameter/{name}"])
        prefix = f"optimiser/{name}/"
        state = {key.removeprefix(prefix): part for key, part in tensors.items() if key.startswith(prefix)}
        # `step` stays on the CPU, where AdamW keeps it.
        moved = {key: part if key == "step" else part.to(value.device) for key, part in state.items()}
        learner.optimiser.state[value].update(moved)
    for name, value in learner.average.items():
        value.copy_(tensors[f"average/{name}"])
    learner.progress.restore(numbers["progress"], tensors["sums"], tensors["window"])
    if numbers["scaler"]:
        learner.scaler.load_state_dict(numbers["scaler"])


def _header(data: bytes) -> dict[str, Any]:
    """The JSON in a safetensors file's header: eight bytes of length, then the header itself."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])


def _name(step: int) -> str:
    return f"{_PREFIX}{step:010d}{_SUFFIX}"
