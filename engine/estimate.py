"""`plan`: what a run will cost, before it starts. Counts follow from the plan; speeds are measured for a few seconds.

Speeds are measured by as many processes at once as the run will have actors, because two cores that share a cache
are not twice one core.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from actors.model import ModelSpec, load
from diffii.contexts.candidates import default_candidates
from diffii.contexts.diffusion import DiffusionSettings, rows_per_image
from diffii.denoise import denoise, guided_steps
from diffii.embedding import Embedder
from diffii.features import perceptual_hash
from diffii.images import encode
from diffii.invert import invert
from diffii.machine import cores
from diffii.schedule import steps_within
from engine.caption_stage import by_diffusion, wanted
from engine.concept_stage import learn_settings, workers
from engine.config import AUTO, Config
from engine.next_wave import first_wave
from engine.prepare import make_plan, prepare
from engine.run import Run
from engine.seasons import news
from engine.source import Source
from engine.specs import embedder, guidance_interval, model_spec, spacing

RAY_SECONDS = 7.0
"""Starting and ending a local Ray, from 2.60 on two cores; a running cluster needs none of it."""
STAGE_SECONDS = 2.0
"""First task of a Ray Data pipeline, beside loading the model."""
CALIBRATION_SECONDS = 3.0
LEARN_ROW = 3.0
"""U-Net rows of generation that a row of learning costs: the way back takes about twice the way there."""
ROW_BYTES = 800
"""What a row takes beside its image: its columns in the shard, and what it is compared by beside the log."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds, as measured in one of several processes at work together."""

    load: float
    inversion_call: float
    inversion_steps: float
    """Steps of an inversion that ask the model."""
    generation_row: float
    """Of a row of the U-Net."""
    generation_rows: float
    """Rows of the U-Net for an image."""
    finish_image: float
    sign_image: float
    """To embed an image for `dedup`; 0 without an embedder."""
    image_bytes: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will do and cost."""

    classes: int
    real_images: int
    skipped: int
    synthetic_images: int
    chunks: int
    unet_calls: int
    unet_rows: int
    actors: int
    device: str
    images_per_second: float
    chunk_seconds: float
    """Of a whole chunk in one actor."""
    start_seconds: float
    """From an actor's first task to its first image: it starts and loads the model."""
    seconds: float
    caption_seconds: float
    """Of `seconds`; 0 where a captioner does it, whose speed is not measured here."""
    learn_seconds: float
    """Of `seconds`."""
    disk_bytes: int


def estimate(config: Config, actors: int, device: str, run: Run | None = None) -> Estimate:
    """Plan, then calibrate for a few seconds on this machine. Raises what `engine.run.prepare` raises.

    `run` is what `prepare` gave for this configuration, where it was called already: a source is scanned once. Of a
    run that has begun, what is left to generate is counted.
    """
    decided = known = 0
    learns = True
    if run is None and config.output.url:
        run = prepare(config)
    if run is not None:
        plan, wave = run.plan, run.open_wave() or run.next_wave()
        decided = run.history.next_chunk(wave.wave) if wave else 0
        learns = run.history.version < 0
        if wave is None and run.grown is not None:
            plan = run.plan_ahead()
            wave, known = plan.beyond(run.plan.targets()), len(run.source.images)
            learns = bool(news(run.source, run.grown)[1])
    else:
        plan = make_plan(config)
        wave = first_wave(plan)
    resolved, source = plan.config, plan.source
    images = len(source.images) - known
    rows = plan.row_count(wave) - decided * resolved.commit.chunk_size if wave else 0
    chunks = plan.chunk_count(wave) - decided if wave else 0
    inversion, generation = resolved.inversion, resolved.generation
    full, rest = divmod(rows, resolved.commit.chunk_size)
    chunk_batches = math.ceil(resolved.commit.chunk_size / generation.micro_batch)
    batches = full * chunk_batches
    batches += math.ceil(rest / generation.micro_batch)
    generation_calls = batches * generation.steps
    speed = calibrate(model_spec(resolved), resolved, min(actors, max(1, chunks)))
    climbs = round(speed.inversion_steps) if plan.arm.takes == "inversions" else 0
    inversion_calls = math.ceil(images / inversion.micro_batch) * climbs
    workers = max(1, min(actors, chunks))
    # The slowest actor decides: whole chunks, and whole batches of images, are dealt out.
    inversion_rounds = math.ceil(math.ceil(images / inversion.micro_batch) / workers)
    invert_seconds = inversion_rounds * (climbs * speed.inversion_call + inversion.micro_batch * speed.sign_image)
    # Embedding pads as the model does; encoding and hashing take each image for itself.
    batch_rows = generation.micro_batch * round(speed.generation_rows)
    batch_seconds = batch_rows * speed.generation_row + generation.micro_batch * speed.sign_image
    generate_seconds = (batches * batch_seconds + rows * speed.finish_image) / workers
    fixed = RAY_SECONDS + 2 * (STAGE_SECONDS + speed.load)
    captions = images if known or learns else 0
    caption_seconds = captions * _caption_rows(resolved, source) * speed.generation_row / workers
    learn_rows = _learn_rows(resolved, 0 if device == "cuda" else actors) if learns else 0
    learn_seconds = LEARN_ROW * learn_rows * speed.generation_row
    fixed += sum(STAGE_SECONDS + speed.load for seconds in (caption_seconds, learn_seconds) if seconds)
    return Estimate(
        classes=len(source.classes),
        real_images=len(source.images),
        skipped=len(source.skipped),
        synthetic_images=rows,
        chunks=chunks,
        unet_calls=inversion_calls + generation_calls,
        unet_rows=inversion_calls * inversion.micro_batch + batches * batch_rows,
        actors=workers,
        device=device,
        chunk_seconds=chunk_batches * batch_seconds + resolved.commit.chunk_size * speed.finish_image,
        start_seconds=STAGE_SECONDS + speed.load,
        images_per_second=rows / generate_seconds if rows else 0.0,
        seconds=(fixed + caption_seconds + learn_seconds + invert_seconds + generate_seconds) if rows else 0.0,
        caption_seconds=caption_seconds,
        learn_seconds=learn_seconds,
        disk_bytes=int(rows * (speed.image_bytes + ROW_BYTES)),
    )


def _caption_rows(config: Config, source: Source) -> int:
    """U-Net rows that an image's caption will take."""
    if not (wanted(config) and by_diffusion(config, source)):
        return 0
    candidates = config.captions.candidates or default_candidates(config.backbone.model)
    return rows_per_image(len(candidates), DiffusionSettings())


def _learn_rows(config: Config, cores: int) -> int:
    """Rows that the busiest worker will learn from, if the loss does not stop falling before."""
    if config.learn.concepts != AUTO:
        return 0
    settings = learn_settings(config)
    return settings.steps * min(settings.batch, settings.micro_batch * -(-settings.parts // workers(config, cores)))


def calibrate(spec: ModelSpec, config: Config, processes: int) -> Speed:
    """Measure in `processes` fresh processes at once; the mean of what they saw.

    No more of them than this machine has room for, whose cards they share as actors will: a run that is planned here
    may go to a cluster.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    processes = min(processes, max(1, int(cards / (config.actors.gpus or 1.0))) if cards else cores())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        began = time.time()
        speeds = list(pool.map(_measure, [(spec, config, began, place) for place in range(processes)]))
    return Speed(**{name: float(np.mean([getattr(s, name) for s in speeds])) for name in Speed.__dataclass_fields__})


def _measure(task: tuple[ModelSpec, Config, float, int]) -> Speed:
    spec, config, began, place = task
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())  # Ray shows each actor its own card alone
    backbone = load(spec)
    name = embedder(config)
    signer = Embedder.load(name, config.generation.micro_batch) if name else None
    loaded = time.time() - began
    output = config.output
    inversion, generation = config.inversion, config.generation
    noise = backbone.put(torch.randn(generation.micro_batch, *backbone.latent_shape))
    start = torch.randn(inversion.micro_batch, *backbone.latent_shape)
    prompts = ["a photo", "a photo on grass"]
    short = backbone.grid(4, spacing(config))
    climb, descent = (backbone.grid(steps, spacing(config)) for steps in (inversion.steps, generation.steps))
    guided = guided_steps(descent, generation.guidance_scale, guidance_interval(config))
    together = 1 if generation.guidance_scale == 1.0 else 2

    def one_inversion() -> None:
        invert(backbone, start, [prompts[0]] * inversion.micro_batch, short)

    def one_generation() -> None:
        plain, suffixed = ([prompt] * generation.micro_batch for prompt in prompts)
        denoise(backbone, noise, plain, suffixed, short, generation.split, generation.guidance_scale)

    backbone.decode(noise)  # the first call of a kernel takes longer
    finish_began = time.perf_counter()
    images = backbone.decode(noise)
    pixels = (np.clip(images, 0, 1) * 255).astype(np.uint8)
    data = [encode(image, output.encoding, output.quality, output.mark) for image in pixels]
    for image in pixels:
        perceptual_hash(image)
    finish = (time.perf_counter() - finish_began) / len(pixels)
    return Speed(
        load=loaded,
        inversion_call=_seconds(one_inversion) / 4,
        inversion_steps=climb.steps - steps_within(climb, inversion.diffuse),
        generation_row=_seconds(one_generation) / (4 * together * generation.micro_batch),
        generation_rows=len(guided) + sum(guided),
        finish_image=finish,
        sign_image=_seconds(lambda: signer.signatures(pixels), 0.5) / len(pixels) if signer else 0.0,
        image_bytes=float(np.mean([len(item) for item in data])),
    )


def _seconds(work: object, budget: float = CALIBRATION_SECONDS / 2) -> float:
    """Median seconds of a call, after one to warm up, repeated for `budget` seconds."""
    assert callable(work)
    work()
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < budget:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what was called may still run
        times.append(time.perf_counter() - start)
    return float(np.median(times))
