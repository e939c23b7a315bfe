"""Checks of machines, each a small function of their facts."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.doctor.facts import Facts
from cluster.doctor.finding import Finding

DISK_BYTES = 10 * 10**9
"""A model of Stable Diffusion 1.5 takes some 5 GB, and Ray writes its logs."""
SHM_BYTES = 256 * 2**20
"""Less, and Ray's object store lies on a disk. A container has 64 MiB if it is told nothing."""
OPEN_FILES = 4096
"""A driver holds connections to every actor's process."""
CLOCK_SECONDS = 30.0
"""Storage refuses requests that are signed at another time, and logs of machines are to be read side by side."""


def check_versions(machines: Sequence[Facts], ours: Facts) -> list[Finding]:
    """Every machine has the driver's versions: bytes depend on them, and Ray does not talk to another Ray."""
    found: list[Finding] = []
    for machine in machines:
        others = [
            f"{name} {machine.versions.get(name, 'missing')} where the driver has {version}"
            for name, version in ours.versions.items()
            if machine.versions.get(name, "missing") != version
        ]
        missing = [name for name, version in ours.versions.items() if version == "missing"]
        if others:
            mend = "run one image on all machines, built from the Dockerfile that diffii cluster render writes"
            found.append(Finding("versions", ", ".join(others), mend, machine.node))
        elif missing:
            found.append(Finding("versions", f"missing: {', '.join(missing)}", "pip install diffii", machine.node))
        else:
            told = ("diffii", "ray", "torch", "python")
            found.append(
                Finding("versions", ", ".join(f"{name} {ours.versions[name]}" for name in told), "", machine.node)
            )
    return found


def check_gpu(machine: Facts) -> Finding:
    """torch sees as many GPUs as Ray has counted; a machine without any is well."""
    driver = f", driver {machine.driver}" if machine.driver else ""
    seen = ", ".join(machine.gpus) + driver if machine.gpus else "none"
    if machine.ray_gpus and not machine.gpus:
        return Finding(
            "GPU",
            f"Ray counts {machine.ray_gpus:g}, torch sees none{driver}",
            "start the container with NVIDIA's runtime (docker run --gpus all), on a driver that torch's CUDA knows",
            machine.node,
        )
    return Finding("GPU", seen, "", machine.node)


def check_disk(machine: Facts, need: int = DISK_BYTES) -> Finding:
    """Room for the model and for Ray's logs."""
    said = f"{_gb(machine.disk_free)} free at {machine.disk}"
    mend = f"make room for {_gb(need)}, or set HF_HOME to a larger disk" if machine.disk_free < need else ""
    return Finding("disk", said, mend, machine.node)


def check_shm(machine: Facts) -> Finding:
    """Shared memory holds Ray's object store."""
    need = max(SHM_BYTES, machine.object_store)
    if machine.shm_size < 0:
        return Finding("shared memory", "none is needed on this system", "", machine.node)
    said = f"{_gb(machine.shm_size)} of shared memory"
    if machine.shm_size >= need:
        return Finding("shared memory", said, "", machine.node)
    mend = f"Ray wants {_gb(need)}: docker run --shm-size, or a volume of medium Memory at /dev/shm"
    return Finding("shared memory", said, mend, machine.node)


def check_open_files(machine: Facts) -> Finding:
    """Enough open files for a driver's connections."""
    said = f"{machine.open_files} at most"
    enough = machine.open_files >= OPEN_FILES or machine.open_files < 0  # -1 is no limit
    mend = "" if enough else "raise it to 65536: ulimit -Hn, docker run --ulimit nofile=65536:65536"
    return Finding("open files", said, mend, machine.node)


def check_clock(machine: Facts) -> Finding:
    """Clocks agree, as far as the way of the answer lets that be seen."""
    offset = machine.clock_offset
    said = f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the driver" if abs(offset) >= 1 else "agrees"
    mend = (
        "let it follow a time server: chronyc tracking, timedatectl set-ntp true" if abs(offset) > CLOCK_SECONDS else ""
    )
    return Finding("clock", said, mend, machine.node)


def _gb(count: int) -> str:
    return f"{count / 10**9:.1f} GB"
