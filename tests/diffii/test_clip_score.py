from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel
from transformers.models.clip import CLIPProcessor

from diffii.clip_score import ClipScore
from diffii.errors import ModelError
from diffii.garments.data import pool
from diffii.weights import EMBEDDED_DIR
from tests.diffii.clips import tiny_clip

TEXTS = ["a shoe", "a bag on grass, and so many more words than a model of sixteen places reads at once", "a top"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def _photos(count: int) -> np.ndarray:
    return np.repeat(np.pad(pool().pixels[:: 1000 // count][:count], ((0, 0), (2, 2), (2, 2)))[..., None], 3, axis=-1)


def test_it_is_the_cosine_of_image_and_text(clip: Path) -> None:
    images = _photos(3)
    found = ClipScore.load(str(clip), "cpu").score(images, TEXTS)
    model = CLIPModel.from_pretrained(clip).eval()
    processor: Any = CLIPProcessor.from_pretrained(clip)
    for image, text, score in zip(images, TEXTS, found, strict=True):
        with torch.inference_mode():
            inputs = processor(text=[text], images=[image], return_tensors="pt", truncation=True, max_length=16)
            picture = model.visual_projection(model.vision_model(inputs["pixel_values"]).pooler_output)[0]
            words = model.text_projection(model.text_model(inputs["input_ids"]).pooler_output)[0]
        cosine = float(torch.nn.functional.cosine_similarity(picture, words, dim=0))
        assert score == pytest.approx(100 * max(cosine, 0), abs=1e-3)
    assert found.max() > 0


def test_mates_change_nothing_and_numbers_must_agree(clip: Path) -> None:
    model = ClipScore.load(str(clip), "cpu")
    images = _photos(3)
    assert model.score(images[:1], TEXTS[:1]) == pytest.approx(model.score(images, TEXTS)[:1], abs=1e-4)
    with pytest.raises(ValueError, match="3 images and 1 texts"):
        model.score(images, TEXTS[:1])


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--clip .*nothing here"):
        ClipScore.load(str(tmp_path / "nothing here"))
    with pytest.raises(ModelError, match="it is no whole model of images and text"):
        ClipScore.load(str(EMBEDDED_DIR / "text_encoder"))
