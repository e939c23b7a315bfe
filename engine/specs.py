"""From the configuration to what each kind of actor is told."""

from __future__ import annotations

from dataclasses import replace

from actors.generator import GeneratorSpec
from actors.inverter import InverterSpec
from actors.lesson_spec import concepts_folder
from actors.model import ModelSpec
from diffii.embedder_weights import embedder_everywhere
from diffii.schedule import Spacing
from diffii.weights import model_everywhere
from engine.config import OFF, Config
from engine.run import Run
from engine.seasons import learned_of

CPU_THREADS = 1
"""Threads of a model on the CPU. One actor a core is faster than one actor on all, and the same on every machine."""


def model_spec(config: Config, concepts: str = "", weights: str = "") -> ModelSpec:
    """The resident model; `concepts` is the URL of those it is to know, `weights` the digest it was planned with."""
    backbone = config.backbone
    return ModelSpec(
        model=model_everywhere(backbone.model),
        dtype=backbone.dtype,
        attention=backbone.attention,
        threads=CPU_THREADS,
        concepts=concepts,
        weights=weights,
    )


def _resident(run: Run) -> ModelSpec:
    """The model of those whose every call has one shape; others would compile for a few calls."""
    return replace(model_spec(run.config, concepts_url(run), run.plan.weights), compiled=run.config.backbone.compile)


def inverter_spec(run: Run) -> InverterSpec:
    config = run.config
    return InverterSpec(
        model=_resident(run),
        output_url=run.storage.url,
        steps=config.inversion.steps if run.plan.arm.takes == "inversions" else 0,
        spacing=spacing(config),
        diffuse=config.inversion.diffuse,
        solver=config.inversion.solver,
        fit=config.source.fit,
        micro_batch=config.inversion.micro_batch,
        embedder=embedder(config),
        embedder_weights=run.plan.embedder,
        stall_timeout=config.engine.stall_timeout,
        attempts=config.engine.attempts,
        spot_notices=config.actors.spot_notices,
    )


def generator_spec(run: Run) -> GeneratorSpec:
    config = run.config
    return GeneratorSpec(
        model=_resident(run),
        output_url=run.storage.url,
        begun_with=(learned_of(run.history, 0) or run.plan.learned).concepts,
        arm=config.arm.name,
        steps=config.generation.steps,
        spacing=spacing(config),
        split=config.generation.split,
        guidance=config.generation.guidance_scale,
        interval=guidance_interval(config),
        solver=config.generation.solver,
        norm=config.inversion.norm,
        micro_batch=config.generation.micro_batch,
        allow_smaller=config.actors.allow_smaller_batch,
        encoding=config.output.encoding,
        quality=config.output.quality,
        mark=config.output.mark,
        embedder=embedder(config),
        embedder_weights=run.plan.embedder,
        stall_timeout=config.engine.stall_timeout,
        attempts=config.engine.attempts,
        spot_notices=config.actors.spot_notices,
    )


def concepts_url(run: Run) -> str:
    """Where the run's concepts lie; empty when it has none."""
    concepts = run.plan.learned.concepts
    return f"{run.storage.url}/{concepts_folder(concepts)}" if concepts else ""


def embedder(config: Config) -> str | None:
    return None if config.dedup.embedder == OFF else embedder_everywhere(config.dedup.embedder)


def guidance_interval(config: Config) -> tuple[float, float]:
    first, last = config.generation.guidance_interval
    return first, last


def spacing(config: Config) -> Spacing:
    return "leading" if config.inversion.preset == "reference" else "matched"
