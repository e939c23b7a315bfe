"""Machines that will not do; the fault is planted in the machine where that can be done, else in what it tells."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.doctor.facts import Facts, facts
from cluster.doctor.finding import Finding, together
from cluster.doctor.machines import (
    CLOCK_SECONDS,
    check_clock,
    check_disk,
    check_gpu,
    check_open_files,
    check_shm,
    check_versions,
)

ELSEWHERE = """
import dataclasses, json
from cluster.doctor.facts import facts
print(json.dumps(dataclasses.asdict(facts())))
"""


def elsewhere(shell: str = "", **environment: str) -> Facts:
    """The facts of another process, in a shell that was told something first."""
    command = f"{shell} exec {sys.executable} -c '{ELSEWHERE}'"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Facts(**json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def mine() -> Facts:
    return facts()


def test_this_machine_is_as_it_is(mine: Facts) -> None:
    found = [*check_versions([mine], mine), check_gpu(mine), check_clock(mine)]
    assert all(finding.ok for finding in found)
    assert f"ray {mine.versions['ray']}" in found[0].said


def test_another_version_on_a_machine_is_named(mine: Facts, tmp_path: Path) -> None:
    """An older diffusers, found before the right one."""
    record = tmp_path / "diffusers-0.1.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text("Metadata-Version: 2.1\nName: diffusers\nVersion: 0.1\n", encoding="utf-8")
    other = dataclasses.replace(elsewhere(PYTHONPATH=str(tmp_path)), node="worker-3")
    well, ill = check_versions([mine, other], mine)
    assert well.ok and not ill.ok and ill.node == "worker-3"
    assert ill.said == f"diffusers 0.1 where the driver has {mine.versions['diffusers']}"
    assert "one image on all machines" in ill.mend


def test_too_few_open_files() -> None:
    found = check_open_files(elsewhere("ulimit -n 512;"))
    assert not found.ok and found.said == "512 at most" and "--ulimit nofile=65536" in found.mend


def test_a_full_disk_and_a_small_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system without any room that every Linux has.
    full = facts(disk="/proc", shm="/proc")
    disk, shared = check_disk(full), check_shm(full)
    assert not disk.ok and disk.said == "0.0 GB free at /proc" and "HF_HOME" in disk.mend
    assert not shared.ok and "--shm-size" in shared.mend
    assert not check_shm(facts(shm="/nowhere")).ok
    monkeypatch.setattr("cluster.doctor.facts.sys.platform", "darwin")
    assert check_shm(facts(shm="/nowhere")).ok, "macOS has none, and Ray wants none there"


def test_shared_memory_must_hold_the_object_store(mine: Facts) -> None:
    assert check_shm(dataclasses.replace(mine, shm_size=8 * 10**9, object_store=6 * 10**9)).ok
    assert not check_shm(dataclasses.replace(mine, shm_size=8 * 10**9, object_store=9 * 10**9)).ok


def test_a_gpu_that_ray_counts_and_torch_does_not_see(mine: Facts) -> None:
    found = check_gpu(dataclasses.replace(mine, ray_gpus=1.0, gpus=[], driver="550.54"))
    assert not found.ok and found.said == "Ray counts 1, torch sees none, driver 550.54"


@pytest.mark.parametrize("offset", [CLOCK_SECONDS + 1, -CLOCK_SECONDS - 1])
def test_a_clock_that_is_off(mine: Facts, offset: float) -> None:
    found = check_clock(dataclasses.replace(mine, clock_offset=offset))
    assert not found.ok and "31 s" in found.said and "time server" in found.mend
    assert check_clock(dataclasses.replace(mine, clock_offset=offset / 2)).ok


def test_what_is_well_everywhere_is_one_line() -> None:
    found = [
        Finding("disk", "much", node="a"),
        Finding("disk", "none", "make room", "b"),
        Finding("disk", "much", node="c"),
    ]
    assert [str(line) for line in together(found)] == [
        "ok    disk             much (2 machines)",
        "wrong disk             none (b); make room",
    ]
