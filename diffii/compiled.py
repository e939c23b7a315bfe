"""torch.compile for the U-Net: one kernel where eager PyTorch runs several, for a minute or more of compiling.

It is compiled once per process and shape, when that shape first comes. What the compiler made lies in torch's own cache
on the machine's disk (TORCHINDUCTOR_CACHE_DIR), so that the next actor of the node finds it there. One that is killed
while its compiler writes leaves half a file, on which every later one would fail: it is removed, and made again.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock

from diffii.errors import ModelError
from diffii.model_checks import one_line


def compiled(unet: torch.nn.Module, device: torch.device) -> Any:
    """The same module, to be compiled at each shape that it is called with.

    Raises ModelError now, not at the first image, where the machine has no compiler.
    """
    # Here, not above: importing it takes seconds, of every process that knows what a backbone is and loads none.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    remove_torn(Path(cache_dir()))
    try:
        torch.compile(lambda x: x * 2.0 + 1.0, dynamic=False)(torch.ones(8, device=device))
    except (InductorError, TorchDynamoException, RuntimeError, OSError) as error:
        needed = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        raise ModelError(
            f"backbone.compile: torch.compile does not work on this machine, it needs {needed}; "
            f"install that, or set backbone.compile=false: {one_line(cast(Exception, error))}"
        ) from error
    # Dynamic shapes would be slower, and a run has two or three.
    return torch.compile(unet, fullgraph=True, dynamic=False)


def remove_torn(cache: Path) -> None:
    """Remove shared libraries of torch's cache that end before they should; one that is being written is waited for."""
    for library in cache.rglob("*.so"):
        if not _whole(library):
            (cache / "locks").mkdir(exist_ok=True)
            # Held by torch while it compiles, under the name that its file has up to the first dot.
            with FileLock(cache / "locks" / f"{library.name.split('.')[0]}.lock"):
                if not _whole(library):
                    library.unlink(missing_ok=True)


def _whole(library: Path) -> bool:
    """Does a 64-bit ELF file reach to the end of its table of sections, which is what linkers write last?"""
    try:
        with library.open("rb") as file:
            head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return len(head) == 64 and head[:4] != bytes(4)  # other systems' libraries begin otherwise
        (table,) = struct.unpack_from("<Q", head, 0x28)
        entry, count = struct.unpack_from("<HH", head, 0x3A)
        return 0 < table + entry * count <= library.stat().st_size
    except FileNotFoundError:
        return True
