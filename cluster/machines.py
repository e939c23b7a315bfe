"""Which machine of a cloud has which GPU, and what Ray counts on it.

Names and sizes are the providers' own. A GPU that is not here needs `worker_machine` in the specification.
"""

from __future__ import annotations

from cluster.spec import Machine, Provider, Spec
from diffii.errors import ConfigError

WORKERS: dict[str, dict[str, Machine]] = {
    "aws": {
        "T4": Machine(type="g4dn.2xlarge", cpus=8, memory_gb=32, gpus=1),
        "A10G": Machine(type="g5.2xlarge", cpus=8, memory_gb=32, gpus=1),
        "L4": Machine(type="g6.2xlarge", cpus=8, memory_gb=32, gpus=1),
        "L40S": Machine(type="g6e.2xlarge", cpus=8, memory_gb=64, gpus=1),
        "A100": Machine(type="p4d.24xlarge", cpus=96, memory_gb=1152, gpus=8),
        "H100": Machine(type="p5.48xlarge", cpus=192, memory_gb=2048, gpus=8),
    },
    "gcp": {
        "T4": Machine(type="n1-standard-8", cpus=8, memory_gb=30, gpus=1),
        "L4": Machine(type="g2-standard-8", cpus=8, memory_gb=32, gpus=1),
        "A100": Machine(type="a2-highgpu-1g", cpus=12, memory_gb=85, gpus=1),
        "H100": Machine(type="a3-highgpu-8g", cpus=208, memory_gb=1872, gpus=8),
    },
    "azure": {
        "T4": Machine(type="Standard_NC8as_T4_v3", cpus=8, memory_gb=56, gpus=1),
        "A100": Machine(type="Standard_NC24ads_A100_v4", cpus=24, memory_gb=220, gpus=1),
        "H100": Machine(type="Standard_NC40ads_H100_v5", cpus=40, memory_gb=320, gpus=1),
    },
}
HEADS: dict[str, Machine] = {
    "aws": Machine(type="m6i.xlarge", cpus=4, memory_gb=16),
    "gcp": Machine(type="n2-standard-4", cpus=4, memory_gb=16),
    "azure": Machine(type="Standard_D4s_v5", cpus=4, memory_gb=16),
}
"""The driver reads the source, hashes the model and compares signatures: a few cores, no GPU."""

GCP_ACCELERATORS = {"T4": "nvidia-tesla-t4", "L4": "nvidia-l4", "A100": "nvidia-tesla-a100", "H100": "nvidia-h100-80gb"}
"""What GCP calls the GPU that is put into a machine."""


def worker_of(spec: Spec, provider: Provider) -> Machine:
    """The worker's machine. Raises ConfigError when the GPU's name does not tell it."""
    if spec.worker_machine is not None:
        if not spec.worker_machine.gpus:
            raise ConfigError("worker_machine.gpus is missing: generating needs at least 1 GPU a worker")
        return spec.worker_machine
    known = WORKERS[provider]
    if spec.gpu not in known:
        raise ConfigError(
            f"gpu={spec.gpu}: of {provider} the machines with {', '.join(known)} are known; name another one by "
            "worker_machine: {type: ..., cpus: ..., memory_gb: ..., gpus: ...}"
        )
    return known[spec.gpu]


def head_of(spec: Spec, provider: Provider) -> Machine:
    """The head's machine."""
    return spec.head_machine or HEADS[provider]
