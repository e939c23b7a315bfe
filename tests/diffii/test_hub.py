"""Models of the hub, out of its own cache, and the names that other machines know models by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.captioner import CaptionerActor, CaptionerSpec, ImageToText
from actors.model import ActorSpec, ModelSpec, load, load_embedder
from diffii.contexts.captioner_files import captioner_everywhere
from diffii.contexts.subject import SubjectWords
from diffii.embedder_weights import embedder_everywhere
from diffii.errors import ModelError
from diffii.weights import EMBEDDED, EMBEDDED_DIR, locate, model_everywhere, weights_digest
from tests.diffii import captioners

OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of `birds/painter`, which knows an older commit and the newest."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "models--birds--painter"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(NEW)
    for commit in (OLD, NEW):
        shutil.copytree(EMBEDDED_DIR, folder / "snapshots" / commit)
    card = folder / "snapshots" / OLD / "scheduler" / "scheduler_config.json"
    card.write_text(card.read_text() + "\n")
    return folder


def test_a_revision_is_taken_if_one_is_given(repository: Path) -> None:
    assert locate("birds/painter") == repository / "snapshots" / NEW
    assert locate(f"birds/painter@{OLD}") == repository / "snapshots" / OLD
    with pytest.raises(ModelError, match=r"birds/painter@2+ is neither a local directory nor to be had from the hub"):
        locate(f"birds/painter@{'2' * 40}")


def test_a_name_for_every_machine(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_everywhere("birds/painter") == f"birds/painter@{NEW}"
    assert model_everywhere(f"birds/painter@{OLD}") == f"birds/painter@{OLD}"
    assert model_everywhere(EMBEDDED) == EMBEDDED
    assert embedder_everywhere("lite0") == "lite0"
    assert model_everywhere("s3://models/painter") == "s3://models/painter"
    captioners.blip(tmp_path / "blip")
    monkeypatch.chdir(tmp_path)
    assert captioner_everywhere("blip") == str(tmp_path / "blip")


def test_a_run_of_days_does_not_notice_that_a_repository_moves_on(repository: Path) -> None:
    planned = model_everywhere("birds/painter")
    (repository / "refs" / "main").write_text(OLD)
    assert locate("birds/painter") == repository / "snapshots" / NEW
    assert model_everywhere("birds/painter") == planned == f"birds/painter@{NEW}"


def test_a_machine_with_other_weights_computes_nothing(repository: Path) -> None:
    planned = weights_digest(locate("birds/painter"))
    new, old = (
        ModelSpec(model=f"birds/painter@{commit}", dtype="fp32", attention="sdpa", threads=1, weights=planned)
        for commit in (NEW, OLD)
    )
    assert load(new)
    with pytest.raises(ModelError, match=r"backbone\.model: birds/painter@0+ is not what it was .* the same files"):
        load(old)


def test_nor_does_one_with_another_embedder_or_captioner(tmp_path: Path) -> None:
    model = ModelSpec(model=EMBEDDED, dtype="fp32", attention="sdpa", threads=1)
    spec = ActorSpec(model=model, output_url=str(tmp_path), micro_batch=1, embedder="lite0", embedder_weights="others")
    with pytest.raises(ModelError, match=r"dedup\.embedder: lite0 is not what it was"):
        load_embedder(spec, 1)
    method = ImageToText(
        model=str(captioners.blip(tmp_path / "blip")),
        micro_batch=1,
        beams=1,
        max_tokens=4,
        subjects=SubjectWords.of(["bird"]),
        threads=1,
        weights="others",
    )
    with pytest.raises(ModelError, match=r"captions\.model: .*blip is not what it was"):
        CaptionerActor(CaptionerSpec(output_url=str(tmp_path / "out"), method=method))
