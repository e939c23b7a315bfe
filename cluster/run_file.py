"""The settings of a run as a file that travels: what the driver on a cluster is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.machines import worker_of
from cluster.spec import Kuberay, Provider, Slurm, Spec
from diffii.errors import ConfigError
from engine.config import Config
from engine.defaults import explicit_keys
from engine.settings import flat_keys, from_flat

RUN_FILE = "run.yaml"


def run_config(spec: Spec, provider: Provider) -> Config:
    """What the specification's run is on this provider's machines. Raises ConfigError."""
    gpus = gpus_of_worker(spec, provider)
    actors = {
        # Said, not found out: when the driver starts, an autoscaled cluster has no GPU yet, and would be taken for one
        # that never has any.
        "actors.gpus": 1.0,
        "actors.max": spec.max_workers * gpus,
        "actors.min": max(1, spec.min_workers * gpus),
    }
    return from_flat({**actors, **flat_keys(spec.run), "output.url": spec.output})


def gpus_of_worker(spec: Spec, provider: Provider) -> int:
    """GPUs of one worker. Raises ConfigError."""
    if provider == "kuberay":
        return spec.part("kuberay", Kuberay).gpus
    return spec.part("slurm", Slurm).gpus if provider == "slurm" else worker_of(spec, provider).gpus


def to_yaml(config: Config) -> str:
    """The keys that somebody set, as `--config` reads them."""
    tree: dict[str, dict[str, Any]] = {}
    for key, value in explicit_keys(config).items():
        group, _, name = key.partition(".")
        tree.setdefault(group, {})[name] = value
    return yaml.safe_dump(tree, sort_keys=True, allow_unicode=True, width=120)


def refuse_local(config: Config) -> None:
    """Raise ConfigError when source or output is a relative path: another machine has another working directory."""
    for key, url in (("source.url", config.source.url), ("output.url", config.output.url)):
        if not url or "://" in url or url.startswith("/"):
            continue
        # A repository of the hub is written like one.
        hub = key == "source.url" and url.count("/") == 1 and not url.startswith(".") and not Path(url).exists()
        if not hub:
            raise ConfigError(
                f"{key}={url}: is a path of this machine, which a cluster does not see; give a URL (s3://..., gs://, "
                "abfs://) or the full path on a disk that all machines share"
            )
