"""Concepts as files: ours in diffusers' hands, what exists in the wild in ours, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from diffii.backbone import Backbone
from diffii.concepts.files import ABOUT, LORA, VECTORS, open_concepts, read_concepts, save_concepts
from diffii.concepts.lesson import Lesson
from diffii.concepts.loop import learn
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.dataset.storage import Storage
from diffii.denoise import denoise
from diffii.errors import ModelError, OutputError
from tests.diffii.stable_diffusion import SMALL, build, write_attn_procs_lora

pytest_plugins = ["tests.s3"]

CLASSES = ("Boeing 737-800", "a.1/<c00001-0> ü", "sp arrow")
SETTINGS = LearnSettings(
    steps=4, batch=3, tokens=2, rank=2, token_lr=0.05, lora_lr=0.05, warmup=0, check_every=2, check_rows=3
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build(tmp_path_factory.mktemp("small") / "model", SMALL)


@pytest.fixture(scope="module")
def backbone(model: Path) -> Backbone:
    return Backbone.load(str(model), dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def concepts(backbone: Backbone) -> Concepts:
    lesson = Lesson(classes=CLASSES, words=("plane", "bird", "bird"), labels=(0, 1, 2), metaclass="thing")
    pixels = np.random.default_rng(0).integers(0, 256, (3, *(backbone.image_size,) * 2, 3), dtype=np.uint8)
    return learn(backbone, lesson, pixels, SETTINGS)


def refusal(call: Callable[[], object], kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    return message


# Ours.


def test_what_is_saved_opens_again_the_same(concepts: Concepts, tmp_path: Path) -> None:
    save_concepts(concepts, Storage(str(tmp_path)), "inside")
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {VECTORS, LORA, ABOUT}
    for url in (tmp_path / "inside", tmp_path / "inside" / VECTORS, tmp_path / "inside" / ABOUT):
        again = open_concepts(str(url))
        assert again.digest == concepts.digest and again.tokens == concepts.tokens
        assert torch.equal(again.vectors, concepts.vectors) and again.about == concepts.about
    told = json.loads((tmp_path / "inside" / ABOUT).read_text(encoding="utf-8"))
    assert told["digest"] == concepts.digest and told["metaclass"] == "thing"
    assert list(told["tokens"]) == list(CLASSES) and set(told["losses_by_class"]) == set(CLASSES)
    assert told["settings"]["tokens"] == 2 and told["losses"]
    before = [path.read_bytes() for path in sorted((tmp_path / "inside").iterdir())]
    save_concepts(again, Storage(str(tmp_path)), "inside")
    assert [path.read_bytes() for path in sorted((tmp_path / "inside").iterdir())] == before


def test_files_are_the_same_bytes_every_time(concepts: Concepts, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_concepts(concepts, Storage(str(tmp_path / name)))
    for name in (VECTORS, LORA, ABOUT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_concepts_are_not_overwritten(concepts: Concepts, tmp_path: Path) -> None:
    save_concepts(concepts, Storage(str(tmp_path)))
    other = Concepts(concepts.tokens, concepts.vectors + 1, concepts.lora)
    assert VECTORS in refusal(lambda: save_concepts(other, Storage(str(tmp_path))), OutputError)
    assert open_concepts(str(tmp_path)).digest == concepts.digest


def test_they_go_through_an_object_store(concepts: Concepts, s3_url: str) -> None:
    save_concepts(concepts, Storage(s3_url), "_diffii/concepts/x")
    assert open_concepts(f"{s3_url}/_diffii/concepts/x").digest == concepts.digest


def test_diffusers_opens_them_and_makes_the_same_images(
    model: Path, backbone: Backbone, concepts: Concepts, tmp_path: Path
) -> None:
    save_concepts(concepts, Storage(str(tmp_path)))
    theirs: Any = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    vectors = load_file(tmp_path / VECTORS)
    assert len(vectors) == 6
    theirs.load_textual_inversion([{name: vector} for name, vector in vectors.items()])
    theirs.load_lora_weights(str(tmp_path), weight_name=LORA)
    x = torch.randn(3, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts = [f"a photo of a {concepts.name_of(name)} on grass" for name in CLASSES]
    backbone.use(concepts)
    ours = denoise(backbone, x, prompts, prompts, backbone.grid(5, "leading"), 0.3, 3.0)
    kind: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "latent"}
    want = theirs(prompt=prompts, latents=x, **kind).images
    torch.testing.assert_close(ours, want, atol=1e-4 * float(want.abs().max()), rtol=1e-3)
    backbone.use(None)
    plain = denoise(backbone, x, ["a photo"] * 3, ["a photo"] * 3, backbone.grid(5, "leading"), 0.3, 3.0)
    assert float((plain - want).abs().max()) > 0.05  # the comparison above can tell


@pytest.mark.parametrize("name", [VECTORS, LORA, ABOUT])
def test_a_damaged_or_missing_file_is_named(concepts: Concepts, tmp_path: Path, name: str) -> None:
    save_concepts(concepts, Storage(str(tmp_path)))
    path = tmp_path / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert name in refusal(lambda: open_concepts(str(tmp_path)))
    path.unlink()
    if name != ABOUT:
        assert name in refusal(lambda: open_concepts(str(tmp_path)))


def test_files_of_two_runs_mixed_are_refused(concepts: Concepts, tmp_path: Path) -> None:
    save_concepts(concepts, Storage(str(tmp_path)))
    vectors = {key: tensor + 1 for key, tensor in load_file(tmp_path / VECTORS).items()}
    (tmp_path / VECTORS).unlink()
    save_file(vectors, tmp_path / VECTORS)
    assert ABOUT in refusal(lambda: read_concepts(Storage(str(tmp_path))))


def test_the_digest_is_of_what_shapes_an_image(concepts: Concepts) -> None:
    first = next(iter(concepts.lora))
    changed = [
        Concepts(concepts.tokens, concepts.vectors + 1e-3, concepts.lora),
        Concepts(concepts.tokens, concepts.vectors, {**concepts.lora, first: concepts.lora[first] * 2}),
        Concepts(dict(reversed(list(concepts.tokens.items()))), concepts.vectors, concepts.lora),
        Concepts({f"{k}!": v for k, v in concepts.tokens.items()}, concepts.vectors, concepts.lora),
    ]
    assert len({one.digest for one in [concepts, *changed]}) == 5
    assert Concepts(concepts.tokens, concepts.vectors, concepts.lora, {"note": 1}).digest == concepts.digest


def test_a_lora_with_numbers_of_its_own_has_a_digest(concepts: Concepts) -> None:
    """kohya's files have an alpha, without any dimension, to each matrix."""
    alphas = {"x.alpha": torch.tensor(4.0)}
    with_alphas = Concepts(concepts.tokens, concepts.vectors, {**concepts.lora, **alphas})
    assert with_alphas.digest != concepts.digest
    assert Concepts(concepts.tokens, concepts.vectors, {**concepts.lora, **alphas}).digest == with_alphas.digest


def test_a_class_that_was_not_learned_is_named(concepts: Concepts) -> None:
    assert concepts.name_of("sp arrow") == "<c00002-0> <c00002-1>"
    assert "'owl'" in refusal(lambda: concepts.name_of("owl"))


# Others'.


def diff_mix(folder: Path, model: Path, width: int = 32, steps: tuple[int, ...] = (500, 35000)) -> dict[str, Any]:
    """What Diff-Mix leaves behind; the answer is the content of its last file."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {}
    for step in steps:
        names = ["Boeing 737", "c.1/d"]
        places = [f"<class_{k}>" for k in range(2)]
        generator = torch.Generator().manual_seed(step)
        content = {
            "learned_embeds_dict": {place: torch.randn(width, generator=generator) for place in places},
            "name2placeholder": dict(zip(names, places, strict=True)),
            "placeholder2name": dict(zip(places, names, strict=True)),
        }
        torch.save(content, folder / f"learned_embeds-steps-{step}.bin")
    write_attn_procs_lora(folder / LORA, model)
    return content


def test_diff_mix_folders_open_with_their_lora(model: Path, backbone: Backbone, tmp_path: Path) -> None:
    content = diff_mix(tmp_path, model)
    for url in (tmp_path, tmp_path / "learned_embeds-steps-35000.bin"):
        found = open_concepts(str(url))
        assert found.classes == ("Boeing 737", "c.1/d")
        assert torch.equal(found.vectors, torch.stack(list(content["learned_embeds_dict"].values())))
    earlier = open_concepts(str(tmp_path / "learned_embeds-steps-500.bin"))
    assert earlier.digest != found.digest
    added = write_attn_procs_lora(tmp_path / "again.safetensors", model)
    before = {name: backbone.pipeline.unet.get_submodule(name).weight.clone() for name in added}
    backbone.use(found)
    for name, matrix in added.items():
        got = backbone.pipeline.unet.get_submodule(name).weight
        torch.testing.assert_close(got - before[name], matrix, atol=1e-6, rtol=0)
    assert backbone.prompt(f"a photo of a {found.name_of('c.1/d')} bird").isfinite().all()
    backbone.use(None)
    # Written by us, they are ours.
    save_concepts(found, Storage(str(tmp_path / "ours")))
    assert open_concepts(str(tmp_path / "ours")).digest == found.digest


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_plain_textual_inversion_opens(tmp_path: Path, suffix: str) -> None:
    tensors = {"<cat-toy>": torch.randn(3, 32), "<owl>": torch.randn(32)}
    path = tmp_path / f"learned_embeds.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    for url in (path, tmp_path):
        found = open_concepts(str(url))
        assert set(found.classes) == {"cat-toy", "owl"} and not found.lora
        assert len(found.tokens["cat-toy"]) == 3
        assert torch.equal(found.vectors[found.rows[found.name_of("owl")]], tensors["<owl>"])


class _Trap:
    """Whoever unpickles this creates a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._mark,)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    path = tmp_path / "learned_embeds-steps-1.bin"
    torch.save({"learned_embeds_dict": _Trap(tmp_path / "sprung"), "name2placeholder": {}}, path)
    message = refusal(lambda: open_concepts(str(path)))
    assert str(path) in message and "refused" in message and "weights_only" not in message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"name2placeholder": {"a": "<a>"}}, "learned_embeds_dict"),
        ({"learned_embeds_dict": {"<a>": torch.ones(32)}}, "name2placeholder"),
        ({"learned_embeds_dict": {}, "name2placeholder": {"a": "<a>"}}, "<a>"),
        ({"learned_embeds_dict": {"<a>": [1.0]}, "name2placeholder": {"a": "<a>"}}, "'a'"),
        ({"string_to_param": {"*": torch.ones(32)}}, "string_to_param"),
        ({"state_dict": {"x": torch.ones(2)}}, "state_dict"),
        ({"<a>": torch.ones(32), "<b>": torch.ones(16)}, "widths"),
        ({"<a>": torch.ones(2, 2, 2)}, "a"),
        ({}, "no token"),
        ([torch.ones(32)], "list"),
    ],
)
def test_an_unusable_file_says_what_is_missing_and_what_to_give(tmp_path: Path, content: Any, word: str) -> None:
    path = tmp_path / "learned_embeds-steps-1.bin"
    torch.save(content, path)
    message = refusal(lambda: open_concepts(str(path)))
    assert str(path) in message and word in message and "Give" in message


@pytest.mark.parametrize("name", ["x.bin", "x.safetensors", "folder"])
def test_nothing_there_is_said(tmp_path: Path, name: str) -> None:
    message = refusal(lambda: open_concepts(str(tmp_path / name)))
    assert str(tmp_path / name) in message and "Give" in message


@pytest.mark.parametrize("name", ["learned_embeds.bin", "learned_embeds.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 broken"])
def test_damaged_files_of_others_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refusal(lambda: open_concepts(str(tmp_path / name)))


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file({"<a>": torch.full((32,), float("nan"))}, tmp_path / "a.safetensors")
    assert "finite" in refusal(lambda: open_concepts(str(tmp_path / "a.safetensors")))
