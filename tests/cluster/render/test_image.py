"""The image: pinned to what is installed here, with Ray's dashboard and the storage's package, and no model in it."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from cluster.render import render
from cluster.spec import Provider
from tests.cluster.specs import birds


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure", "kuberay", "slurm"])
def test_every_package_is_pinned_that_is_installed(provider: Provider) -> None:
    lines = render(birds(provider), provider)["requirements.txt"].splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert lines == sorted(lines, key=lambda line: re.split("[=<>]", line)[0])
    for name in ("ray", "torch", "diffusers", "pyarrow", "aiohttp", "opencensus"):
        assert pins[name] == metadata.version(name).partition("+")[0]
    # Tools of development stay out.
    assert not {"pytest", "ruff", "moto", "datasets"} & set(pins)
    store = {"aws": "s3fs", "gcp": "gcsfs", "azure": "adlfs"}.get(provider, "s3fs")
    assert any(re.match(rf"{store}[=<>]", line) for line in lines)


def test_ray_on_the_head_can_call_its_cloud() -> None:
    """With any botocore that the storage's package may demand: boto3's version is not ours to say."""
    lines = render(birds("aws"), "aws")["requirements.txt"].splitlines()
    botocore = metadata.version("botocore")
    assert f"botocore=={botocore}" in lines
    (boto3,) = [line for line in lines if line.startswith("boto3")]
    assert Requirement(boto3).specifier.contains(botocore)
    assert "google-api-python-client==1.7.8" in render(birds("gcp"), "gcp")["requirements.txt"]


def test_the_dockerfile_downloads_no_model() -> None:
    text = render(birds("aws"), "aws")["Dockerfile"]
    assert re.search(r"^FROM --platform=linux/amd64 python:3\.\d+\.\d+-slim-bookworm$", text, re.MULTILINE)
    assert not re.search(r"huggingface|safetensors|snapshot_download|from_pretrained", text)
    # Ray on the head starts the workers by these; the machines are no Macs with Apple's chips.
    assert {"openssh-client", "rsync"} <= set(text.split())
    assert "RAY_AUTH_MODE=token" in text and re.search(r"^USER ray$", text, re.MULTILINE)
    (wheel,) = re.findall(r"diffii-\S+\.whl", text.split("\n")[10]) or re.findall(r"COPY .* (diffii-\S+\.whl)", text)
    assert wheel.startswith(f"diffii-{metadata.version('diffii')}-")
