"""A source gains images and a class while its data set is there: the same command goes on, and says so before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import diffii
from diffii.concepts.files import open_concepts
from diffii.dataset import layout
from diffii.errors import OutputError
from engine.estimate import estimate
from engine.expand import expand
from engine.export.export import export
from engine.prepare import load_run, prepare
from engine.replay import replay
from engine.status import status
from engine.verify import verify
from tests.engine.sources import garments
from tests.engine.test_settle import Heard, config

pytestmark = pytest.mark.slow

PLAIN: dict[str, Any] = {
    "learn__concepts": "off",
    "captions__method": "off",
    "prompts__suffixes": ["on grass"],
    "expansion__max_attempts": 1,
    "output__format": ["imagefolder"],
}
WHOLE: dict[str, Any] = {**dict(list(PLAIN.items())[3:]), "dedup__embedder": "lite0"}
"""Captions, concepts and near-copies as well: minutes."""


@pytest.fixture(scope="module", params=["plain", "whole"])
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> dict[str, Any]:
    """What a data set of two classes was, and what it is after one has an image more and a third has come."""
    folder, settings = tmp_path_factory.mktemp("grown"), WHOLE if request.param == "whole" else PLAIN
    every, source, out = garments(folder / "pool", shots=4, classes=3), folder / "source", folder / "out"
    names = sorted(path.name for path in every.iterdir())
    for name in names[:2]:
        shutil.copytree(every / name, source / name)
    late = sorted((source / names[0]).iterdir())[0]
    late.rename(folder / late.name)
    heard = Heard()
    expand(config(source, out, **settings), heard)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    known = load_run(str(out))
    first = {"stages": heard.stages, "rows": list(diffii.open(str(out)).column("sample_id").to_pylist())}
    (folder / late.name).rename(late)
    shutil.copytree(every / names[2], source / names[2])
    told = estimate(config(source, out, **settings), 2, "cpu")
    heard = Heard()
    run = expand(config(source, out, **settings), heard)
    return {
        "source": source, "out": out, "names": names, "before": before, "known": known, "heard": heard, "run": run,
        "estimate": told, "settings": settings, **first,
    }  # fmt: skip


def test_it_says_what_it_will_do_and_does_only_that(grown: dict[str, Any]) -> None:
    new = grown["names"][2]
    assert (
        grown["heard"]
        .notes[0]
        .endswith(
            f"has grown by 5 images, 1 new class among them: {new}. What there is stays as it is; "
            "10 images will be made of what is new"
        )
    )
    learned = ["caption", "learn"] if grown["settings"] is WHOLE else []
    assert grown["heard"].stages == [*learned, "invert", "generate"]
    assert grown["estimate"].synthetic_images == 10
    after = diffii.open(str(grown["out"]))
    rows = [after.row(index) for index in range(len(after))]
    assert [row["sample_id"] for row in rows[: len(grown["rows"])]] == grown["rows"]
    made = rows[len(grown["rows"]) :]
    assert 0 < len(made) <= 10 and {row["class_name"] for row in made} <= {grown["names"][0], new}
    fresh = {image.sha256 for image in grown["run"].source.images[7:]}
    assert len(fresh) == 5 and all(row["parent_a"] in fresh for row in made)


def test_what_was_there_keeps_its_bytes(grown: dict[str, Any]) -> None:
    told_anew = {layout.CARD, layout.CONTACT_SHEET}
    for path, data in grown["before"].items():
        name = path.relative_to(grown["out"]).as_posix()
        if name not in told_anew and not name.startswith((layout.CONTEXTS, layout.STAGING, "imagefolder/")):
            assert path.read_bytes() == data, name
    inversions = [path for path in grown["before"] if path.match(f"{layout.INVERSIONS}/*/*.safetensors")]
    assert len(inversions) == 7
    assert len(list(grown["out"].glob(f"{layout.INVERSIONS}/*/*.safetensors"))) == 12, "only new images were inverted"


def test_known_concepts_stay_and_a_class_is_added(grown: dict[str, Any]) -> None:
    out, run, known = grown["out"], grown["run"], grown["known"]
    if grown["settings"] is PLAIN:
        assert run.plan.learned.concepts == ""
        return
    before, after = (
        open_concepts(f"{out}/{layout.CONCEPTS}/{r.plan.learned.concepts[:32]}") for r in (known, load_run(str(out)))
    )
    assert after.extend(before) and not before.extend(after)
    assert list(after.tokens) == grown["names"]
    token = after.rows[after.tokens[grown["names"][2]][0]]
    assert torch.isfinite(after.vectors[token]).all() and not torch.equal(after.vectors[token], after.vectors[0])
    named = {row["class"]: row["concepts"] for row in map(diffii.open(str(out)).recipe, range(run.history.kept))}
    assert named[grown["names"][0]] == before.digest and named[grown["names"][2]] == after.digest


def test_it_is_whole_for_everyone_who_looks(grown: dict[str, Any]) -> None:
    out, names = str(grown["out"]), grown["names"]
    found = verify(out)
    assert (found.problems, found.orphans, found.reproducible) == ([], [], True)
    told = status(out)
    assert told.state == "complete" and told.targets == {names[0]: 8, names[1]: 8, names[2]: 8}
    assert diffii.open(out).classes == tuple(names)
    assert diffii.open(out, version=0).classes == tuple(names[:2]), "as it was at first"
    for index in (0, len(diffii.open(out)) - 1):
        assert replay(out, diffii.open(out).row(index)["sample_id"]).identical
    again = Heard()
    assert prepare(config(grown["source"], grown["out"], **grown["settings"])).complete
    expand(config(grown["source"], grown["out"], **grown["settings"]), again)
    assert again.stages == []


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_old_and_new_shards_as_one(grown: dict[str, Any], streaming: bool) -> None:
    rows: Any = datasets.load_dataset(str(grown["out"]), split="train", streaming=streaming)
    assert rows.features["label"].names == grown["names"]
    ours = diffii.open(str(grown["out"]))
    assert [row["label"] for row in rows] == ours.labels.tolist()


def test_a_copy_beside_it_is_the_copy_that_is_made_later(grown: dict[str, Any], tmp_path: Path) -> None:
    export(str(grown["out"]), str(tmp_path / "later"), "imagefolder")
    beside = {
        path.relative_to(grown["out"] / "imagefolder"): path for path in (grown["out"] / "imagefolder").rglob("*")
    }
    later = {path.relative_to(tmp_path / "later"): path for path in (tmp_path / "later").rglob("*")}
    assert beside.keys() == later.keys()
    files = [name for name, path in later.items() if path.is_file() and name.name != layout.CARD]
    assert all(beside[name].read_bytes() == later[name].read_bytes() for name in files)
    assert Counter(path.suffix for path in files)[".png"] == len(diffii.open(str(grown["out"])))


def test_images_may_not_go(grown: dict[str, Any], tmp_path: Path) -> None:
    source = Path(shutil.copytree(grown["source"], tmp_path / "source"))
    sorted((source / grown["names"][1]).iterdir())[0].unlink()
    with pytest.raises(OutputError, match=r"made from another source: 1 of the 12 images that it knows are not in"):
        prepare(config(source, grown["out"], **grown["settings"]))
    entry = json.loads(sorted(grown["out"].glob(f"{layout.LOG}/*/*.json"))[0].read_text())
    assert entry["classes"] == grown["names"][:2], "the log's beginning is as it was"
