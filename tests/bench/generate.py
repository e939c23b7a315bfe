"""diffii against the published code's loop and a plain batched diffusers loop: `python -m tests.bench.generate --json`.

The rows of one plan are made by each in turn, round after round, in one process; images a second, inversion included,
at five synthetic images per real one, and the ratios of medians.

    reference   model loaded for every class, one image at a time, its prompts encoded each time, 200 + 25 steps
    batched     the same steps and guidance with the model resident and full batches
    eager       the same steps and guidance by diffii's actors: journals, PNG, staging on disk and hashes included
    ours        the same with `backbone.compile`; what compiling takes is told apart (`compile_s`)
    fast        diffii's actors with `backbone.compile` and `inversion.preset=fast`

On the CPU it is the embedded model on one core, to which the process is bound. With `--device cuda` it is Stable
Diffusion 1.5's architecture at 512 px in float16 with random weights, on which speed does not depend. The images of all
but `fast` are compared: they are the same but for the last bits. With `--no-compile` nothing is, and `ours` is what
`eager` else is.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before torch is imported: another number of threads is another benchmark.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from actors.generator import Generator
from actors.inverter import Inverter
from diffii.backbone import Backbone
from diffii.dataset import layout, staged
from diffii.denoise import guided_steps
from diffii.garments.catalog import CLASSES
from diffii.garments.data import draw_scenes
from diffii.images import encode
from diffii.schedule import steps_within
from diffii.weights import locate
from engine.inversions import missing_tasks, task_table
from engine.next_wave import first_wave
from engine.prepare import prepare
from engine.run import begin
from engine.settings import from_flat
from engine.specs import generator_spec, inverter_spec
from tests.bench.loops import Loop, Place, Work, work_of
from tests.engine.sources import PLAIN

FACTOR = 5
CALLS = 2
"""Chunks that are under way at once in an actor, as Ray gives them to it."""


class Ours:
    """The actors, without Ray between them."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self._settings, self._folder, self._round = settings, folder, 0
        self.compile_s: float | None = None
        """What compiling took when it was done first; later rounds find it in torch's cache."""

    def load(self) -> None:
        """A new output and new actors, compiled if they are to be."""
        self._round += 1
        self.run = prepare(from_flat({**self._settings, "output.url": str(self._folder / str(self._round))}))
        wave = first_wave(self.run.plan)
        assert wave is not None
        self.wave = wave
        self.inverter, self.generator = Inverter(inverter_spec(self.run)), Generator(generator_spec(self.run))
        if self.run.config.backbone.compile:
            began = time.perf_counter()
            self._compile()
            self.compile_s = self.compile_s or time.perf_counter() - began

    @torch.inference_mode()  # as the actors do: torch compiles anew for tensors made outside of it
    def _compile(self) -> None:
        """Call each U-Net at each shape that it will have, as an actor's first micro-batch does."""
        # Every round's models are versions of the same code to torch, which keeps eight.
        torch.compiler.reset()
        config = self.run.config
        guided = {1 + asked for asked in self._guided()}
        for actor, size, halves in (
            (self.inverter, config.inversion.micro_batch, {1}),
            (self.generator, config.generation.micro_batch, guided),
        ):
            backbone = actor._backbone
            grid = backbone.grid(2, "matched")
            for rows in (size * count for count in halves):
                x = torch.randn(rows, *backbone.latent_shape, device=backbone.device)
                backbone.epsilon(x, grid.timesteps[0], grid.alphas[0], backbone.prompts([""] * rows))

    def make(self) -> None:
        run = self.run
        begin(run)
        tasks = task_table(missing_tasks(run), run.config.inversion.micro_batch)
        chunks = range(run.plan.chunk_count(self.wave))
        with ThreadPoolExecutor(CALLS) as threads:
            list(threads.map(self.inverter, (tasks.slice(row, 1) for row in range(len(tasks)))))
            list(threads.map(lambda chunk: self.generator(run.plan.table(self.wave, [chunk])), chunks))

    def images(self) -> dict[Place, np.ndarray]:
        """What was staged, uint8 (S, S, 3) by place in the plan: a compiled row has a sample id of its own."""
        run, found = self.run, {}
        for chunk in range(run.plan.chunk_count(self.wave)):
            for row in staged.read_rows(run.storage, layout.staged_chunk(0, chunk)).to_pylist():
                found[row["label"], row["ordinal"]] = np.asarray(Image.open(io.BytesIO(row["image"])))
        return found

    def unet_rows(self) -> int:
        run, climb, guided = self.run, self.inverter._grid, self._guided()
        assert climb is not None
        climbs = climb.steps - steps_within(climb, run.config.inversion.diffuse)
        return len(run.source.images) * climbs + run.plan.row_count(self.wave) * (len(guided) + sum(guided))

    def _guided(self) -> tuple[bool, ...]:
        generation = self.run.config.generation
        first, last = generation.guidance_interval
        return guided_steps(self.generator._grid, generation.guidance_scale, (first, last))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    device = torch.device(options.device)
    settings, compiling = settings_of(options, folder), {"backbone.compile": options.compile}
    contenders = {
        "ours": Ours({**settings, **compiling, "inversion.preset": "reference"}, folder / "ours"),
        "fast": Ours({**settings, **compiling, "inversion.preset": "fast"}, folder / "fast"),
    }
    if options.compile:
        contenders["eager"] = Ours({**settings, "inversion.preset": "reference"}, folder / "eager")
    contenders["ours"].load()
    run, wave = contenders["ours"].run, contenders["ours"].wave
    work = work_of(run, run.plan.rows(wave, 0, run.plan.row_count(wave)))
    model, dtype = locate(settings["backbone.model"]), torch.float16 if device.type == "cuda" else torch.float32
    loops = {
        "reference": Loop(model, device, dtype, batch=1, reload=True),
        "batched": Loop(model, device, dtype, batch=options.micro_batch, reload=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*loops, *contenders)}
    memory: dict[str, float] = {}
    made: dict[str, dict[Place, np.ndarray]] = {}
    for number in range(options.rounds):
        for name, taken in seconds.items():
            if name in loops:
                call: Callable[[], Any] = lambda loop=loops[name]: loop.make(work)  # noqa: E731
            else:
                contenders[name].load()
                call = contenders[name].make
            took, memory[name], result = timed(call, device)
            print(f"bench: round {number + 1}, {name}: {took:.1f} s", file=sys.stderr, flush=True)
            taken.append(took)
            made[name] = result if name in loops else contenders[name].images()
    rows = len(work.rows)
    speed = {name: rows / statistics.median(taken) for name, taken in seconds.items()}
    equal = len(work.pictures) * work.inversion_steps + rows * work.steps * 2
    ratios = [("ours", "reference"), ("fast", "reference"), ("ours", "batched")]
    ratios += [("eager", "reference"), ("eager", "batched")] if options.compile else []
    return {
        **{f"{one}_over_{other}": round(speed[one] / speed[other], 3) for one, other in ratios},
        "images_per_second": {name: round(value, 4) for name, value in speed.items()},
        "seconds": {name: [round(value, 3) for value in taken] for name, taken in seconds.items()},
        "compile_s": {name: round(one.compile_s, 1) for name, one in contenders.items() if one.compile_s is not None},
        "unet_rows": dict.fromkeys(seconds, equal) | {"fast": contenders["fast"].unet_rows()},
        "peak_gpu_gib": memory if device.type == "cuda" else None,
        "largest_mean_difference_of_an_image": {
            name: round(difference(made[name], made["reference"]), 3) for name in made.keys() - {"reference", "fast"}
        },
        "work": {"real": len(work.pictures), "synthetic": rows, "classes": len({p.label for p in work.pictures})},
        "stages": stages(contenders["ours"].generator._backbone, work, options),
    }


def settings_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A source of whole micro-batches, and the model: the embedded one, or SD-1.5's architecture on a card."""
    size, model = 32, "garments"
    if options.device == "cuda":
        # Here, not above: it imports much, and only a card needs it.
        from tests.diffii.stable_diffusion import STABLE_DIFFUSION_1_5, build

        size, model = 512, str(build(folder / "model", STABLE_DIFFUSION_1_5))
    scenes = draw_scenes([options.shots] * len(CLASSES), np.random.default_rng(0))
    for scene in (scene for scene in scenes if scene.label < options.classes):
        place = folder / "source" / CLASSES[scene.label]
        place.mkdir(parents=True, exist_ok=True)
        shown = Image.fromarray(scene.pixels).resize((size, size), Image.Resampling.BICUBIC)
        shown.save(place / f"{scene.photo:04d}-{scene.context}.png")
    return {
        **PLAIN,
        "source.url": str(folder / "source"),
        "backbone.model": model,
        "backbone.attention": options.attention,
        "expansion.factor": FACTOR,
        "inversion.micro_batch": options.micro_batch,
        "generation.micro_batch": options.micro_batch,
    }


def stages(backbone: Backbone, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of each part, per row or image, at the micro-batch; and the share of the measured matrix rate."""
    device, rows = backbone.device, options.micro_batch
    grid = backbone.grid(2, "matched")
    x = torch.randn(2 * rows, *backbone.latent_shape, device=device)
    text = backbone.prompts([work.pictures[0].prompt] * (2 * rows))
    image = np.zeros((backbone.image_size, backbone.image_size, 3), np.uint8)

    def unet() -> None:
        backbone.epsilon(x, grid.timesteps[0], grid.alphas[0], text)

    def prompt() -> None:
        backbone._prompts.clear()
        backbone.prompt(work.pictures[0].prompt)

    def per_call(call: Callable[[], Any]) -> float:
        call()
        return statistics.median(timed(call, device)[0] for _ in range(5))

    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():  # the eager U-Net: what is compiled does not tell what it multiplies
        backbone.pipeline.unet(x.to(backbone.dtype), grid.timesteps[0], encoder_hidden_states=text)
    flops, call = counter.get_total_flops(), per_call(unet)
    edge = 8192 if device.type == "cuda" else 1024
    a = torch.randn(edge, edge, device=device, dtype=backbone.dtype)
    rate = 2 * edge**3 / per_call(lambda: a @ a)
    return {
        "text_ms": round(1e3 * per_call(prompt), 3),
        "unet_ms_per_row": round(1e3 * call / (2 * rows), 3),
        "decode_ms_per_image": round(1e3 * per_call(lambda: backbone.decode(x[:rows])) / rows, 3),
        "encode_ms_per_image": round(1e3 * per_call(lambda: encode(image, "png")), 3),
        "unet_tflop_per_s": round(flops / call / 1e12, 4),
        "matmul_tflop_per_s": round(rate / 1e12, 4),
        "share_of_matrix_rate": round(flops / call / rate, 3),
    }


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, float, Any]:
    """Seconds of a call, GiB of the card at most, and its result."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took = time.perf_counter() - began
    return took, round(torch.cuda.max_memory_allocated(device) / 2**30, 3) if device.type == "cuda" else 0.0, result


def difference(images: dict[Place, np.ndarray], others: dict[Place, np.ndarray]) -> float:
    """The mean difference of 255 in the image in which it is largest."""
    assert images.keys() == others.keys()
    return max(float(np.abs(images[key].astype(np.int16) - others[key]).mean()) for key in images)


def environment(device: torch.device) -> dict[str, Any]:
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy", "Pillow")}
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one core"
    return {"measured_on": card, "python": platform.python_version(), "platform": platform.platform(), **packages}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generate", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="print the whole object, not only the ratios")
    parser.add_argument("--out", type=Path, help="write the object here too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--shots", type=int, default=4, help="real images per class")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--attention", choices=("auto", "sdpa", "xformers"), default="auto")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench: torch sees no CUDA card here", file=sys.stderr)
        return 2
    if options.device == "cpu":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="diffii-bench-") as folder:
        found = measure(options, Path(folder))
    command = " ".join(["python -m tests.bench.generate", *(sys.argv[1:] if arguments is None else arguments)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report = {"command": command, **environment(torch.device(options.device)), **found, "peak_gib": round(peak, 3)}
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report if options.json else {key: report[key] for key in report if "_over_" in key}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
