"""Which files a provider needs, by name, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.render.clouds import launcher
from cluster.render.image import dockerfile, requirements
from cluster.render.kuberay import cluster_of, job_of
from cluster.render.slurm import batch_script
from cluster.run_file import RUN_FILE, run_config, to_yaml
from cluster.spec import Provider, Spec
from diffii import __version__
from diffii.errors import OutputError

LAUNCHER_FILE, JOB_FILE, CLUSTER_FILE, BATCH_FILE = "cluster.yaml", "rayjob.yaml", "raycluster.yaml", "job.sbatch"


def render(spec: Spec, provider: Provider) -> dict[str, str]:
    """File name -> text. Raises ConfigError naming the field of the specification that is missing or wrong."""
    run = to_yaml(run_config(spec, provider))
    if provider == "kuberay":
        files = {JOB_FILE: _yaml(spec, job_of(spec, run)), CLUSTER_FILE: _yaml(spec, cluster_of(spec))}
    elif provider == "slurm":
        files = {BATCH_FILE: batch_script(spec)}
    else:
        files = {LAUNCHER_FILE: _yaml(spec, [launcher(spec, provider)])}
    image = {"Dockerfile": dockerfile(provider), "requirements.txt": requirements(provider)}
    return {**files, RUN_FILE: run, **image}


def write(files: dict[str, str], folder: Path) -> None:
    """Write rendered files; what stands there by these names is replaced. Raises OutputError."""
    for name, text in files.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; choose another folder by --to") from error


def _yaml(spec: Spec, documents: list[dict[str, Any]]) -> str:
    head = f"# {spec.name}: rendered by diffii {__version__} from its specification; change that and render again.\n"
    return head + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """Without anchors, and with a file inside of a file as it is written: people read these."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)
