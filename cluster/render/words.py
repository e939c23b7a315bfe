"""What a person should know who has just rendered a cluster: what it costs, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

from cluster.render.clouds import TOKEN_FILE, TOKEN_FOLDER
from cluster.render.image import STARTS_MACHINES
from cluster.spec import Provider, Spec
from diffii import __version__

HERE = "http://127.0.0.1:8265"


def costs(spec: Spec) -> str:
    """What an hour costs at least and at most, by the specification's prices."""
    prices = spec.prices
    if prices is None:
        return "costs: unknown; put what a head and a worker cost an hour under `prices` in the specification"
    least, most = (prices.head + workers * prices.worker for workers in (spec.min_workers, spec.max_workers))
    return (
        f"costs: {least:.2f} to {most:.2f} {prices.currency} an hour ({spec.min_workers} to {spec.max_workers} "
        "workers); disks, storage and traffic come on top"
    )


def next_steps(spec: Spec, provider: Provider, folder: Path) -> list[str]:
    """Commands, in order, from the files to a finished run and to nothing left that costs."""
    wheel = f"pip wheel --no-deps -w {folder} diffii=={__version__}      # or the path of a checkout"
    image = f"docker build -t {spec.image} {folder} && docker push {spec.image}"
    if provider == "kuberay":
        return [
            wheel,
            image,
            f"kubectl apply -f {folder}/rayjob.yaml          # makes a cluster, runs, and takes it away again",
            f"kubectl delete -f {folder}/rayjob.yaml         # stops it before its end",
        ]
    if provider == "slurm":
        return [
            f"cd {folder} && sbatch job.sbatch",
            f"scancel --name {spec.name}                     # stops it",
        ]
    file = f"~/{TOKEN_FOLDER}/{spec.name}/{TOKEN_FILE}"
    token = f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={file}"
    return [
        wheel,
        image,
        f"mkdir -p ~/{TOKEN_FOLDER}/{spec.name} && (umask 077; openssl rand -hex 32 > {file})",
        token,
        f"pip install {' '.join(shlex.quote(wanted) for wanted in STARTS_MACHINES[provider])}      # for ray up",
        f"ray up {folder}/cluster.yaml",
        f"ray dashboard {folder}/cluster.yaml              # a tunnel to {HERE}; leave it open, in another terminal:",
        token,
        f"diffii doctor --address {HERE} --config {folder}/run.yaml",
        f"diffii cluster submit --address {HERE} --config {folder}/run.yaml",
        f"ray down {folder}/cluster.yaml                   # ends all machines",
    ]
