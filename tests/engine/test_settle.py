"""What is learned before the plan: contexts and concepts, once per data set, and part of what the data set is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

import diffii
from diffii.concepts.files import open_concepts, save_concepts
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, OutputError
from diffii.garments.catalog import CONTEXTS
from engine.caption_stage import SUFFIXES, TABLE
from engine.config import Config
from engine.expand import expand
from engine.prepare import load_run, prepare
from engine.progress import Silent
from engine.replay import replay
from engine.settings import from_flat
from engine.verify import verify
from tests.engine.sources import garments

# A driver that is killed after its learning is in the quick suite: test_cli.
pytestmark = pytest.mark.slow

FEW: dict[str, Any] = {
    "inversion.steps": 2,
    "inversion.micro_batch": 4,
    "generation.steps": 2,
    "generation.micro_batch": 4,
    "commit.chunk_size": 6,
    "output.shard_rows": 12,
    "expansion.factor": 2,
    "dedup.embedder": "off",
    "learn.steps": 3,
    "learn.batch": 4,
    "actors.max": 1,
}


class Heard(Silent):
    """Which stages there were, and what was said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        self.stages.append(name)


def config(source: Path, out: Path, **more: Any) -> Config:
    values = {key.replace("__", "."): value for key, value in more.items()}
    return from_flat({**FEW, "source.url": str(source), "output.url": str(out), **values})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=5, classes=2)


@pytest.fixture(scope="module")
def expanded(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> tuple[Path, list[str]]:
    out, heard = tmp_path_factory.mktemp("expanded") / "out", Heard()
    assert expand(config(source, out), heard).complete
    return out, heard.stages


def test_contexts_and_concepts_come_before_the_plan(expanded: tuple[Path, list[str]]) -> None:
    out, stages = expanded
    assert stages == ["caption", "learn", "invert", "generate"]
    assert verify(str(out)).ok
    run = load_run(str(out))
    learned = run.plan.learned
    assert set(learned.names) == {"Ankle boot", "Bag"}
    assert set(learned.suffixes) == set(CONTEXTS.values()), "each class has a photo in each of the five contexts"
    first = diffii.open(str(out)).recipe(0)
    assert learned.names[first["class"]] in first["prompt"]
    assert first["concepts"] == learned.concepts == run.history.opening.identity["concepts_digest"]  # type: ignore[union-attr]
    assert open_concepts(f"{out}/{layout.CONCEPTS}/{learned.concepts[:32]}").digest == learned.concepts
    assert all(learned.concepts[:16] in fingerprint for fingerprint in run.history.fingerprints)
    assert (out / TABLE).is_file() and len((out / SUFFIXES).read_text().splitlines()) == 5


def test_a_sample_with_a_concept_is_made_again_to_the_bit(expanded: tuple[Path, list[str]]) -> None:
    out, _ = expanded
    sample = diffii.open(str(out)).row(3)
    assert replay(str(out), str(sample["sample_id"])).identical


def test_a_run_that_goes_on_learns_nothing_anew(source: Path, expanded: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(expanded[0], tmp_path / "out"))
    heard = Heard()
    run = expand(config(source, out, expansion__factor=3), heard)
    assert heard.stages == ["generate"]
    assert run.complete and verify(str(out)).ok
    with pytest.raises(OutputError, match=r"learn\.steps: 3 there, 9 now"):
        prepare(config(source, out, learn__steps=9))
    with pytest.raises(OutputError, match=r"learn\.concepts: 'auto' there, 'off' now"):
        prepare(config(source, out, learn__concepts="off"))


def test_a_fork_takes_inversions_and_concepts_along(
    source: Path, expanded: tuple[Path, list[str]], tmp_path: Path
) -> None:
    out, heard = tmp_path / "new", Heard()
    assert expand(config(source, out, generation__split=0.9), heard, forks=[str(expanded[0])]).complete
    assert heard.stages == ["generate"]
    old, new = load_run(str(expanded[0])), load_run(str(out))
    assert new.plan.learned == old.plan.learned
    assert verify(str(out)).digest != verify(str(expanded[0])).digest
    heard = Heard()
    third = config(source, tmp_path / "third", learn__steps=2, captions__limit=2)
    assert expand(third, heard, forks=[str(expanded[0])]).complete
    assert heard.stages == ["learn", "invert", "generate"], "captions fit, concepts do not"
    assert len(load_run(str(tmp_path / "third")).plan.learned.suffixes) == 2
    there = {path.name for path in (expanded[0] / layout.INVERSIONS).rglob("*.safetensors")}
    taken = {path.name for path in (tmp_path / "third" / layout.INVERSIONS).rglob("*.safetensors")}
    assert there and not there & taken, "inversions of other concepts stay where they are"


def test_the_concepts_of_another_data_set_are_used_as_they_are(
    source: Path, expanded: tuple[Path, list[str]], tmp_path: Path
) -> None:
    concepts = load_run(str(expanded[0])).plan.learned.concepts
    place = f"{expanded[0]}/{layout.CONCEPTS}/{concepts[:32]}"
    heard = Heard()
    given: dict[str, Any] = {"learn__concepts": place, "captions__mode": "per-image"}
    expand(config(source, tmp_path / "out", **given), heard)
    assert "learn" not in heard.stages
    learned = load_run(str(tmp_path / "out")).plan.learned
    assert learned.concepts == concepts
    assert len(learned.suffixes) == 10, "one of each image"
    moved = shutil.move(place, tmp_path / "elsewhere")
    try:
        heard = Heard()
        assert expand(config(source, tmp_path / "out", **given), heard).complete, "they were taken into the data set"
        assert any("goes on with its own copy" in note for note in heard.notes)
        heard = Heard()
        expand(config(source, tmp_path / "out", **{**given, "learn__concepts": str(moved)}), heard)
        assert not heard.notes, "another place is the same concepts"
    finally:
        shutil.move(tmp_path / "elsewhere", place)
    others = open_concepts(place)
    save_concepts(dataclasses.replace(others, vectors=others.vectors + 1), Storage(str(tmp_path / "others")))
    with pytest.raises(OutputError, match="was begun with other concepts"):
        expand(config(source, tmp_path / "out", **{**given, "learn__concepts": str(tmp_path / "others")}))
    more = garments(tmp_path / "more", shots=1, classes=3)
    with pytest.raises(ModelError, match="the concepts know 2 classes, but not 'Coat'"):
        expand(config(more, tmp_path / "other", **given))


def test_switched_off_nothing_is_learned(source: Path, tmp_path: Path, ray_here: None) -> None:
    heard = Heard()
    expand(config(source, tmp_path / "out", learn__concepts="off", captions__method="off"), heard)
    assert heard.stages == ["invert", "generate"]
    row = diffii.open(str(tmp_path / "out")).row(0)
    assert row["suffix"] == "" and "<" not in diffii.open(str(tmp_path / "out")).recipe(0)["prompt"]


def test_suffixes_of_the_user_are_taken_instead_of_captions(source: Path, tmp_path: Path, ray_here: None) -> None:
    heard = Heard()
    expand(config(source, tmp_path / "out", learn__concepts="off", prompts__suffixes=["on grass"]), heard)
    assert "caption" not in heard.stages
    assert set(diffii.open(str(tmp_path / "out")).column("suffix").to_pylist()) == {"on grass"}


def test_classes_of_one_image_and_names_like_tokens(tmp_path: Path, ray_here: None) -> None:
    """Names are the user's: one that looks like a token of ours, one that a template could mistake, one not ASCII."""
    pool = garments(tmp_path / "pool", shots=2, classes=4)
    names = ["<c00001-0>", "a<b> {name}", "été 100%", "plain.1"]
    for folder, name in zip(sorted(pool.iterdir()), names, strict=True):
        folder.rename(pool / name)
    for image in sorted((pool / names[0]).iterdir())[1:]:
        image.unlink()
    given: dict[str, Any] = {"backbone__model": "garments", "prompts__template": "a photo of a {name}"}
    expand(config(pool, tmp_path / "out", captions__method="off", **given))
    snapshot = diffii.open(str(tmp_path / "out"))
    assert verify(str(tmp_path / "out")).ok
    assert set(snapshot.classes) == set(names)
    tokens = load_run(str(tmp_path / "out")).plan.learned.names
    assert len(set(tokens.values())) == 4
    for index in range(len(snapshot)):
        recipe = snapshot.recipe(index)
        assert recipe["prompt"] == f"a photo of a {tokens[recipe['class']]}"
    alone = snapshot.where([("class_name", "==", names[0])])
    assert len(alone) == 2 and all(alone.recipe(k)["partner"] == "diffused" for k in range(2))
