"""The command line as a user meets it: real processes, real Ray, killed in the middle."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import datasets
import pytest

import diffii as snapshots
from diffii.dataset import layout
from engine.verify import verify
from tests.cluster.commands import SMALL, diffii, kill_when, run
from tests.engine.sources import garments


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source") / "pool", shots=3)


@pytest.fixture(scope="module")
def quiet(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("quiet") / "out"
    return out, run("expand", source, out, *SMALL)


def test_expand_is_calm(quiet: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = quiet
    assert done.stdout.strip() == str(out / layout.CONTACT_SHEET)
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 6, done.stderr
    assert lines[-1].startswith("60 images in 8 shards, ")
    assert not [line for line in lines if "ray" in line.lower() or "warn" in line.lower()]


def test_verify_and_status_speak_json(quiet: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    found = json.loads(run("verify", quiet[0], "--json").stdout)
    assert found["rows"] == found["kept"] + found["rejected"] + found["poisoned"] == 60
    assert (found["short"], found["orphans"], found["reproducible"]) == (0, [], True)
    assert len(found["digest"]) == len(found["shards_digest"]) == 64
    assert json.loads(run("status", quiet[0], "--json").stdout)["state"] == "complete"
    assert "complete, 100 % of 60 rows decided" in run("status", quiet[0]).stdout


def test_again_says_complete_and_does_nothing(
    source: Path, quiet: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    began = time.monotonic()
    assert "is complete: nothing to do" in run("expand", source, quiet[0], *SMALL).stderr
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("moment", [pytest.param("inverting", marks=pytest.mark.slow), "generating", "committing"])
def test_a_killed_driver_is_taken_over(
    source: Path,
    quiet: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    moment: str,
) -> None:
    out = tmp_path / "out"
    signs = {
        "inverting": out / layout.INVERSIONS,
        "generating": out / layout.STAGING,
        "committing": out / layout.log_entry(3),
    }
    kill_when(diffii("expand", source, out, *SMALL), signs[moment].exists)
    broken = json.loads(run("verify", out, "--json", code=1).stdout)
    assert "no outcome yet" in broken["problems"][0]
    if moment == "committing":
        committed = len(snapshots.open(str(out)))
        assert 0 < committed < 60, "what is committed can be read before the run is complete"
        # Shards are packed ahead of their entries, so a reader that lists files may see some of them early.
        assert (
            committed <= datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf")).num_rows <= 60
        )
    run("expand", source, out, *SMALL)
    found, expected = verify(str(out)), verify(str(quiet[0]))
    assert found.problems == found.orphans == []
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)


def test_plan_says_what_and_how_long_and_writes_nothing(source: Path) -> None:
    before = sorted(source.parent.rglob("*"))
    found = json.loads(run("plan", source, "--json", *SMALL).stdout)
    assert (found["real_images"], found["classes"], found["synthetic_images"]) == (12, 4, 60)
    # 3 inversion batches of 4 images x 4 steps; 15 chunks of one batch of 4, both halves of the guidance, 3 steps.
    assert found["unet_calls"] == 3 * 4 + 15 * 3
    assert found["unet_rows"] == 3 * 4 * 4 + 15 * 3 * 8
    assert found["seconds"] > 0
    assert found["disk_bytes"] > 0
    assert sorted(source.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "generation.spilt=1"], "generation.spilt is no configuration key; did you mean generation.split?"),
        (["--set", "generation.split=1.5"], "generation.split=1.5: input should be less than or equal to 1"),
        (["--set", "backbone.model=./nowhere"], "backbone.model: ./nowhere is not a diffusers pipeline directory"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: there is no such file"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(source: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run("expand", source, tmp_path / "out", *arguments, code=2)
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_files_are_named_and_the_rest_is_expanded(tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=2, classes=2)
    (source / "Bag" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (source / "Empty").mkdir()
    done = run("expand", source, tmp_path / "out", *SMALL, "--set=backbone.model=garments")
    assert "skipped Bag/broken.png: " in done.stderr
    assert "skipped Empty/: the class folder holds no images" in done.stderr
    found = verify(str(tmp_path / "out"))
    assert (found.ok, found.kept, found.classes) == (True, 20, 2)


def test_missing_arguments_are_named() -> None:
    assert "SOURCE is missing" in run("expand", code=2).stderr
    assert "OUT is missing" in run("expand", "somewhere", code=2).stderr


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "demo")
    assert done.stdout.strip().endswith("demo/contact-sheet.png")
    found = verify(str(tmp_path / "demo"))
    assert (found.ok, found.kept, found.classes) == (True, 250, 10)
    assert "is complete: nothing to do" in run("demo", "--out", tmp_path / "demo").stderr
