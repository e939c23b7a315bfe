"""A report on a real small run: the embedded model, few steps, a class whose name is an attack."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import diffii
from diffii.clip_score import ClipScore
from diffii.dataset import layout
from diffii.dataset.history import History
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, OutputError, SourceError
from diffii.garments.catalog import CLASSES
from diffii.garments.judge import judge, load_judge
from engine.plan import Plan
from engine.prepare import load_run, prepare
from engine.report.angles import ClassOutcomes, Outcomes, outcomes
from engine.report.measure import Figures
from engine.report.page import Facts, render
from engine.report.pictures import EDGE, thumbnail
from engine.report.report import report, report_of, save_report, write_report
from engine.report.sample import Sample, draw
from engine.run import Run, begin
from engine.settings import from_flat
from engine.verify import verify
from tests.diffii.clips import tiny_clip
from tests.engine.here import expand_here
from tests.engine.sources import PLAIN, garments, imaginary

HOSTILE = "<script>alert('&')<"
SMALL: dict[str, Any] = {
    **PLAIN,
    "backbone.model": "garments",
    "inversion.steps": 4,
    "generation.steps": 3,
    "commit.chunk_size": 8,
    "output.shard_rows": 10,
    "expansion.factor": 4,
    "prompts.suffixes": ["on <b>grass</b>", "at night"],
    "dedup.embedder": "lite0",
    "dedup.alone": 0.75,
    "dedup.with_hash": 0.8,
    "expansion.max_attempts": 1,
    "actors.max": 1,
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thresholds are wide here, so that many rows are lost."""
    folder = tmp_path_factory.mktemp("report")
    source = garments(folder / "source", shots=3)
    expand_here(from_flat({**SMALL, "source.url": str(source), "output.url": str(folder / "out")}))
    return folder / "out"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return tiny_clip(tmp_path / "clip")


@pytest.fixture
def hostile(out: Path) -> Run:
    """The same with a class whose name is an attack, which is then none of the garments the judge knows."""
    run = load_run(str(out))
    source = replace(run.source, url=str(out.parent / "source"), classes=(HOSTILE, *run.source.classes[1:]))
    return replace(run, source=source)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself(out: Path) -> None:
    run, made = report_of(str(out))
    page = _Page(made.page)
    assert "script" not in page.tags and "link" in page.tags
    assert all(link.startswith("data:") for link in page.links)
    assert "url(" not in made.page and "@import" not in made.page
    assert page.tags.count("img") == sum(3 + min(10, kept) for kept in run.kept())
    assert len(made.page) < 5_000_000
    for name in run.source.classes:
        assert name in page.text
    assert run.plan.weights in page.text and run.history.shards.digest in page.text


def test_hostile_names_stay_text(hostile: Run) -> None:
    made = report(hostile)
    page = _Page(made.page)
    assert "script" not in page.tags
    assert HOSTILE in page.text and "on <b>grass</b>" in page.text
    assert "<script" not in made.page and "<b>grass" not in made.page


def test_the_figures_are_those_of_the_log(hostile: Run) -> None:
    run, made = hostile, report(hostile)
    found = json.loads(json.dumps(made.figures, allow_nan=False))
    assert found["kept"] == run.history.kept == sum(one["kept"] for one in found["classes"].values())
    lost = sum(sum(one["lost"].values()) for one in found["classes"].values())
    assert lost == run.history.count("rejected") + run.history.count("poisoned") > 0
    assert found["all"]["judged"] is None
    for one in [found["all"], *found["classes"].values()]:
        assert one["synthetic"] > 0 and one["real"] > 0
        for name in ("nearest", "precision", "recall", "coverage", "memorised"):
            assert one[name] is None or 0 <= one[name] <= 1, name


def test_angles_are_those_of_the_rows(out: Path) -> None:
    run = load_run(str(out))
    told = outcomes(run, draw(run))
    lost = {outcome: set() for outcome in range(4)}
    for entry in run.commits():
        first = entry.first * run.config.commit.chunk_size
        rows = run.plan.rows(run.waves[entry.wave], first, first + entry.rows)
        for reasons in entry.lost.values():
            for row in reasons:
                lost[rows[int(row)].label].add(rows[int(row)].phi)
    snapshot = diffii.open(str(out))
    assert told.complete and told.rows == run.history.rows
    for label, one in enumerate(told.classes):
        assert set(one.lost_phi) == lost[label]
        kept = snapshot.where([("label", "==", label)]).column("phi").to_pylist()
        assert sorted(one.kept_phi) == sorted(kept)


def test_the_judge_is_asked_on_garments(out: Path) -> None:
    _, made = report_of(str(out))
    snapshot = diffii.open(str(out))
    images = np.stack([np.asarray(snapshot.image(row)) for row in range(len(snapshot))])
    seen = np.array([CLASSES[k] for k in judge(load_judge(), images).fine.argmax(axis=1)])
    names = np.array([snapshot.classes[label] for label in snapshot.labels])
    assert made.figures["all"]["judged"] == pytest.approx(np.mean(seen == names))
    for name in snapshot.classes:
        assert made.figures["classes"][name]["judged"] == pytest.approx(np.mean(seen[names == name] == name))
    assert made.figures["all"]["judged_real"] > 0.5


def test_clip_is_asked_by_name(out: Path, clip: Path) -> None:
    _, made = report_of(str(out), clip=str(clip))
    snapshot, model = diffii.open(str(out)), ClipScore.load(str(clip), "cpu")
    images = np.stack([np.asarray(snapshot.image(row)) for row in range(len(snapshot))])
    recipes = [snapshot.recipe(row) for row in range(len(snapshot))]
    scores = model.score(images, [f"{recipe['prompt']} {recipe['suffix']}" for recipe in recipes])
    assert made.figures["all"]["clip"] == pytest.approx(scores.mean(), abs=1e-3)
    assert made.figures["all"]["clip_real"] > 0
    assert "CLIPScore" in made.page and "CLIPScore" not in report_of(str(out))[1].page


def test_it_lies_in_the_data_set_and_harms_nobody(out: Path) -> None:
    run, made = report_of(str(out))
    before = verify(str(out))
    assert write_report(made, run) == str(out / "_diffii/report/index.html")
    assert (out / layout.REPORT_PAGE).read_text(encoding="utf-8") == made.page
    assert json.loads((out / layout.REPORT_FIGURES).read_text(encoding="utf-8")) == made.figures
    assert verify(str(out)) == before and before.ok and not before.orphans
    assert len(datasets.load_dataset(str(out), split="train")) == run.history.kept
    for name in (layout.REPORT_PAGE, layout.REPORT_FIGURES):
        assert not [word for word in ("train", "test", "val", "dev", "eval") if word in name]


def test_it_is_found_from_its_own_folder(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out.parent)
    _, made = report_of(out.name)
    assert made.figures == report_of(str(out))[1].figures


def test_a_sample_is_even_seeded_and_said(out: Path) -> None:
    run = load_run(str(out))
    sample = draw(run, 4, seed=3)
    assert np.bincount(sample.labels).tolist() == [1, 1, 1, 1]
    assert np.bincount(sample.real_labels).tolist() == [1, 1, 1, 1]
    assert (draw(run, 4, seed=3).synthetic == sample.synthetic).all()
    assert (draw(run, 4, seed=4).synthetic != sample.synthetic).any()
    _, made = report_of(str(out), images=4, seed=3)
    assert made.figures["measured"] == {"synthetic": 4, "real": 4, "shards": len(run.history.shards)}
    assert "a sample of the same size for every class (seed 3)" in made.page


def test_the_same_data_give_the_same_page(out: Path) -> None:
    assert report_of(str(out))[1] == report_of(str(out))[1]


def test_anywhere_fsspec_reaches(out: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "memory://report-here", recursive=True)
    run, made = report_of("memory://report-here", source=str(out.parent / "source"))
    assert write_report(made, run) == "memory://report-here/_diffii/report/index.html"
    assert memory.cat_file("/report-here/_diffii/report/index.html") == made.page.encode()


def test_real_images_that_moved_are_asked_for(out: Path, tmp_path: Path) -> None:
    run = load_run(str(out))
    assert run.history.opening is not None
    assert run.history.opening.origin == str(out.parent / "source")
    with pytest.raises(SourceError, match="cannot be read any more"):
        report(run, source=str(tmp_path))
    moved = tmp_path / "moved"
    shutil.copytree(out.parent / "source", moved)
    assert report(run, source=str(moved)).figures["all"] == report(run).figures["all"]


def test_nothing_kept_yet_is_said(tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=1, classes=2)
    run = prepare(from_flat({**SMALL, "source.url": str(source), "output.url": str(tmp_path / "out")}))
    begin(run)
    with pytest.raises(OutputError, match="holds no image yet"):
        report(run)


def test_a_page_of_ones_own(out: Path, tmp_path: Path) -> None:
    _, made = report_of(str(out))
    save_report(made, tmp_path / "new" / "mine.html")
    assert (tmp_path / "new" / "mine.html").read_text(encoding="utf-8") == made.page
    assert json.loads((tmp_path / "new" / "mine.json").read_text(encoding="utf-8")) == made.figures
    with pytest.raises(OutputError, match=r"--to .*mine\.html"):
        save_report(made, tmp_path / "new" / "mine.json" / "mine.html")


def test_a_page_of_very_many_classes_stays_small(tmp_path: Path) -> None:
    classes = 5000
    source = imaginary([2] * classes, [f"a species with quite a long name, number {k}" for k in range(classes)])
    config = from_flat({**SMALL, "output.url": str(tmp_path)})
    run = Run(Storage(str(tmp_path)), config, source, Plan(config, source, "w" * 64), History())
    rows = pa.table({"label": [0], "phi": [1.0], "theta": [1.5]})
    each = [Figures(real=2, synthetic=10, nearest=0.5, distance=0.5, vendi=3.0, vendi_of=10.0)] * classes
    told = ClassOutcomes(kept=10, kept_phi=[0.1, 0.2], theta=1.5)
    facts = Facts(
        run=run,
        sample=Sample(rows, np.array([0]), source.images[:1], 1),
        seed=0,
        embedder="lite0",
        outcomes=Outcomes([told] * classes, 10, False),
        sheets=[],
        every=each[0],
        each=each,
        provenance={},
        licences=[],
    )
    page = render(facts)
    assert len(page) < 1_500_000
    assert "4000 more classes are in report.json" in page and "among the first 10 rows" in page


@pytest.mark.parametrize(("edge", "kind", "shown"), [(32, "png", 32), (EDGE, "webp", EDGE), (512, "webp", EDGE)])
def test_small_pictures_stay_as_they_are_and_large_ones_shrink(edge: int, kind: str, shown: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8))
    head, _, data = thumbnail(image.copy()).partition(";base64,")
    opened = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (head, opened.size) == (f"data:image/{kind}", (shown, shown))
    if kind == "png":
        assert np.array_equal(np.asarray(opened), np.asarray(image))


def test_a_wrong_embedder_is_named_by_its_option(out: Path) -> None:
    with pytest.raises(ModelError, match=r"^--embedder: ./nowhere does not load"):
        report_of(str(out), embedder="./nowhere")
