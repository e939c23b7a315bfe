"""The whole way through a real Ray with the embedded model and few steps: from PNG files to committed shards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import pytest
from prometheus_client.parser import text_string_to_metric_families

import diffii
from diffii.dataset import layout
from diffii.dataset.storage import TEMPORARY
from diffii.errors import ConfigError, ModelError, OutputError, SourceError
from engine.config import Config
from engine.expand import expand
from engine.prepare import prepare
from engine.replay import replay
from engine.run import begin
from engine.settings import from_flat
from engine.status import status
from engine.verify import verify
from tests.engine.here import expand_here
from tests.engine.sources import PLAIN, garments

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 4,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "commit.chunk_size": 6,
    "output.shard_rows": 12,
    "expansion.factor": 4,
}


def config(source: Path, out: Path, **more: Any) -> Config:
    values = {key.replace("__", "."): value for key, value in more.items()}
    return from_flat({**SETTINGS, "source.url": str(source), "output.url": str(out), **values})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=2)


@pytest.fixture(scope="module")
def expanded(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    out = tmp_path_factory.mktemp("expanded") / "out"
    run = expand(config(source, out, actors__max=1), metrics=out.parent / "metrics.prom")
    assert run.complete
    return out


def test_everything_planned_is_decided_and_right(expanded: Path) -> None:
    found = verify(str(expanded))
    assert (found.problems, found.orphans) == ([], [])
    assert (found.rows, found.kept, found.rejected, found.poisoned, found.short) == (32, 32, 0, 0, 0)
    assert (found.shards, found.classes, found.reproducible) == (3, 4, True)


def test_the_engine_counts_what_it_does(expanded: Path) -> None:
    families = text_string_to_metric_families((expanded.parent / "metrics.prom").read_text())
    found = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert found["diffii_images_total",] == found["diffii_kept_total",] == 32
    assert found["diffii_chunks_total",] == 6
    assert found["diffii_log_version",] == 4
    assert found["diffii_published_bytes_total",] == sum(path.stat().st_size for path in (expanded / "data").iterdir())
    for stage in ("reading", "waiting", "computing", "encoding", "staging"):
        assert found["diffii_stage_seconds_count", stage] == 6, stage
    assert found["diffii_stage_seconds_count", "packing"] == found["diffii_stage_seconds_count", "appending"] == 3
    # The lock is held for the computing alone, near-copies being off.
    busy, computing = found["diffii_actor_seconds_total", "busy"], found["diffii_stage_seconds_sum", "computing"]
    assert busy == pytest.approx(computing, rel=0.05)
    # A shard, its sidecar, and the two chunks of it that were read.
    assert found["diffii_storage_calls_total", "packers"] == 3 * 4
    assert found["diffii_storage_calls_total", "actors"] > 6 * 3
    assert found["diffii_storage_calls_total", "driver"] > 3 * 3


@pytest.mark.slow
def test_two_actors_give_the_same_bytes(source: Path, expanded: Path, tmp_path: Path) -> None:
    expand(config(source, tmp_path / "out", actors__min=2, actors__max=2))
    one, two = verify(str(expanded)), verify(str(tmp_path / "out"))
    assert (two.digest, two.shards_digest) == (one.digest, one.shards_digest)
    for shard in sorted((expanded / layout.DATA).iterdir()):
        assert (tmp_path / "out" / layout.DATA / shard.name).read_bytes() == shard.read_bytes()


def test_what_ray_made_is_what_one_process_makes(source: Path, expanded: Path, tmp_path: Path) -> None:
    expand_here(config(source, tmp_path / "out"))
    made, here = verify(str(expanded)), verify(str(tmp_path / "out"))
    assert (here.digest, here.shards_digest) == (made.digest, made.shards_digest)


def test_datasets_opens_it_with_images_and_class_names(expanded: Path) -> None:
    loaded = datasets.load_dataset(str(expanded), split="train")
    assert len(loaded) == 32
    assert loaded.features["label"].names == ["Ankle boot", "Bag", "Coat", "Dress"]
    assert loaded[0]["image"].size == (32, 32)
    assert loaded[0]["class_name"] == loaded.features["label"].int2str(loaded[0]["label"])
    assert all(loaded["is_synthetic"])


def test_diffii_opens_it_at_any_version(expanded: Path) -> None:
    newest = diffii.open(str(expanded))
    assert (len(newest), newest.classes) == (32, ("Ankle boot", "Bag", "Coat", "Dress"))
    sizes = [len(diffii.open(str(expanded), version)) for version in range(newest.version + 1)]
    assert sizes == [0, 0, 12, 24, 32]
    assert newest.image(31).size == (32, 32)
    assert newest.row(0)["sample_id"] == diffii.open(str(expanded), 2).row(0)["sample_id"]
    with pytest.raises(IndexError):
        newest.row(32)


def test_it_leaves_a_picture_and_a_card(expanded: Path) -> None:
    from PIL import Image

    with Image.open(expanded / layout.CONTACT_SHEET) as sheet:
        assert sheet.width > 600
    card = (expanded / layout.CARD).read_text()
    assert "32 synthetic images of 4 classes in 3 shards, made from 8 real ones." in card
    assert "generation.split" in card


def test_again_does_nothing(source: Path, expanded: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (expanded / layout.OWN).rglob("*") if path.is_file()}
    assert prepare(config(source, expanded)).complete
    assert expand(config(source, expanded, actors__max=2)).complete
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_growing_makes_the_new_rows_only_and_equals_the_straight_way(
    source: Path, tmp_path: Path, ray_here: None
) -> None:
    expand(config(source, tmp_path / "grown", expansion__factor=1))
    first = sorted((tmp_path / "grown" / layout.DATA).iterdir())
    kept = {path.name: path.read_bytes() for path in first}
    expand(config(source, tmp_path / "grown", expansion__factor=2))
    expand(config(source, tmp_path / "straight", expansion__factor=2))
    assert all((tmp_path / "grown" / layout.DATA / name).read_bytes() == data for name, data in kept.items())
    assert verify(str(tmp_path / "grown")).ok
    assert verify(str(tmp_path / "grown")).digest == verify(str(tmp_path / "straight")).digest


class TestRefused:
    """What does not fit together is said before Ray or a model is needed, and nothing is written."""

    def test_other_settings(self, source: Path, expanded: Path) -> None:
        with pytest.raises(OutputError, match=r"generation\.split: 0\.3 there, 0\.5 now"):
            prepare(config(source, expanded, generation__split=0.5))

    def test_another_source(self, expanded: Path, tmp_path: Path) -> None:
        other = garments(tmp_path / "other", shots=1)
        with pytest.raises(OutputError, match=r"made from another source: 8 of the 8 images that it knows are not in "):
            prepare(config(other, expanded))

    def test_fewer_images(self, source: Path, expanded: Path) -> None:
        with pytest.raises(ConfigError, match="a data set only grows"):
            prepare(config(source, expanded, expansion__factor=2))

    @pytest.mark.parametrize("below", ["", "set"])
    def test_an_output_that_is_a_file(self, source: Path, tmp_path: Path, below: str) -> None:
        file = tmp_path / "thesis.txt"
        file.write_text("years of work")
        with pytest.raises(OutputError, match=r"thesis\.txt is a file, so no data set can be written to .*a folder"):
            prepare(config(source, file / below))
        assert file.read_text() == "years of work"

    def test_an_output_that_holds_something_else(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(OutputError, match=r"holds something else \(thesis\.txt\)"):
            prepare(config(source, tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]

    def test_not_what_a_run_left_that_died_before_its_first_entry(self, source: Path, tmp_path: Path) -> None:
        """Its card comes before the log: hours of learning lie between an empty folder and that moment."""
        run = prepare(config(source, tmp_path / "out"))
        with mock.patch.object(run.writer, "append", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            begin(run)
        assert (tmp_path / "out" / layout.CARD).exists()
        (tmp_path / "out" / f"{TEMPORARY}of_a_card").touch()
        begin(prepare(config(source, tmp_path / "out")))
        # A page alone is somebody's.
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / layout.CARD).write_text("my thesis")
        with pytest.raises(OutputError, match=r"holds something else \(README\.md\)"):
            prepare(config(source, tmp_path / "other"))

    def test_a_missing_model(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no-such-model is not a diffusers pipeline directory"):
            prepare(config(source, tmp_path / "out", backbone__model="./no-such-model"))

    def test_a_model_that_no_hub_gives(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="neither a local directory nor to be had from the hub"):
            prepare(config(source, tmp_path / "out", backbone__model="nobody/nothing"))

    def test_no_source(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="there is nothing there"):
            prepare(config(tmp_path / "nowhere", tmp_path / "out"))

    def test_xformers_without_a_gpu(self, source: Path, tmp_path: Path, ray_here: None) -> None:
        with pytest.raises(ModelError, match=r"backbone\.attention: xformers has no kernels for the CPU"):
            expand(config(source, tmp_path / "out", backbone__attention="xformers"))
        assert not (tmp_path / "out").exists()


class TestVerifyFinds:
    """Damage of every kind, each named."""

    @pytest.fixture
    def copy(self, expanded: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(expanded, tmp_path / "copy"))

    def test_a_changed_byte(self, copy: Path) -> None:
        shard = copy / layout.DATA / "train-00001.parquet"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        assert verify(str(copy)).problems == [
            "data/train-00001.parquet is not what was written (its hash differs); restore it from a copy"
        ]

    def test_a_missing_shard(self, copy: Path) -> None:
        (copy / layout.DATA / "train-00000.parquet").unlink()
        assert "train-00000.parquet is missing" in verify(str(copy)).problems[0]

    def test_rows_without_outcome(self, copy: Path) -> None:
        last = sorted((copy / layout.LOG).rglob("*.json"))[-1]
        last.unlink()
        (problem,) = verify(str(copy)).problems
        assert problem == "8 planned rows have no outcome yet; run the same expand command again"
        assert status(str(copy)).state == "incomplete"
        assert verify(str(copy)).short == 8

    def test_files_that_belong_to_nothing(self, copy: Path) -> None:
        (copy / layout.DATA / "train-00007.parquet").write_bytes(b"")
        (copy / layout.OWN / ".tmp-0123").write_bytes(b"half")
        (copy / layout.staged_chunk(0, 1)).write_bytes(b"late")
        found = verify(str(copy))
        assert found.ok, "orphans harm no reader"
        assert found.orphans == [
            "_diffii/.tmp-0123",
            "_diffii/staging/wave-0000/chunk-0000000001.parquet",
            "data/train-00007.parquet",
        ]

    def test_a_missing_log_entry(self, copy: Path) -> None:
        (copy / layout.log_entry(2)).unlink()
        with pytest.raises(OutputError, match="log entry 2 is missing"):
            verify(str(copy))

    def test_no_data_set(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="holds no data set of diffii"):
            verify(str(tmp_path))


def test_status_says_why_rows_were_lost(expanded: Path, tmp_path: Path) -> None:
    shutil.copytree(expanded / layout.OWN, tmp_path / layout.OWN)
    last = sorted((tmp_path / layout.LOG).rglob("*.json"))[-1]
    entry = json.loads(last.read_text())
    label = next(iter(entry["kept_per_class"]))
    entry["kept_per_class"][label] -= 3
    entry["lost"] = {"poisoned": {"0": "RuntimeError: x"}, "rejected": {"1": "constant", "3": "constant"}}
    last.write_text(json.dumps(entry))
    found = status(str(tmp_path))
    assert found.reasons == {"rejected: constant": 2, "poisoned: RuntimeError: x": 1}
    assert (found.kept, found.rejected, found.poisoned) == (29, 2, 1)


def test_status_counts(expanded: Path) -> None:
    found = status(str(expanded))
    assert (found.state, found.planned, found.decided, found.kept, found.staged) == ("complete", 32, 32, 32, 0)
    assert found.classes == {"Ankle boot": 8, "Bag": 8, "Coat": 8, "Dress": 8}


def test_a_sample_is_made_again_to_the_bit(expanded: Path) -> None:
    snapshot = diffii.open(str(expanded))
    for index in (0, 17):
        row = snapshot.row(index)
        found = replay(str(expanded), str(row["sample_id"]))
        assert found.identical
        assert (found.class_name, found.recipe) == (row["class_name"], row["recipe"])
    with pytest.raises(OutputError, match="has no sample 00ff"):
        replay(str(expanded), "00ff")
    with pytest.raises(ModelError, match="no-such-model"):
        replay(str(expanded), str(row["sample_id"]), model="./no-such-model")


@pytest.mark.parametrize("arm", ["noise", pytest.param("diff-mix", marks=pytest.mark.slow)])
def test_another_arm_is_expanded_verified_and_replayed(source: Path, tmp_path: Path, arm: str) -> None:
    expand_here(config(source, tmp_path / "out", arm__name=arm, expansion__factor=1))
    assert verify(str(tmp_path / "out")).ok
    snapshot = diffii.open(str(tmp_path / "out"))
    row = snapshot.row(3)
    assert replay(str(tmp_path / "out"), str(row["sample_id"])).identical
    inversions = tmp_path / "out" / layout.INVERSIONS
    if arm == "noise":
        assert not inversions.exists() and "label_weight" not in row
        assert (row["parent_a"], row["strength"]) == ("", 1.0)
    else:
        assert len(list(inversions.rglob("*.safetensors"))) == 8
        loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
        assert loaded.features["source_label"].names == list(snapshot.classes)
        assert all(s != label for s, label in zip(loaded["source_label"], loaded["label"], strict=True))
        assert {round(weight**2, 6) for weight in loaded["label_weight"]} <= {0.5, 0.7, 0.9}
    with pytest.raises(OutputError, match=rf"what still fits\. arm\.name: '{arm}' there, 'diff-ii' now$"):
        prepare(config(source, tmp_path / "out", expansion__factor=1))


def test_an_expanded_data_set_is_mixed_with_its_source(source: Path, expanded: Path) -> None:
    mixed = diffii.mix(source, diffii.open(str(expanded)), p=0.5, balanced=False)
    images = [mixed[place] for place in range(len(mixed))]
    assert len(images) == 8 and not mixed.soft
    assert [label for _, label in images] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(image.size == (32, 32) for image, _ in images)
