"""What a machine is: read on the machine itself, compared by whoever asked."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

PACKAGES = ("diffii", "ray", "torch", "diffusers", "transformers", "peft", "numpy", "pillow", "pyarrow", "fsspec")
"""Those that an image's bytes or the talk between machines depend on."""


@dataclass(frozen=True)
class Facts:
    """Of one machine. Bytes, seconds since 1970, and names."""

    node: str
    versions: dict[str, str]
    disk: str
    disk_free: int
    shm_size: int
    """-1 on a system without (macOS), where Ray keeps its objects in files."""
    open_files: int
    """Hard limit: Ray raises the soft one to it."""
    clock: float
    ray_gpus: float = 0.0
    """GPUs that Ray counts on it."""
    gpus: list[str] = field(default_factory=list)
    """GPUs that torch sees."""
    driver: str = ""
    clock_offset: float = 0.0
    """Its clock less the asker's, as far as it cannot be the way of the answer."""
    object_store: int = 0
    """What Ray's object store takes of shared memory."""


def facts(ray_gpus: float = 0.0, object_store: int = 0, disk: str = "", shm: str = "/dev/shm") -> Facts:
    """Of this machine, in this process. `disk` is a folder, by default where models are kept."""
    disk = disk or _existing(os.environ.get("HF_HOME", tempfile.gettempdir()))
    return Facts(
        node=socket.gethostname(),
        versions=_versions(),
        disk=disk,
        disk_free=shutil.disk_usage(disk).free,
        shm_size=_shm_size(shm),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        clock=time.time(),
        ray_gpus=ray_gpus,
        gpus=_gpus(),
        driver=_driver(),
        object_store=object_store,
    )


def _shm_size(folder: str) -> int:
    if Path(folder).is_dir():
        return shutil.disk_usage(folder).total
    return 0 if sys.platform == "linux" else -1


def _existing(folder: str) -> str:
    path = Path(folder).expanduser().absolute()
    return str(next(place for place in (path, *path.parents) if place.exists()))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def _driver() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""
    return ""
