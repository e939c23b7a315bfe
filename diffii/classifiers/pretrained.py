"""Any `transformers` image classification model by hub id or path, fine-tuned on the paper's schedules.

B batch   S edge of an image   K classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from diffii.classifiers.blending import blend
from diffii.classifiers.job import Job, batches, targets, warm_cosine
from diffii.dataset.labelled import Labelled
from diffii.errors import ModelError
from diffii.hashing import seed64
from diffii.model_checks import one_line

_PREDICT = 32
_SCALES = (0.25, 1.0)
"""Share of an image's area that a training crop shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast (method.md section 1): SGD 0.9, weight decay 5e-4, cosine with 10 % warm-up."""

    edge: int
    epochs: int
    batch: int
    lr: float


CONVOLUTIONAL = Schedule(edge=224, epochs=128, batch=256, lr=0.05)
"""ResNet-50, few shots. The paper's learning rates: CUB 0.05, Aircraft and Car 0.1, Pet 0.01."""
LONG_TAILED = Schedule(edge=224, epochs=200, batch=128, lr=0.005)
"""ResNet-50, a long tail."""
TRANSFORMER = Schedule(edge=384, epochs=100, batch=32, lr=1e-3)
"""ViT-B/16; Pet 1e-4."""


class Pretrained:
    """A model by name. Loads it once per training, from safetensors alone, with a fresh head of K classes."""

    def __init__(
        self, name: str, schedule: Schedule | None = None, device: str | None = None, long_tailed: bool = False
    ) -> None:
        """`long_tailed` is for the learning rates to propose. Raises ModelError when there is no such model."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"--classifier {name}: neither scratch, lite0, nor a transformers model: {one_line(error)}"
            ) from error
        self.name = name
        self._schedule = schedule
        self._is_transformer = hasattr(config, "num_attention_heads")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        usual = self._usual(long_tailed)
        self.learning_rates = (usual.lr / 5, usual.lr, 2 * usual.lr)

    def schedule(self, job: Job) -> Schedule:
        """The one given, else the paper's for this kind of model and task."""
        return self._usual(job.long_tailed)

    def _usual(self, long_tailed: bool) -> Schedule:
        if self._schedule is not None:
            return self._schedule
        if self._is_transformer:
            return TRANSFORMER
        return LONG_TAILED if long_tailed else CONVOLUTIONAL

    def __call__(self, job: Job) -> np.ndarray:
        schedule = self.schedule(job)
        # The whole training: dropout draws from torch's own generators, on a card from the card's.
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed64(job.seed, "weights") >> 1)
            model, mean, std = self._load(job.classes)
            model = model.to(self._device)
            view = _View(schedule.edge, mean.to(self._device), std.to(self._device), self._device)
            self._train(job, schedule, model, view)
        return self._predict(model.eval(), job.held, view)

    def _load(self, classes: int) -> tuple[Any, Tensor, Tensor]:
        from transformers import AutoModelForImageClassification
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            model = AutoModelForImageClassification.from_pretrained(
                self.name, num_labels=classes, ignore_mismatched_sizes=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"--classifier {self.name}: does not load as an image classifier from safetensors: {one_line(error)}"
            ) from error
        try:
            settings = ImageProcessingMixin.get_image_processor_dict(self.name)[0]
        except OSError:
            settings = {}
        mean = settings.get("image_mean") or (0.485, 0.456, 0.406)
        std = settings.get("image_std") or (0.229, 0.224, 0.225)
        return model, torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)

    def _train(self, job: Job, schedule: Schedule, model: Any, view: _View) -> None:
        real = len(job.real.labels)
        size = min(schedule.batch, real)
        steps = max(1, schedule.epochs * real // size)
        optimiser = torch.optim.SGD(model.parameters(), job.lr, momentum=0.9, weight_decay=5e-4)
        on_real, on_made = targets(job, smoothing=0.1)
        rng = np.random.Generator(np.random.Philox(seed64(job.seed, "augmentation")))
        source = batches(job, size)
        model.train()
        for step in range(steps):
            synthetic, index = next(source)
            images, wanted = [], []
            for is_made, number in zip(synthetic.tolist(), index.tolist(), strict=True):
                chosen = job.synthetic if is_made else job.real
                assert chosen is not None
                images.append(_augmented(chosen.image(number), schedule.edge, rng))
                wanted.append((on_made if is_made else on_real)[number])
            y = torch.from_numpy(np.stack(wanted)).to(self._device)
            x, y = blend(job.blend, job.p, view.tensor(images), y, rng)
            for group in optimiser.param_groups:
                group["lr"] = job.lr * warm_cosine(step, steps)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
                logits = _logits(model, x, self._is_transformer)
            loss = functional.cross_entropy(logits.float(), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    @torch.inference_mode()
    def _predict(self, model: Any, held: Labelled, view: _View) -> np.ndarray:
        found: list[Tensor] = []
        for start in range(0, len(held.labels), _PREDICT):
            numbers = range(start, min(start + _PREDICT, len(held.labels)))
            images = [_middle(held.image(number), view.edge) for number in numbers]
            found.append(_logits(model, view.tensor(images), self._is_transformer).argmax(1).cpu())
        return cast(np.ndarray, torch.cat(found).numpy())


@dataclass(frozen=True, slots=True)
class _View:
    """Images as a model sees them."""

    edge: int
    mean: Tensor
    std: Tensor
    device: torch.device

    def tensor(self, images: list[np.ndarray]) -> Tensor:
        """uint8 (S, S, 3) each -> float32 (B, 3, S, S), normalised as the model was trained."""
        x = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float()
        return (x / 255.0 - self.mean) / self.std


def _logits(model: Any, x: Tensor, is_transformer: bool) -> Tensor:
    # Positions were learned for one size; a transformer stretches them to another, a convolution has none.
    more = {"interpolate_pos_encoding": True} if is_transformer and _stretches(model) else {}
    return model(pixel_values=x, **more).logits


def _stretches(model: Any) -> bool:
    import inspect

    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def _augmented(image: Image.Image, edge: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of the image, mirrored or not: uint8 (edge, edge, 3)."""
    image = image.convert("RGB")
    side = min(image.size)
    side = min(side, max(1, round((rng.uniform(*_SCALES) * image.width * image.height) ** 0.5)))
    left, top = int(rng.integers(image.width - side + 1)), int(rng.integers(image.height - side + 1))
    square = image.resize((edge, edge), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return np.asarray(ImageOps.mirror(square) if rng.random() < 0.5 else square)


def _middle(image: Image.Image, edge: int) -> np.ndarray:
    """The middle square of an image whose shorter edge is scaled to 8/7 of `edge`, as is the custom."""
    image = image.convert("RGB")
    larger = round(edge * 8 / 7)
    scale = larger / min(image.size)
    whole = image.resize((max(larger, round(image.width * scale)), max(larger, round(image.height * scale))))
    left, top = (whole.width - edge) // 2, (whole.height - edge) // 2
    return np.asarray(whole.crop((left, top, left + edge, top + edge)))
