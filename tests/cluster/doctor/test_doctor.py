"""`diffii doctor` as a user calls it: what is wrong is a line with its mend, and exit status 1."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.doctor.finding import Finding
from cluster.doctor.model import check_attention, check_model, check_source
from diffii.weights import EMBEDDED_DIR
from engine.settings import from_flat
from tests.cluster.commands import diffii
from tests.cluster.head import Head, head


def wrong(found: Finding, said: str) -> bool:
    return not found.ok and said in found.said and bool(found.mend)


def test_a_model_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_model(from_flat({"backbone.model": "garments"})).ok
    assert wrong(check_model(from_flat({"backbone.model": str(tmp_path)})), "no model_index.json in it")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert wrong(check_model(from_flat({"backbone.model": "nobody/nothing"})), "HF_HUB_OFFLINE forbids it")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert wrong(check_model(from_flat({"backbone.model": "nobody/nothing"})), "not to be had from the hub: ConnectE")
    (tmp_path / "model_index.json").write_text("{}")
    assert wrong(check_model(from_flat({"backbone.model": str(tmp_path)})), "is incomplete")
    assert check_model(from_flat({"backbone.model": str(EMBEDDED_DIR)})).ok


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_an_attention_kernel_that_does_not_answer() -> None:
    assert check_attention(from_flat({})).ok
    assert wrong(check_attention(from_flat({"backbone.attention": "xformers"})), "xformers has no kernels for the CPU")


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    assert check_source(from_flat({"source.url": str(tmp_path)})).ok
    assert wrong(check_source(from_flat({"source.url": str(tmp_path / "none")})), "there is nothing")


def doctor(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, dict[str, Finding]]:
    done = subprocess.run(
        diffii("doctor", *arguments, "--json"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stdout, done.stderr
    found = [Finding(**fields) for fields in json.loads(done.stdout)["findings"]]
    return done.returncode, {finding.what: finding for finding in found}


def settings(folder: Path, **changed: object) -> Path:
    source = folder / "source"
    source.mkdir(exist_ok=True)
    tree = {"source": {"url": str(source)}, "output": {"url": str(folder / "out")}, "backbone": {"model": "garments"}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**tree, **changed}), encoding="utf-8")
    return path


def test_faults_of_this_machine_are_found_and_told(tmp_path: Path) -> None:
    config = settings(tmp_path, backbone={"model": "/nowhere/model", "attention": "sdpa"})
    limited = " ".join(["ulimit -n 512; exec", *diffii("doctor", "--config", config)])
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=200, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    ill = [line.split()[1] for line in lines if line.startswith("wrong ")]
    assert {"open", "model"} <= set(ill) and not {"output", "exclusive", "attention", "versions", "source"} & set(ill)
    assert [line for line in lines if line.startswith("ok    exclusive create")]


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    code, found = doctor("--address", "http://127.0.0.1:1", environment=environment)
    assert code == 1 and wrong(found["cluster"], "does not answer; is the cluster up, and the tunnel open")


@pytest.fixture(scope="module")
def running() -> Iterator[Head]:
    # A GPU that is counted and is not there, as where a container has no driver.
    with head(gpus=1) as started:
        yield started


@pytest.mark.cluster
def test_a_cluster_is_looked_at_by_a_job_in_it(running: Head, tmp_path: Path) -> None:
    code, found = doctor("--address", running.address, "--config", settings(tmp_path), environment=running.environment)
    assert code == 1 and wrong(found["GPU"], "Ray counts 1, torch sees none")
    for what in ("cluster", "versions", "clock", "attention", "model", "source", "output", "exclusive create"):
        assert found[what].ok, found[what]
    stranger = {**running.environment, "RAY_AUTH_TOKEN": "0" * 64}
    code, found = doctor("--address", running.address, environment=stranger)
    assert code == 1 and wrong(found["cluster"], "does not know this token")
