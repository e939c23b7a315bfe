"""A batch script for Slurm: one Ray over the nodes of an allocation, the driver in its batch step.

A preempted or timed-out job goes back to the queue and goes on where it stopped. The token is made by the script when
it runs, readable by its user alone, and removed when it ends.
"""

from __future__ import annotations

import shlex

from cluster.render.fill import fill
from cluster.run_file import RUN_FILE
from cluster.spec import Slurm, Spec
from diffii import __version__
from diffii.errors import ConfigError
from engine.settings import flat_keys, from_flat


def batch_script(spec: Spec) -> str:
    """The script. Raises ConfigError."""
    slurm = spec.part("slurm", Slurm)
    if slurm.environment is None and not spec.image.endswith(".sif"):
        raise ConfigError(
            f"image={spec.image}: Slurm runs a .sif file (apptainer build birds.sif docker-daemon://{spec.image}), or "
            "a Python environment on a shared disk: slurm.environment"
        )
    return fill(
        "job.sbatch.jinja",
        spec=spec,
        slurm=slurm,
        version=__version__,
        run_file=RUN_FILE,
        image=shlex.quote(spec.image),
        models=_models(spec),
        binds=",".join(_folders(spec)).replace("'", "'\"'\"'"),
        store=spec.shm_gb * 10**9 * 3 // 4,
    )


def _folders(spec: Spec) -> list[str]:
    """The disks that the run reads and writes: Apptainer shows a container the home folder and the current one only."""
    places = (_models(spec), spec.output, from_flat(flat_keys(spec.run)).source.url)
    return sorted({f"/{place.split('/')[1]}" for place in places if place.startswith("/")})


def _models(spec: Spec) -> str:
    """Empty where the specification names none: nobody can make /mnt/models there, and users have a cache at home."""
    return spec.model_cache if "model_cache" in spec.model_fields_set else ""
