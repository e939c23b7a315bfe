"""A real Stable Diffusion, as the hub has it: loaded, compared with diffusers' own pipeline, and refused when damaged.

The weights are random; architecture, file names, parameter names, scheduler settings and tokenizer files are not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffii.backbone import Backbone
from diffii.denoise import denoise
from diffii.errors import ModelError
from diffii.invert import invert
from tests.diffii.stable_diffusion import PARAMETERS, SMALL, build, published_name, write_attn_procs_lora

PROMPT, SUFFIX = "a photo of a <class_3> bird", "a photo of a <class_3> bird flying over water"
FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("small") / "model", SMALL)


@pytest.fixture(scope="module")
def small_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("small-v") / "model", SMALL, prediction="v_prediction")


@pytest.fixture
def broken(small: Path, tmp_path: Path) -> Path:
    """A copy of the small model for a test to damage."""
    return Path(shutil.copytree(small, tmp_path / "broken"))


def noise(rows: int, backbone: Backbone, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, *backbone.latent_shape, generator=torch.Generator().manual_seed(seed))


def refusal(load: Callable[[], object]) -> str:
    """The one line that a user sees."""
    with pytest.raises(ModelError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600, message
    return message


# The small sister: the same anatomy in a second.


def test_every_published_weight_reaches_its_parameter(small: Path) -> None:
    backbone = Backbone.load(str(small), dtype="fp32")
    for part, file in FILES.items():
        published = load_file(small / part / f"{file}.safetensors")
        parameters = dict(getattr(backbone.pipeline, part).named_parameters())
        assert {published_name(part, name) for name in parameters} == set(published)
        for name, parameter in parameters.items():
            assert torch.equal(parameter, published[published_name(part, name)].float()), (part, name)


def test_prompts_are_77_tokens_however_long(small: Path) -> None:
    backbone = Backbone.load(str(small), dtype="fp32")
    short, long, longer = (backbone.prompt(text) for text in (PROMPT, "b" * 75, "b" * 500))
    assert short.shape == long.shape == (77, 32)
    assert torch.equal(long[:75], longer[:75])
    assert not torch.allclose(short, backbone.prompt(SUFFIX), atol=1e-3)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_arithmetic_is_the_one_asked_for(small: Path, dtype: str) -> None:
    backbone = Backbone.load(str(small), dtype=dtype)  # pyright: ignore[reportArgumentType]
    want = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert {p.dtype for part in FILES for p in getattr(backbone.pipeline, part).parameters()} == {want}
    latents = denoise(backbone, noise(2, backbone), [PROMPT] * 2, [SUFFIX] * 2, backbone.grid(2, "matched"), 0.5, 7.5)
    assert latents.dtype == torch.float32 and latents.isfinite().all()
    assert backbone.record.dtype == str(want).removeprefix("torch.")


@pytest.mark.parametrize("steps", [pytest.param(5, marks=pytest.mark.slow), 7])  # 7 does not divide 1000
@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("model", ["small", "small_v"])
def test_sampling_is_diffusers_own_pipeline(
    request: pytest.FixtureRequest, model: str, guidance: float, steps: int
) -> None:
    backbone = Backbone.load(str(request.getfixturevalue(model)), dtype="fp32")
    assert backbone.record.prediction == ("v_prediction" if model == "small_v" else "epsilon")
    x = noise(2, backbone)
    backbone.pipeline.set_progress_bar_config(disable=True)
    theirs = backbone.pipeline(
        prompt=[PROMPT] * 2, latents=x, num_inference_steps=steps, guidance_scale=guidance, output_type="latent"
    ).images
    ours = denoise(backbone, x, [PROMPT] * 2, [PROMPT] * 2, backbone.grid(steps, "leading"), 0.3, guidance)
    torch.testing.assert_close(ours, theirs, atol=2e-5 * float(theirs.abs().max()), rtol=1e-4)
    matched = denoise(backbone, x, [PROMPT] * 2, [PROMPT] * 2, backbone.grid(steps, "matched"), 0.3, guidance)
    assert float((matched - theirs).abs().max()) > 1e-2  # the comparison above can tell two grids apart


@pytest.mark.parametrize("steps", [pytest.param(5, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("model", ["small", "small_v"])
def test_inversion_is_diffusers_inverse_scheduler(request: pytest.FixtureRequest, model: str, steps: int) -> None:
    backbone = Backbone.load(str(request.getfixturevalue(model)), dtype="fp32")
    scheduler: Any = DDIMInverseScheduler.from_config(backbone.pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    x = theirs = noise(2, backbone)
    text = backbone.prompts([PROMPT] * 2)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            output = backbone.pipeline.unet(theirs, t, encoder_hidden_states=text, return_dict=False)[0]
            theirs = scheduler.step(output, int(t), theirs, return_dict=False)[0]
    ours = invert(backbone, x, [PROMPT] * 2, backbone.grid(steps, "leading"))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert float((ours - x).abs().max()) > 0.1


# The LoRA of a published training, in the layout it was published in.


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_an_old_lora_adds_up_times_down(small: Path, tmp_path: Path, prefix: str) -> None:
    lora = tmp_path / "pytorch_lora_weights.safetensors"
    added = write_attn_procs_lora(lora, small, prefix=prefix)
    before, after = (Backbone.load(str(small), dtype="fp32", lora=file) for file in (None, lora))
    assert len(added) == 48
    for name, matrix in added.items():
        got, was = (b.pipeline.unet.get_submodule(name).weight for b in (after, before))
        torch.testing.assert_close(got - was, matrix, atol=1e-6, rtol=0)
    assert set(dict(after.pipeline.unet.named_parameters())) == set(dict(before.pipeline.unet.named_parameters()))
    x, text = noise(1, before), before.prompts([PROMPT])
    assert float((after.epsilon(x, 500, 0.5, text) - before.epsilon(x, 500, 0.5, text)).abs().max()) > 1e-3


def _rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def _only(part: str, count: int = 0) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Leave out every key that lacks `part`, but for the first `count` keys."""
    return lambda tensors: {key: t for i, (key, t) in enumerate(tensors.items()) if part in key or i < count}


def _widened(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([t, t], 1) if ".down." in key else t for key, t in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_rename("unet.", "transformer."), id="another kind of model"),
        pytest.param(_rename("_blocks.", "_stages."), id="modules the model lacks"),
        pytest.param(_rename("down_blocks.0", "down_blocks.7"), id="some modules the model lacks"),
        pytest.param(_rename("unet.", "text_encoder."), id="for another part"),
        pytest.param(_rename("lora", "adapter"), id="no LoRA"),
        pytest.param(_widened, id="another width"),
        pytest.param(_only(".down."), id="only the lower halves"),
        pytest.param(_only(".up."), id="only the upper halves"),
        pytest.param(_only(".up.", count=40), id="some lower halves missing"),
        pytest.param(lambda tensors: {}, id="empty"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(
    small: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    lora = tmp_path / "wrong.safetensors"
    write_attn_procs_lora(lora, small)
    changed = {key: tensor.contiguous() for key, tensor in change(load_file(lora)).items()}
    lora.unlink()
    save_file(changed, lora)
    assert str(lora) in refusal(lambda: Backbone.load(str(small), dtype="fp32", lora=lora))


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_a_lora_that_cannot_be_read_is_refused(small: Path, tmp_path: Path, content: bytes | None) -> None:
    lora = tmp_path / "lora.safetensors"
    if content is not None:
        lora.write_bytes(content)
    assert str(lora) in refusal(lambda: Backbone.load(str(small), dtype="fp32", lora=lora))


# What is no Stable Diffusion, or not a whole one.


@pytest.mark.parametrize("name", ["/no/such/model", "./no-such-model", "no-such-model", "someone/no-such-model"])
def test_a_model_that_is_nowhere_is_refused_by_name(name: str) -> None:
    message = refusal(lambda: Backbone.load(name))
    assert name in message and "backbone.model" in message and "garments" in message


def test_a_directory_without_an_index_is_refused(broken: Path) -> None:
    (broken / "model_index.json").unlink()
    message = refusal(lambda: Backbone.load(str(broken)))
    assert str(broken) in message and "model_index.json" in message


class _Trap:
    """Whoever unpickles this creates a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("part", FILES)
def test_pickled_weights_are_refused_unopened(broken: Path, tmp_path: Path, part: str) -> None:
    (broken / part / f"{FILES[part]}.safetensors").unlink()
    pickled = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(_Trap(tmp_path / "sprung"), broken / part / pickled)
    message = refusal(lambda: Backbone.load(str(broken)))
    assert str(broken) in message and "safetensors" in message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # What SDXL's U-Net has, and an inpainting model's: the pipeline loads, and cannot be called.
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 80,
            },
            "wants more than a prompt, as SDXL's does",
        ),
        ({"in_channels": 9}, "takes 9 channels and its latents have 4, as of an inpainting model"),
        ({"cross_attention_dim": 48}, "its text encoder gives 32 numbers a token and its U-Net takes 48"),
    ],
    ids=["SDXL", "inpainting", "another encoder"],
)
def test_other_kinds_of_models_are_refused(broken: Path, changes: dict[str, Any], said: str) -> None:
    config: Any = UNet2DConditionModel.load_config(broken / "unet")
    shutil.rmtree(broken / "unet")
    cast(Any, UNet2DConditionModel.from_config({**config, **changes})).save_pretrained(broken / "unet")
    message = refusal(lambda: Backbone.load(str(broken)))
    assert str(broken) in message and said in message


@pytest.mark.parametrize("part", [*FILES, "scheduler", "tokenizer"])
def test_a_missing_part_is_refused(broken: Path, part: str) -> None:
    shutil.rmtree(broken / part)
    assert str(broken) in refusal(lambda: Backbone.load(str(broken)))


@pytest.mark.parametrize("part", FILES)
def test_weights_that_lack_a_tensor_are_refused(broken: Path, part: str) -> None:
    path = broken / part / f"{FILES[part]}.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    tensors.pop(next(key for key in sorted(tensors) if key.endswith("norm1.weight")))
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    assert str(broken) in refusal(lambda: Backbone.load(str(broken)))


def test_truncated_weights_are_refused(broken: Path) -> None:
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1000])
    assert str(broken) in refusal(lambda: Backbone.load(str(broken)))


@pytest.mark.parametrize(
    ("prediction", "scheduler"), [("sample", {}), ("v_prediction", {"rescale_betas_zero_snr": True})]
)
def test_a_schedule_that_ddim_here_cannot_walk_is_refused(
    tmp_path: Path, prediction: str, scheduler: dict[str, bool]
) -> None:
    path = build(tmp_path / "model", SMALL, prediction=prediction, scheduler=scheduler)
    assert str(path) in refusal(lambda: Backbone.load(str(path)))


def test_xformers_on_a_cpu_is_refused(small: Path) -> None:
    message = refusal(lambda: Backbone.load(str(small), attention="xformers", device="cpu"))
    assert "backbone.attention" in message and "xformers" in message


# The real size.


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = build(tmp_path_factory.mktemp("full") / "model")
    yield path
    shutil.rmtree(path)  # 2 GB that pytest would keep for three sessions


@pytest.mark.slow
def test_stable_diffusion_1_5_at_its_real_size(full: Path, tmp_path: Path) -> None:
    before = Backbone.load(str(full), dtype="fp32")
    assert {part: getattr(before.pipeline, part).num_parameters() for part in FILES} == PARAMETERS
    assert before.image_size == 512 and before.latent_shape == (4, 64, 64)
    assert before.prompt(PROMPT).shape == (77, 768)

    image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    latents = before.encode(image)
    assert latents.shape == (1, 4, 64, 64) and latents.isfinite().all()
    inversion = invert(before, latents, [PROMPT], before.grid(1, "matched"))
    assert inversion.shape == latents.shape and inversion.isfinite().all()
    assert float((inversion - latents).abs().max()) > 0.01

    def sample(backbone: Backbone) -> torch.Tensor:
        return denoise(backbone, inversion, [PROMPT], [SUFFIX], backbone.grid(1, "matched"), 0.3, 7.5)

    plain = sample(before)
    assert plain.isfinite().all()
    pictures = before.decode(plain)
    assert pictures.shape == (1, 512, 512, 3) and np.isfinite(pictures).all()

    lora = tmp_path / "pytorch_lora_weights.safetensors"
    added = write_attn_procs_lora(lora, full)
    assert len(added) == 128  # 16 transformer blocks, two attentions each, q, k, v and out
    after = Backbone.load(str(full), dtype="fp32", lora=lora)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    got, was = (b.pipeline.unet.get_submodule(name).weight for b in (after, before))
    torch.testing.assert_close(got - was, added[name], atol=1e-6, rtol=0)
    assert float((sample(after) - plain).abs().max()) > 1e-3
