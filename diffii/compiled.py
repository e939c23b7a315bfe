"""torch.compile for the U-Net: one kernel where eager PyTorch runs several, for a minute or more of compiling.

It is compiled once per process and shape, when that shape first comes. What the compiler made lies in torch's own cache
on the machine's disk (TORCHINDUCTOR_CACHE_DIR), so that the next actor of the node finds it there.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from diffii.errors import ModelError
from diffii.model_checks import one_line


def compiled(unet: torch.nn.Module, device: torch.device) -> Any:
    """The same module, to be compiled at each shape that it is called with.

    Raises ModelError now, not at the first image, where the machine has no compiler.
    """
    # Here, not above: importing it takes seconds, of every process that knows what a backbone is and loads none.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

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
