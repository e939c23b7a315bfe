"""Captioners of three architectures through the real loading path: the same words for an image, whatever its mates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffii.contexts.captioner import Captioner
from diffii.contexts.captioner_files import captioner_digest
from diffii.errors import ModelError
from tests.diffii import captioners

KINDS: list[Callable[[Path], Path]] = [captioners.blip, captioners.git, captioners.vit_gpt2]


def pictures(count: int, edge: int = captioners.EDGE) -> np.ndarray:
    """Random images, each of another brightness, so that even random models tell them apart."""
    images = np.random.default_rng(0).integers(0, 256, (count, edge, edge, 3))
    return (images // (1 + np.arange(count)[:, None, None, None])).astype(np.uint8)


def load(folder: Path, micro_batch: int = 2, beams: int = 2) -> Captioner:
    return Captioner.load(str(folder), micro_batch, beams=beams, max_tokens=8, device="cpu")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioners.blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture
def copy(blip: Path, tmp_path: Path) -> Path:
    """A model to spoil."""
    for file in blip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_any_architecture_captions_and_batch_mates_do_not_matter(build: Callable[[Path], Path], tmp_path: Path) -> None:
    captioner = load(build(tmp_path))
    images = pictures(5)
    captions = captioner.captions(images)
    assert len(captions) == 5 and len(set(captions)) > 1
    assert {word for caption in captions for word in caption.split()} <= set(captioners.WORDS)
    assert captioner.captions(images[::-1]) == captions[::-1]
    assert captioner.captions(images[3:4]) == captions[3:4]
    assert load(tmp_path).captions(images) == captions


def test_it_is_what_transformers_itself_writes(blip: Path) -> None:
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    images = pictures(2)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.25
    model = BlipForConditionalGeneration.from_pretrained(blip).eval()
    ids = model.generate(pixel_values=x, do_sample=False, num_beams=1, max_new_tokens=8)
    wanted = AutoTokenizer.from_pretrained(blip).batch_decode(ids, skip_special_tokens=True)
    assert load(blip, beams=1).captions(images) == [text.strip() for text in wanted]


def test_every_call_has_the_same_number_of_rows() -> None:
    shapes: list[tuple[int, ...]] = []

    def generate(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return x[:, 0, 0, 0]

    captioner = Captioner(
        generate, lambda ids: [" two   words " for _ in ids], 8, (0.5,) * 3, (0.5,) * 3, 4, torch.device("cpu")
    )
    assert captioner.captions(np.zeros((9, 8, 8, 3), np.uint8)) == ["two words"] * 9
    assert shapes == [(4, 3, 8, 8)] * 3
    assert captioner.captions(np.zeros((0, 8, 8, 3), np.uint8)) == []


@pytest.mark.parametrize("wrong", [np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 32, 32, 3), np.float32)])
def test_other_images_are_refused(blip: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, 32, 32, 3\)"):
        load(blip).captions(wrong)


def test_numbers_below_one_are_refused(blip: Path) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Captioner.load(str(blip), 0)


# -- models that do not serve -----------------------------------------------------------------------------------------


def test_what_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"captions\.model: .*not a directory of a transformers model"):
        load(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"captions\.model: some/captioner is neither .* captions\.method=diffusion"):
        Captioner.load("some/captioner", 2)


def test_a_pickle_is_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelError, match="no safetensors file, and weights in a pickle"):
        load(copy)


def test_missing_weights_are_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "crossattention" in name)
    del tensors[lost]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"incomplete: it has no {lost}"):
        load(copy)


def test_a_file_cut_short_is_one_line(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"captions\.model: .* does not load") as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_without_the_preprocessors_file_nothing_is_guessed(copy: Path) -> None:
    file = copy / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        load(copy)
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert load(copy).edge == captioners.EDGE
    file.write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        load(copy)


def test_a_model_without_a_tokenizer_is_refused(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(ModelError, match=r"captions\.model: .* has no tokenizer"):
        load(copy)


def test_a_model_of_another_kind_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="does not load as a transformers image-to-text model"):
        load(copy)


def test_its_digest_is_of_what_it_computes_with(copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(copy, tmp_path / "moved"))
    (moved / "pytorch_model.bin").write_bytes(b"another framework's copy")
    assert captioner_digest(str(moved)) == captioner_digest(str(copy))
    settings = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.0, 0.0, 0.0]}))
    assert captioner_digest(str(moved)) != captioner_digest(str(copy))
