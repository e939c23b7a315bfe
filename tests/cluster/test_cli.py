"""The command line as a user meets it: real processes, real Ray, killed in the middle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

import diffii as snapshots
from cluster.progress import SAY_EVERY
from diffii.dataset import layout
from diffii.dataset.driver import read_driver
from diffii.dataset.storage import Storage
from diffii.garments.catalog import CONTEXTS
from engine.caption_stage import SUFFIXES
from engine.prepare import load_run
from engine.replay import replay
from engine.verify import verify
from tests.cluster.commands import FEW_STEPS, SMALL, diffii, kill_when, run
from tests.engine.sources import garments


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source") / "pool", shots=3)


@pytest.fixture(scope="module")
def blemished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, with what is none among them: its settings are `BLEMISHED`."""
    place = Path(shutil.copytree(source, tmp_path_factory.mktemp("blemished") / "pool"))
    (place / "Bag" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (place / "Empty").mkdir()
    return place


# Which model draws the class of an empty folder cannot be told.
BLEMISHED = [*SMALL, "--set=backbone.model=garments"]
LEARNED = [
    *FEW_STEPS,
    "--set=backbone.model=garments",
    "--set=learn.steps=3",
    "--set=learn.batch=4",
    # Few steps give smears, which are near-copies of one another.
    "--set=dedup.embedder=off",
]
"""With contexts that are told from the images, and concepts."""


@dataclass(frozen=True)
class Expansion:
    """A complete data set, and what the command that completed it said in how many seconds."""

    out: Path
    said: subprocess.CompletedProcess[str]
    seconds: float


def expand(source: Path, out: Path, settings: list[str]) -> Expansion:
    began = time.monotonic()
    return Expansion(out, run("expand", source, out, *settings), time.monotonic() - began)


@pytest.fixture(scope="module")
def quiet(blemished: Path, tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    """Nothing went wrong."""
    return expand(blemished, tmp_path_factory.mktemp("quiet") / "out", BLEMISHED)


@pytest.fixture(scope="module")
def taken_over(blemished: Path, tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    """The driver of a whole run was killed while it committed, and the same command went on with more actors."""
    out = tmp_path_factory.mktemp("taken") / "out"
    kill_when(diffii("expand", blemished, out, *LEARNED), (out / layout.log_entry(3)).exists)
    broken = json.loads(run("verify", out, "--json", code=1).stdout)
    assert "no outcome yet" in broken["problems"][0]
    committed = len(snapshots.open(str(out)))
    assert 0 < committed < 60, "what is committed can be read before the run is complete"
    # Shards are packed ahead of their entries, so a reader that lists files may see some of them early.
    listed = datasets.load_dataset(str(out), split="train", cache_dir=str(out.parent / "hf")).num_rows
    assert committed <= listed <= 60
    return expand(blemished, out, [*LEARNED, "--actors=2"])


def test_expand_is_calm(taken_over: Expansion) -> None:
    out, done = taken_over.out, taken_over.said
    assert done.stdout.strip() == str(out / layout.CONTACT_SHEET)
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("60 images in 8 shards, ")
    told = [line for line in lines[:-1] if not line.startswith("skipped ")]
    assert told.pop(0).endswith(" is gone: taking over")
    assert all(line.startswith(("invert: ", "generate: ")) for line in told), done.stderr
    # Of each stage where it begins, its end, and perhaps that it waits for capacity; where a machine is slow, a line
    # every half minute.
    assert len(told) <= 2 * 3 + taken_over.seconds // SAY_EVERY, done.stderr
    assert not [line for line in lines if "ray" in line.lower() or "warn" in line.lower()]


def test_bad_files_are_named_and_the_rest_is_expanded(taken_over: Expansion) -> None:
    first, second = (line for line in taken_over.said.stderr.splitlines() if line.startswith("skipped "))
    assert first.startswith("skipped Bag/broken.png: ")
    assert second == "skipped Empty/: the class folder holds no images"
    found = verify(str(taken_over.out))
    assert (found.ok, found.kept, found.classes) == (True, 60, 4)


def test_contexts_and_concepts_come_before_the_plan(taken_over: Expansion) -> None:
    out, history = taken_over.out, load_run(str(taken_over.out)).history
    learned = load_run(str(out)).plan.learned
    assert set(learned.names) == {"Ankle boot", "Bag", "Coat", "Dress", "Empty"}
    assert set(learned.suffixes) <= set(CONTEXTS.values()) and len(learned.suffixes) >= 2
    first = snapshots.open(str(out)).recipe(0)
    assert learned.names[first["class"]] in first["prompt"]
    assert history.opening is not None
    assert first["concepts"] == learned.concepts == history.opening.identity["concepts_digest"]
    assert all(learned.concepts[:16] in fingerprint for fingerprint in history.fingerprints)
    assert len((out / SUFFIXES).read_text().splitlines()) == len(learned.suffixes)


def test_what_was_made_before_the_death_and_after_it_is_made_again_to_the_bit(taken_over: Expansion) -> None:
    made = snapshots.open(str(taken_over.out))
    for index in (0, 59):
        assert replay(str(taken_over.out), str(made.row(index)["sample_id"])).identical


def test_verify_and_status_speak_json(taken_over: Expansion) -> None:
    found = json.loads(run("verify", taken_over.out, "--json").stdout)
    assert found["rows"] == found["kept"] + found["rejected"] + found["poisoned"] == 60
    assert (found["short"], found["orphans"], found["reproducible"]) == (0, [], True)
    assert len(found["digest"]) == len(found["shards_digest"]) == 64
    assert json.loads(run("status", taken_over.out, "--json").stdout)["state"] == "complete"
    assert "complete, 100 % of 60 rows decided" in run("status", taken_over.out).stdout


def test_report_writes_a_page(taken_over: Expansion, tmp_path: Path) -> None:
    out, page = taken_over.out, tmp_path / "page.html"
    found = json.loads(run("report", out, "--to", page, "--json", "--images=20").stdout)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(page.with_suffix(".json").read_text(encoding="utf-8")) == found
    assert found["kept"] == 60 and found["measured"]["real"] <= 20
    assert run("report", out).stdout.strip() == f"{out}/{layout.REPORT_PAGE}"
    assert "holds no data set" in run("report", tmp_path, code=2).stderr
    assert "--source" in run("report", out, f"--source={tmp_path}", code=2).stderr


def test_again_says_complete_and_does_nothing(blemished: Path, taken_over: Expansion) -> None:
    again = expand(blemished, taken_over.out, LEARNED)
    assert "is complete: nothing to do" in again.said.stderr
    assert again.seconds < 60


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["inverting", "generating", "committing"])
def test_what_is_taken_over_is_what_a_quiet_run_makes(
    blemished: Path, quiet: Expansion, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    command = ["expand", blemished, out, *BLEMISHED]
    if moment == "generating":
        command.append("--actors=2")
    signs = {
        "inverting": out / layout.INVERSIONS,
        "generating": out / layout.STAGING,
        "committing": out / layout.log_entry(3),
    }
    kill_when(diffii(*command), signs[moment].exists)
    run(*command)
    found, expected = verify(str(out)), verify(str(quiet.out))
    assert found.problems == found.orphans == []
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_end_says_so_and_gives_up_its_output(
    blemished: Path, tmp_path: Path, told: signal.Signals
) -> None:
    """As a batch system or a cloud does before it takes the machine; Ray's own handler would print a stack and die."""
    out = tmp_path / "out"
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(diffii("expand", blemished, out, *BLEMISHED), stdout=said, stderr=said)
    until = time.monotonic() + 120
    while not (out / layout.INVERSIONS).exists():
        assert driver.poll() is None and time.monotonic() < until, (tmp_path / "said").read_text()
        time.sleep(0.1)
    assert read_driver(Storage(str(out))) is not None
    driver.send_signal(told)
    assert driver.wait(60) == 128 + told
    assert (tmp_path / "said").read_text().endswith("\nstopped; the same command goes on from here\n")
    assert read_driver(Storage(str(out))) is None, "the next one need not wait"


def test_plan_says_what_and_how_long_and_writes_nothing(source: Path) -> None:
    before = sorted(source.parent.rglob("*"))
    found = json.loads(run("plan", source, "--json", *SMALL, "--price=3600", "--spot-price=1800").stdout)
    assert (found["real_images"], found["classes"], found["synthetic_images"]) == (12, 4, 60)
    # 3 inversion batches of 4 images x 4 steps; 15 chunks of one batch of 4, both halves of the guidance, 3 steps.
    assert found["unet_calls"] == 3 * 4 + 15 * 3
    assert found["unet_rows"] == 3 * 4 * 4 + 15 * 3 * 8
    assert found["seconds"] > 0
    assert found["disk_bytes"] > 0
    cost = found["cost"]
    assert cost["on_demand"] == pytest.approx(found["seconds"] + 180)
    assert cost["lost_seconds"] == pytest.approx(1.5 * found["chunk_seconds"] + 180 + found["start_seconds"])
    assert cost["spot"] == pytest.approx(cost["on_demand"] / 2 / (1 - cost["overhead"]))
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


def test_missing_arguments_are_named() -> None:
    assert "SOURCE is missing" in run("expand", code=2).stderr
    assert "OUT is missing" in run("expand", "somewhere", code=2).stderr


@pytest.mark.slow
def test_a_study_that_cannot_be_measured_is_refused_before_ray_starts(tmp_path: Path) -> None:
    done = run("evaluate", tmp_path / "study", "--protocol=garments-fewshot", "--shots=101", code=2)
    assert done.stderr.strip() == "error: the pool has 100 photos per class, so shots must be 1 to 100"
    done = run("evaluate", tmp_path / "study", "--protocol=garments-fewshot", "--arms=real,difii", code=2)
    assert done.stderr.startswith("error: --arms difii: there are real, mixup, cutmix, diff-ii, noise")
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_study_of_ones_own_images_is_measured_and_told(source: Path, tmp_path: Path) -> None:
    held = garments(tmp_path / "held", shots=4)
    arguments = [f"--source={source}", f"--test={held}", "--classifier=lite0", "--arms=real,circle", "--seeds=2"]
    done = run("evaluate", tmp_path / "study", *arguments, "--tuning-seeds=0", "--factor=1", *SMALL)
    table = done.stdout.split()
    assert table[:5] == ["classifier", "arm", "accuracy,", "%", "over"]
    assert {"real", "circle", "2"} <= set(table)
    found = pq.read_table(tmp_path / "study" / "results.parquet").to_pylist()
    assert [(row["arm"], row["seed"], row["synthetic"]) for row in found] == [
        ("circle", 0, 12),
        ("circle", 1, 12),
        ("real", 0, 0),
        ("real", 1, 0),
    ]
    assert not [line for line in done.stderr.splitlines() if "ray" in line.lower() or "warn" in line.lower()]


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "demo")
    sheet, page = done.stdout.strip().splitlines()[-2:]
    assert sheet.endswith("demo/contact-sheet.png") and page.endswith("demo/_diffii/report/index.html")
    found = verify(str(tmp_path / "demo"))
    assert (found.ok, found.kept, found.classes) == (True, 250, 10)
    assert "is complete: nothing to do" in run("demo", "--out", tmp_path / "demo").stderr


@pytest.mark.slow
def test_a_second_driver_waits_and_goes_on_from_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(diffii("expand", source, out, *SMALL), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (out / layout.HEARTBEAT).exists():
        assert first.poll() is None
        time.sleep(0.05)
    assert json.loads(run("status", out, "--json").stdout)["state"] in ("running", "complete")
    second = run("expand", source, out, *SMALL, "--set=expansion.factor=6")
    first.communicate()
    assert first.returncode == 0
    assert f"process {first.pid} on " in second.stderr and "waiting for its end" in second.stderr
    found = verify(str(out))
    assert (found.ok, found.kept, found.orphans) == (True, 72, [])


@pytest.mark.slow
def test_a_fork_begins_anew_with_what_still_fits(blemished: Path, quiet: Expansion, tmp_path: Path) -> None:
    other = [*BLEMISHED, "--set=generation.split=0.9"]
    refused = run("expand", blemished, quiet.out, *other, code=2).stderr
    assert "generation.split: 0.3 there, 0.9 now" in refused and "--fork NEW_OUT" in refused
    new = tmp_path / "new"
    done = run("expand", blemished, quiet.out, *other, "--fork", new)
    assert f"12 files taken along from {quiet.out}" in done.stderr
    assert "invert" not in done.stderr
    assert verify(str(new)).ok
    assert verify(str(new)).digest != verify(str(quiet.out)).digest
    assert "that is the output itself" in run("expand", blemished, new, *other, "--fork", new, code=2).stderr


def test_repair_removes_what_belongs_to_nothing(taken_over: Expansion, tmp_path: Path) -> None:
    out = Path(shutil.copytree(taken_over.out, tmp_path / "out"))
    (out / layout.shard(99)).write_bytes(b"somebody's")
    assert "data/train-00099.parquet" in run("verify", out).stdout
    assert "removed data/train-00099.parquet" in run("verify", out, "--repair").stdout
    assert not (out / layout.shard(99)).exists()
    assert verify(str(out)).orphans == []


@pytest.mark.slow
def test_captions_and_concepts_can_be_had_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["--set=learn.steps=3", "--set=learn.batch=4", "--set=inversion.micro_batch=4"]
    said = run("caption", source, out, *settings).stdout.splitlines()
    assert said and set(said) <= set(CONTEXTS.values())
    done = run("learn", source, out, *settings)
    folder = Path(done.stdout.strip())
    assert (folder / "learned_embeds.safetensors").is_file()
    assert "caption" not in done.stderr
    few = ["--set=inversion.steps=2", "--set=generation.steps=2", "--set=dedup.embedder=off"]
    expanded = run("expand", source, out, *settings, *few, "--set=expansion.factor=1")
    assert "learn" not in expanded.stderr
    assert verify(str(out)).ok
    assert "is begun: what it was begun with stays" in run("learn", source, out, *settings, *few).stderr


@pytest.mark.slow
def test_a_held_out_set_is_reported_on(source: Path, tmp_path: Path) -> None:
    heldout = tmp_path / "heldout"
    heldout.mkdir()
    shutil.copytree(source / "Bag", heldout / "Bag")
    settings = [*SMALL, "--set=dedup.embedder=lite0", "--set=expansion.factor=1", f"--set=dedup.holdout={heldout}"]
    done = run("expand", source, tmp_path / "out", *settings)
    assert "leaks: 3 of 3 held-out images are shown in training: 3 of 12 real training images are the same file" in (
        " ".join(done.stderr.split())
    )
    leaks = pq.read_table(tmp_path / "out" / layout.LEAKS).to_pylist()
    assert sum(leak["exact"] for leak in leaks) == 3


@pytest.mark.slow
def test_further_formats_are_kept_beside_a_run_and_are_what_an_export_is(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = [*SMALL, "--set=expansion.factor=2", "--set=output.include_real=true"]
    run("expand", source, out, *settings, "--set=output.format=webdataset")
    assert verify(str(out)).problems == verify(str(out)).orphans == []
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    assert sorted(rows["is_synthetic"]) == [False] * 12 + [True] * 24
    done = run("export", out, tmp_path / "copy", "--format=webdataset", "--include-real")
    assert "36 of 36 images are new" in done.stderr and done.stdout.startswith("energon prepare ")
    tars = [path.relative_to(tmp_path / "copy") for path in sorted((tmp_path / "copy").glob("*/*.tar*"))]
    assert len(tars) == 2 * (3 + 2)
    for name in tars:
        assert (out / "webdataset" / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()
    # A format that is asked for of a complete run needs no Ray.
    late = run("expand", source, out, *settings, "--set=output.format=mds")
    assert f"{out}/mds: 36 images" in late.stderr and "nothing to do" in late.stderr
