"""The image that all machines run: this Python, these versions, diffii itself, and no model's weights.

What is installed where the image is rendered is what it pins: the versions that were tried are those that run, and
driver and workers must have the same Python and Ray as each other.
"""

from __future__ import annotations

import functools
import platform
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.render.fill import fill
from cluster.spec import Provider
from diffii import __version__
from diffii.errors import ConfigError

HOME = "/home/ray"
EXTRAS: dict[str, tuple[str, ...]] = {
    "aws": ("cluster", "s3"),
    "gcp": ("cluster", "gcs"),
    "azure": ("cluster", "azure"),
    "kuberay": ("cluster", "s3", "gcs", "azure"),
    "slurm": ("cluster", "s3", "gcs", "azure"),
}
STARTS_MACHINES: dict[str, tuple[str, ...]] = {
    "aws": ("boto3>=1.35",),
    "gcp": ("google-api-python-client==1.7.8",),
    "azure": (
        "azure-common==1.1.28",
        "azure-core==1.35.0",
        "azure-identity==1.23.1",
        "azure-mgmt-compute==35.0.0",
        "azure-mgmt-network==29.0.0",
        "azure-mgmt-resource==24.0.0",
        "msrest==0.7.1",
        "msrestazure==0.6.4.post1",
    ),
}
"""What Ray calls its cloud by, where `ray up` is called and on the head; for Azure and GCP what Ray 2.60's own defaults
install. boto3 of the version that fits is found by pip: s3fs, which is pinned, demands a botocore of its own."""


def dockerfile(provider: Provider) -> str:
    """The Dockerfile. Its context is the rendered folder, with the wheel of diffii in it."""
    return fill(
        "Dockerfile.jinja",
        python=platform.python_version(),
        wheel=f"diffii-{__version__}-py3-none-any.whl",
        home=HOME,
        provider=provider,
    )


def requirements(provider: Provider) -> str:
    """Every package of the image, pinned to what is installed here; sorted, one a line."""
    pins = dict(_installed("diffii", EXTRAS[provider]))
    pins.pop("diffii", None)
    for wanted in STARTS_MACHINES.get(provider, ()):
        pins.setdefault(canonicalize_name(Requirement(wanted).name), wanted)
    return "".join(f"{pin}\n" for _, pin in sorted(pins.items()))


@functools.cache
def _installed(wanted_root: str, extras: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(name, pin) of a requirement and all that it requires. What is not installed here stays as it is required."""
    pins: dict[str, str] = {}
    root = canonicalize_name(Requirement(wanted_root).name)
    todo: list[tuple[str, tuple[str, ...], str]] = [(root, extras, wanted_root)]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        name, wanted, said = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == "diffii":
                raise ConfigError("diffii is not installed as a package here; pip install it, then render") from None
            pins.setdefault(name, said)
            continue
        # A build for another device (+cpu) is of the same version.
        pins[name] = f"{name}=={found.version.partition('+')[0]}"
        for line in found.requires or []:
            requirement = Requirement(line)
            if _wanted(requirement, wanted):
                plain = f"{requirement.name}{requirement.specifier}"
                more = tuple(sorted(requirement.extras))
                todo.append((canonicalize_name(requirement.name), more, plain))
    return tuple(pins.items())


def _wanted(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    # The image is Linux on x86-64, whatever this machine is.
    machine = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**machine, "extra": extra}) for extra in ("", *extras))
