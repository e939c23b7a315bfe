"""The embedded default: what ships, what it may not have seen, and that it still draws what it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from diffii.backbone import Backbone
from diffii.circle import gaussian
from diffii.denoise import denoise
from diffii.garments.__main__ import main
from diffii.garments.build.vocabulary import new_tokenizer
from diffii.garments.catalog import CLASSES, COARSE, COARSE_OF, CONTEXTS, NOVEL, caption
from diffii.garments.data import WEIGHTS, export_pool, heldout, pool, validation
from diffii.garments.judge import judge, load_judge
from diffii.garments.scene import compose
from diffii.weights import EMBEDDED_DIR


def test_the_photos_are_as_many_as_said() -> None:
    assert pool().pixels.shape == (1000, 28, 28)
    assert heldout().pixels.shape == (2000, 28, 28)
    assert np.bincount(pool().labels).tolist() == [100] * 10
    assert np.bincount(heldout().labels).tolist() == [200] * 10
    assert np.bincount(validation().labels).tolist() == [30] * 10
    sets = [{photo.tobytes() for photo in photos.pixels} for photos in (pool(), validation(), heldout())]
    assert len(set().union(*sets)) == sum(map(len, sets)), "no photo is in two of them"


def test_every_class_has_a_coarse_word_and_novel_ones_are_classes() -> None:
    assert set(COARSE_OF) == set(CLASSES)
    assert set(COARSE_OF.values()) == set(COARSE)
    assert set(NOVEL) < set(CLASSES)


def test_the_model_is_a_pipeline_of_at_most_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_DIR.rglob("*") if path.is_file()) < 12e6
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED_DIR, safety_checker=None)
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    stored = {path.suffix for path in EMBEDDED_DIR.rglob("*") if path.is_file()}
    assert stored == {".json", ".safetensors", ".txt", ".md"}, "no pickle"


def test_caption_words_are_tokens_and_other_text_is_never_unknown() -> None:
    tokenizer = new_tokenizer()
    for name in COARSE:
        for context in (None, *CONTEXTS):
            text = caption(name, context)
            assert len(tokenizer(text).input_ids) == len(text.split()) + 2
    assert tokenizer.eos_token_id not in tokenizer("été <x> 日本").input_ids[1:-1]


@pytest.mark.parametrize("context", list(CONTEXTS))
def test_a_scene_is_a_function_of_photo_context_and_seed(context: str) -> None:
    photo = pool().pixels[0]
    first = compose(photo, context, 7)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == compose(photo, context, 7).tobytes()
    assert first.tobytes() != compose(photo, context, 8).tobytes()


def test_a_scene_refuses_what_is_no_photo() -> None:
    with pytest.raises(ValueError, match="uint8 28x28"):
        compose(np.zeros((32, 32), np.uint8), "grass", 0)
    with pytest.raises(ValueError, match="moon"):
        compose(pool().pixels[0], "moon", 0)


def test_the_judge_names_photos_and_contexts() -> None:
    rows = np.arange(0, 2000, 8)
    names = list(CONTEXTS)
    images = np.stack([compose(heldout().pixels[row], names[k % 5], k) for k, row in enumerate(rows)])
    verdict = judge(load_judge(), images)
    assert (verdict.fine.argmax(1) == heldout().labels[rows]).mean() > 0.85
    assert (verdict.context.argmax(1) == np.arange(len(rows)) % 5).mean() > 0.98
    np.testing.assert_allclose(verdict.coarse.sum(1), 1.0, rtol=1e-4)


def test_the_model_draws_the_class_and_the_context_it_is_asked_for() -> None:
    backbone = Backbone.load("garments", device="cpu")
    wanted = [(coarse, context) for coarse in COARSE for context in CONTEXTS]
    prompts = [caption(coarse, context) for coarse, context in wanted]
    noise = torch.from_numpy(np.stack([gaussian(k, backbone.latent_shape) for k in range(len(wanted))]))
    latents = denoise(backbone, noise, prompts, prompts, backbone.grid(12, "matched"), 1.0, 3.0)
    images = (np.clip(backbone.decode(latents), 0, 1) * 255).astype(np.uint8)
    verdict = judge(load_judge(), images)
    named = [COARSE[k] for k in verdict.coarse.argmax(1)]
    placed = [list(CONTEXTS)[k] for k in verdict.context.argmax(1)]
    assert np.mean([a == coarse for a, (coarse, _) in zip(named, wanted, strict=True)]) >= 0.9
    assert np.mean([a == context for a, (_, context) in zip(placed, wanted, strict=True)]) >= 0.9


@pytest.mark.parametrize("dtype", [pytest.param("bf16", marks=pytest.mark.slow), "fp16"])
def test_half_precision_on_the_cpu_is_close(dtype: str) -> None:
    exact = Backbone.load("garments", device="cpu")
    half = Backbone.load("garments", dtype=dtype, device="cpu")  # pyright: ignore[reportArgumentType]
    noise = torch.from_numpy(np.stack([gaussian(k, exact.latent_shape) for k in range(2)]))
    prompts = ["a photo of a bag on sand"] * 2
    pictures = [
        model.decode(denoise(model, noise, prompts, prompts, model.grid(3, "matched"), 1.0, 3.0))
        for model in (exact, half)
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.05
    assert half.record.dtype == {"bf16": "bfloat16", "fp16": "float16"}[dtype]


def test_export_deals_contexts_evenly(tmp_path: Path) -> None:
    assert export_pool(tmp_path, 5) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CLASSES)
    for folder in tmp_path.iterdir():
        assert sorted(path.stem.split("-")[1] for path in folder.iterdir()) == sorted(CONTEXTS)
    with Image.open(next((tmp_path / "Bag").iterdir())) as image:
        assert image.size == (32, 32)
    with pytest.raises(ValueError, match="shots must be 1 to 100"):
        export_pool(tmp_path, 101)


def test_the_module_exports_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "pool"), "--shots", "2", "--seed", "7"])
    assert capsys.readouterr().out == f"20 images in {tmp_path / 'pool'}\n"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "more"), "--shots", "101"])
    assert "shots must be 1 to 100" in capsys.readouterr().err


def test_weights_are_where_the_package_looks() -> None:
    assert {path.name for path in WEIGHTS.iterdir()} >= {
        "model",
        "judge.safetensors",
        "pool.parquet",
        "validation.parquet",
        "heldout.parquet",
    }
