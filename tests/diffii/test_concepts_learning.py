"""Learning: what moves and what does not, the same bytes twice and after a death, workers, early stop, long tails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffii.backbone import Backbone
from diffii.concepts.checkpoints import dump, load_state
from diffii.concepts.draws import Draws
from diffii.concepts.learning import Learner
from diffii.concepts.lesson import Lesson
from diffii.concepts.loop import learn
from diffii.concepts.losses import encode_images
from diffii.concepts.record import Concepts
from diffii.concepts.settings import GARMENTS, PAPER, QUICK, LearnSettings
from diffii.concepts.workers import Workers
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, OutputError
from tests.diffii.stable_diffusion import SMALL, build

SETTINGS = LearnSettings(
    steps=6, batch=4, rank=2, token_lr=1e-2, lora_lr=1e-2, warmup=0, check_every=2, check_rows=4, checkpoint_every=2
)
LABELS = (0, 0, 0, 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    return Backbone.load(str(build(tmp_path_factory.mktemp("small") / "model", SMALL)), dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def small_v(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = build(tmp_path_factory.mktemp("small-v") / "model", SMALL, prediction="v_prediction")
    return Backbone.load(str(path), dtype="fp32", device="cpu")


def lesson(**changes: Any) -> Lesson:
    return replace(
        Lesson(classes=("B 737-800", "a/b <c> ü"), words=("plane", "bird"), labels=LABELS, metaclass="x"), **changes
    )


def images(backbone: Backbone, count: int = len(LABELS)) -> list[np.ndarray]:
    size = backbone.image_size
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def taught(backbone: Backbone, settings: LearnSettings = SETTINGS, **changes: Any) -> Concepts:
    return learn(backbone, lesson(), images(backbone), settings, **changes)


def test_only_tokens_and_lora_move_and_the_model_comes_back_as_it_was(small: Backbone) -> None:
    pipeline = small.pipeline
    before = {
        (part, name): value.clone()
        for part in ("unet", "text_encoder", "vae")
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    learner = Learner(small, lesson(), encode_images(small, images(small), True), SETTINGS)
    start = {name: value.detach().clone() for name, value in learner.parameters.items()}
    while not learner.finished:
        learner.step()
    moved = {name for name, value in learner.parameters.items() if not torch.equal(value, start[name])}
    assert moved == set(start) and start["tokens"].shape == (2, 32)
    assert len(start) == 1 + 2 * 48  # every q, k, v and out of every self- and cross-attention
    parts = (pipeline.unet, pipeline.text_encoder)
    with_gradient = [p for part in parts for p in part.parameters() if p.requires_grad]
    assert {id(p) for p in with_gradient} == {id(p) for p in learner.parameters.values()}
    assert all(value.dtype == torch.float32 for value in learner.parameters.values())
    learner.release()
    after = {
        (part, name): value
        for part in ("unet", "text_encoder", "vae")
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("ema", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_a_further_class_is_learned_beside_those_that_are_known(small: Backbone, ema: float) -> None:
    untouched = {name: value.clone() for name, value in small.pipeline.unet.state_dict().items()}
    base = taught(small)
    more = lesson(classes=(*lesson().classes, "new"), words=("plane", "bird", "bird"), labels=(2, 2))
    settings = replace(SETTINGS, ema=ema)
    found = learn(small, more, images(small, 2), settings, base=base)
    assert found.extend(base) and not base.extend(found)
    assert list(found.tokens) == list(more.classes) and found.tokens["new"] == ("<c00002-0>",)
    start = small.pipeline.text_encoder.get_input_embeddings().weight
    assert not any(torch.equal(found.vectors[2], row) for row in start), "it was learned"
    assert learn(small, more, images(small, 2), settings, base=base).digest == found.digest
    assert all(torch.equal(value, untouched[name]) for name, value in small.pipeline.unet.state_dict().items())
    alone = learn(small, more, images(small, 2), settings)
    assert not alone.extend(base), "without a base nothing is kept"


def test_a_known_class_stays_at_its_place(small: Backbone) -> None:
    base = taught(small)
    with pytest.raises(ModelError, match=r"name 'a/b <c> ü' by <c00001-0>, and here it would be <c00000-0>"):
        turned = lesson(classes=("a/b <c> ü", "B 737-800", "new"), words=("bird", "plane", "bird"), labels=(2, 2))
        learn(small, turned, images(small, 2), SETTINGS, base=base)
    again = lesson(labels=(1, 1))
    found = learn(small, again, images(small, 2), SETTINGS, base=base)
    assert torch.equal(found.vectors[0], base.vectors[0]) and not torch.equal(found.vectors[1], base.vectors[1])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small: Backbone) -> None:
    first, second, other = taught(small), taught(small), taught(small, replace(SETTINGS, seed=1))
    assert first.digest == second.digest != other.digest
    assert first.about == second.about


DEATHS = [(1, 0.99), (2, 0.0)]
"""Step and average: what the quick suite looks at."""


@pytest.mark.parametrize(
    ("died_at", "ema"),
    [pytest.param(*one, marks=[] if one in DEATHS else pytest.mark.slow) for one in product((1, 2, 3, 5), (0.0, 0.99))],
)
def test_a_run_that_died_ends_with_the_same_bytes(small: Backbone, tmp_path: Path, died_at: int, ema: float) -> None:
    settings = replace(SETTINGS, ema=ema)
    straight = taught(small, settings, storage=Storage(str(tmp_path / "straight")), folder="run")

    def die(step: int, loss: float) -> None:
        if step == died_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(small, settings, storage=Storage(str(tmp_path / "died")), folder="run", watch=die)
    steps: list[int] = []
    resumed = taught(
        small, settings, storage=Storage(str(tmp_path / "died")), folder="run", watch=lambda step, _: steps.append(step)
    )
    # The checkpoint of the step itself is written after the watcher was told.
    assert steps[0] == (died_at - 1) // 2 * 2 + 1
    assert resumed.digest == straight.digest and resumed.about == straight.about
    files = [{f.name: f.read_bytes() for f in (tmp_path / name / "run").iterdir()} for name in ("straight", "died")]
    assert files[0] == files[1] and len(files[0]) == 2


def test_checkpoints_hold_no_pickle_and_a_damaged_one_is_named(small: Backbone, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    taught(small, replace(SETTINGS, steps=2), storage=storage, folder="run")
    (path,) = (tmp_path / "run").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OutputError, match=path.name):
        taught(small, storage=storage, folder="run")


def test_a_checkpoint_holds_the_whole_state(small: Backbone) -> None:
    latents = encode_images(small, images(small), True)
    settings = replace(SETTINGS, ema=0.9)
    learner = Learner(small, lesson(), latents, settings)
    for _ in range(3):
        learner.step()
    state = dump(learner)
    learner.release()
    again = Learner(small, lesson(), latents, settings)
    load_state(again, state)
    assert dump(again) == state
    again.release()


def test_tokens_do_not_decay(small: Backbone) -> None:
    # A class that is never shown: with weight decay its vector would shrink.
    concepts = learn(
        small, lesson(labels=(0, 0, 0, 0)), images(small), replace(SETTINGS, weight_decay=0.5, rank=0), storage=None
    )
    fresh = Learner(small, lesson(), encode_images(small, images(small), True), SETTINGS)
    start = fresh.parameters["tokens"].detach().clone()
    fresh.release()
    assert torch.equal(concepts.vectors[1], start[1]) and not torch.equal(concepts.vectors[0], start[0])
    assert not concepts.lora


def test_the_loss_falls_for_epsilon_and_for_v(small: Backbone, small_v: Backbone) -> None:
    for backbone in (small, small_v):
        concepts = taught(backbone, replace(SETTINGS, steps=30, check_every=10, check_rows=16))
        held_out = [point["held_out"] for point in concepts.about["losses"]]
        assert held_out[-1] < held_out[0], backbone.record.prediction


@pytest.mark.parametrize("dtype", [pytest.param("bf16", marks=pytest.mark.slow), "fp16"])
def test_in_half_precision_what_is_learned_stays_in_float32(tmp_path: Path, dtype: Any) -> None:
    backbone = Backbone.load(str(build(tmp_path / "model", SMALL)), dtype=dtype, device="cpu")
    settings = replace(SETTINGS, steps=12, check_every=4)
    learner = Learner(backbone, lesson(), encode_images(backbone, images(backbone), True), settings)
    while learner.progress.step < 6:
        learner.step()
    state = dump(learner)
    while not learner.finished:
        learner.step()
    concepts = learner.result()
    assert {value.dtype for value in learner.parameters.values()} == {torch.float32}
    held = {part.dtype for value in learner.parameters.values() for part in learner.optimiser.state[value].values()}
    assert held == {torch.float32}
    assert learner.scaler.is_enabled() == (dtype == "fp16")
    learner.release()
    again = Learner(backbone, lesson(), encode_images(backbone, images(backbone), True), settings)
    load_state(again, state)
    while not again.finished:
        again.step()
    assert again.result().digest == concepts.digest
    again.release()
    backbone.use(concepts)
    assert backbone.prompt(f"a {concepts.name_of('B 737-800')}").dtype == backbone.dtype


def test_the_target_of_v_prediction_is_v(small_v: Backbone) -> None:
    # The error of a perfect prediction is zero: put the answer in place of the model.
    learner = Learner(small_v, lesson(), encode_images(small_v, images(small_v), False), SETTINGS)
    draws = learner._held  # pyright: ignore[reportPrivateUsage]
    scheduler = small_v.pipeline.scheduler
    clean = torch.stack([learner._losses.latents[0, draw.image] for draw in draws])  # pyright: ignore[reportPrivateUsage]
    noise = torch.from_numpy(np.stack([draw.noise(small_v.latent_shape) for draw in draws]))
    wanted = scheduler.get_velocity(clean, noise, torch.tensor([draw.timestep for draw in draws]))
    unet = small_v.pipeline.unet
    handle = unet.register_forward_hook(lambda *_: (wanted,))
    losses = learner._losses(draws)  # pyright: ignore[reportPrivateUsage]
    handle.remove()
    learner.release()
    assert float(losses.max()) < 1e-10


def test_it_stops_when_nothing_is_gained(small: Backbone) -> None:
    settings = replace(SETTINGS, steps=100, patience=2, min_gain=0.9)
    concepts = taught(small, settings)
    assert concepts.about["steps"] == concepts.about["stopped_at"] == 6
    assert [point["step"] for point in concepts.about["losses"]] == [2, 4, 6]


def test_held_out_noise_is_the_same_at_every_look_and_never_learned_from() -> None:
    kind: dict[str, Any] = {"balanced": True, "flip": True}
    learned = Draws(LABELS, 0, 1000, **kind)
    held = Draws(LABELS, 0, 1000, stream="held out", **kind)
    assert held.batch(0, 8) == held.batch(0, 8)
    seeds = {draw.noise_seed for step in range(50) for draw in learned.batch(step, 8)}
    assert len(seeds) == 400 and not seeds & {draw.noise_seed for draw in held.batch(0, 64)}


def test_the_record_has_every_class(small: Backbone) -> None:
    losses = taught(small).about["losses_by_class"]
    assert set(losses) == {"B 737-800", "a/b <c> ü"}
    assert sum(entry["rows"] for entry in losses.values()) == 24
    assert all(entry["second_half"] > 0 for entry in losses.values())


def test_too_high_a_rate_is_said(small: Backbone) -> None:
    with pytest.raises(ModelError, match=r"learn\.token_lr"):
        latents = encode_images(small, images(small), False)
        learner = Learner(small, lesson(), latents * float("nan"), SETTINGS)
        try:
            while not learner.finished:
                learner.step()
        finally:
            learner.release()


def test_a_card_that_is_too_small_is_told_in_terms_of_settings(
    small: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(small.pipeline.unet, "forward", full)
    with pytest.raises(ModelError, match=r"fit on cpu \(CUDA out of memory.*set learn\.micro_batch lower than 3, or"):
        learn(small, lesson(), images(small), replace(SETTINGS, batch=3))
    with pytest.raises(ModelError, match=r"set learn\.rank and learn\.tokens lower, or"):
        learn(small, lesson(), images(small), replace(SETTINGS, micro_batch=1))
    assert small.concepts is None


def test_a_class_of_one_image_among_large_ones_is_shown_as_often() -> None:
    labels = [0] * 97 + [1, 2, 2]
    draws = Draws(labels, 0, 1000, balanced=True, flip=False)
    shown = Counter(labels[d.image] for step in range(30) for d in draws.batch(step, 9))
    assert set(shown.values()) == {90}
    images = Counter(d.image for step in range(30) for d in draws.batch(step, 9))
    assert images[98] == images[99] == 45 and max(images[k] for k in range(97)) == 1
    plain = Draws(labels, 0, 1000, balanced=False, flip=False)
    assert set(Counter(d.image for step in range(20) for d in plain.batch(step, 10)).values()) == {2}


def test_one_image_of_one_class_can_be_learned(small: Backbone) -> None:
    only = Lesson(classes=("one",), words=("one",), labels=(0,))
    concepts = learn(small, only, images(small, 1), SETTINGS)
    assert concepts.name_of("one") == "<c00000-0>" and concepts.vectors.isfinite().all()


def test_timesteps_cover_the_whole_schedule_evenly() -> None:
    draws = Draws(LABELS, 0, 1000, balanced=True, flip=True)
    for step in range(5):
        parts = Counter(draw.timestep * 8 // 1000 for draw in draws.batch(step, 8))
        assert len(parts) >= 4
    every = [draw.timestep for step in range(200) for draw in draws.batch(step, 8)]
    assert min(every) < 5 and max(every) > 994 and max(every) < 1000
    assert all(140 <= count <= 180 for count in Counter(t // 100 for t in every).values())


@pytest.mark.parametrize(("parts", "count"), [(1, 1), (4, 2), (5, 2), (5, 4), (2, 3)])
def test_each_part_has_one_worker(parts: int, count: int) -> None:
    shares = [Workers(rank, count).share(parts) for rank in range(count)]
    assert sorted(part for share in shares for part in share) == list(range(parts))
    assert max(map(len, shares)) == -(-parts // count)


def test_parts_are_added_up_to_what_the_batch_teaches(small: Backbone) -> None:
    latents, found = encode_images(small, images(small), True), list[tuple[torch.Tensor, dict[str, torch.Tensor]]]()
    for size in (4, 3, 1):
        learner = Learner(small, lesson(), latents, replace(SETTINGS, micro_batch=size))
        draws = learner._draws.batch(0, 4)  # pyright: ignore[reportPrivateUsage]
        losses = learner._gradients(draws)  # pyright: ignore[reportPrivateUsage]
        gradients = {name: value.grad for name, value in learner.parameters.items()}
        found.append((losses, {name: value for name, value in gradients.items() if value is not None}))
        learner.release()
    for losses, gradients in found[1:]:
        torch.testing.assert_close(losses, found[0][0], rtol=1e-4, atol=1e-6)
        assert gradients.keys() == found[0][1].keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-3, atol=1e-6)


def test_contexts_stand_behind_the_prompt() -> None:
    prompts = lesson(contexts=("on grass", "", "", "at  night")).prompts(2)
    assert prompts == [
        "a photo of a <c00000-0> <c00000-1> x on grass",
        "a photo of a <c00000-0> <c00000-1> x",
        "a photo of a <c00000-0> <c00000-1> x",
        "a photo of a <c00001-0> <c00001-1> x at night",
    ]


def test_tokens_that_do_not_fit_the_prompt_are_refused(small: Backbone) -> None:
    with pytest.raises(ModelError, match=r"learn\.tokens"):
        taught(small, replace(SETTINGS, tokens=80))
    assert small.pipeline.text_encoder.get_input_embeddings().num_embeddings  # and the model is whole
    assert taught(small).digest


@pytest.mark.parametrize("name", ["steps", "batch", "micro_batch", "tokens", "token_lr", "ema", "patience"])
def test_settings_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"learn\.{name}"):
        replace(QUICK, **{name: -1})


def test_presets_are_what_they_say() -> None:
    assert (PAPER.steps, PAPER.batch, PAPER.rank, PAPER.token_lr, PAPER.lora_lr) == (35_000, 2, 10, 5e-5, 5e-5)
    assert PAPER.weight_decay == 1e-2 and PAPER.rate(0) == PAPER.rate(34_999) == 1.0
    assert (QUICK.steps, QUICK.batch) == (2_000, 8) and QUICK.balanced
    assert GARMENTS.rate(GARMENTS.steps - 1) < 0.01
