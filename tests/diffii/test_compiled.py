"""The compiled U-Net: the answers of the one it was made of, concepts put in later included, and a clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from diffii.backbone import Backbone
from diffii.concepts.record import Concepts
from diffii.concepts.tokens import token
from diffii.denoise import denoise
from diffii.lora import read_lora
from tests.diffii.stable_diffusion import SMALL, build, write_attn_procs_lora


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("small") / "model", SMALL)


def concepts(model: Path, folder: Path, seed: int) -> Concepts:
    write_attn_procs_lora(folder / str(seed), model, seed=seed)
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
    return Concepts({"bag": (token(0, 0),)}, vector, read_lora(folder / str(seed)))


def latents(backbone: Backbone) -> Tensor:
    """Steps with guidance and without, of one micro-batch: both shapes that a run has."""
    x = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    plain, suffixed = ["a <c00000-0>"] * 2, ["a <c00000-0> in a forest"] * 2
    grid = backbone.grid(4, "matched")
    return denoise(backbone, x, plain, suffixed, grid, 0.5, 3.0, interval=(0.2, 0.7))


@pytest.mark.slow
def test_it_answers_as_eager_does_whatever_concepts_are_put_in(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    eager, fast = Backbone.load(str(model)), Backbone.load(str(model), compile_unet=True)
    assert (eager.record.compiled, fast.record.compiled) == (False, True)
    found: list[Tensor] = []
    counters.clear()
    for seed in (1, 2):
        known = concepts(model, tmp_path, seed)
        eager.use(known)
        fast.use(known)
        found.append(latents(eager))
        torch.testing.assert_close(latents(fast), found[-1], rtol=1e-3, atol=1e-3)
    # Once for each shape, not for each concept, nor for the order in which an autoencoder leaves its latents.
    grid = fast.grid(4, "matched")
    with torch.inference_mode():
        encoded = torch.randn(2, *fast.latent_shape).contiguous(memory_format=torch.channels_last)
        fast.epsilon(encoded, grid.timesteps[0], grid.alphas[0], fast.prompts(["a photo"] * 2))
    assert counters["stats"]["unique_graphs"] == 2
    # What was compiled with one concept must not stay with it.
    assert not torch.allclose(found[0], found[1], rtol=1e-2, atol=1e-2)


LOAD = """
import sys
from diffii.backbone import Backbone
from diffii.errors import ModelError
try:
    Backbone.load(sys.argv[1], compile_unet=True)
except ModelError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_when_the_model_is_loaded(model: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(model)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("backbone.compile: torch.compile does not work on this machine")
    assert "g++" in done.stdout and "backbone.compile=false" in done.stdout
    assert done.stdout.count("\n") == 1


ANSWER = """
import torch
from diffii.compiled import compiled
torch.manual_seed(0)
layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).requires_grad_(False)
print(compiled(layer, torch.device("cpu"))(torch.ones(4, 8)).sum().item())
"""


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 100, 5000])
def test_what_a_killed_compiler_left_half_written_is_made_again(tmp_path: Path, left: int) -> None:
    def answer() -> str:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", ANSWER], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first, libraries = answer(), sorted(tmp_path.rglob("*.so"))
    assert len(libraries) >= 2, "that of the check when a model is loaded, and the model's"
    for library in libraries:
        os.truncate(library, left)
    assert answer() == first
    assert all(library.stat().st_size > 5000 for library in libraries)


def test_knowing_what_a_backbone_is_does_not_import_the_compiler() -> None:
    look = "import sys, diffii.backbone; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0
