"""Learning concepts: gradients for the new tokens' rows and the LoRA alone.

A step's rows go through the model in parts of `learn.micro_batch`, whoever computes them (`diffii.concepts.workers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffii.backbone import Backbone
from diffii.concepts.draws import Draw, Draws
from diffii.concepts.lesson import Lesson
from diffii.concepts.losses import RowLosses
from diffii.concepts.progress import Progress
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.concepts.tokens import TokenTable, start_rows
from diffii.concepts.workers import ALONE, Workers
from diffii.errors import ModelError
from diffii.lora import start_adapter, stop_adapter


class Learner:
    """One worker's share of learning. `step()` until `finished`; the tensors of `parameters` are what is learned."""

    def __init__(
        self,
        backbone: Backbone,
        lesson: Lesson,
        latents: Tensor,
        settings: LearnSettings,
        workers: Workers = ALONE,
        base: Concepts | None = None,
    ) -> None:
        """`latents` comes from `diffii.concepts.losses.encode_images`. The backbone is lent until `release()`.

        Of `base`, only tokens of classes that have images here are learned anew. Raises ModelError.
        """
        self.settings, self.lesson, self.workers = settings, lesson, workers
        self._backbone = backbone
        backbone.use(base)
        unet, encoder = backbone.pipeline.unet, backbone.pipeline.text_encoder
        table = encoder.get_input_embeddings()
        table = table.table if isinstance(table, TokenTable) else table
        rows = start_rows(backbone.pipeline.tokenizer, table.weight, lesson.words, lesson.metaclass, settings.tokens)
        self._base = base
        if base is not None:
            _keep(rows, base, lesson, settings.tokens)
        self._table = TokenTable(table, rows.to(backbone.device))
        self._losses = RowLosses(backbone, lesson, latents, settings.tokens, table.num_embeddings)
        encoder.set_input_embeddings(self._table)
        # A base's LoRA is in the weights already. Its tokens get no gradient, as no prompt here names them.
        self._adapts = bool(settings.rank) and base is None
        adapter = start_adapter(unet, settings.rank, settings.seed) if self._adapts else {}
        self.parameters: dict[str, Tensor] = {"tokens": self._table.rows, **adapter}
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        groups = [{"params": [self._table.rows], "lr": settings.token_lr, "weight_decay": 0.0}]
        if adapter:
            decay = settings.weight_decay
            groups.append({"params": list(adapter.values()), "lr": settings.lora_lr, "weight_decay": decay})
        self._rates = [float(group["lr"]) for group in groups]
        self.optimiser = torch.optim.AdamW(groups)
        # Only float16 is so narrow that small gradients vanish in it.
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=backbone.dtype == torch.float16)
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()} if settings.ema else {}
        self.progress = Progress(len(lesson.classes))
        kind: dict[str, Any] = {"balanced": settings.balanced, "flip": len(latents) == 2, "skew": settings.skew}
        self._draws = Draws(lesson.labels, settings.seed, self._losses.timesteps, **kind)
        held = Draws(lesson.labels, settings.seed, self._losses.timesteps, stream="held out", **kind)
        self._held = held.batch(0, settings.check_rows)

    @property
    def finished(self) -> bool:
        return self.progress.stopped or self.progress.step >= self.settings.steps

    def step(self) -> float:
        """One step of the optimiser, and a look at the held-out draws where one is due; the loss of all its rows."""
        settings, progress = self.settings, self.progress
        draws = self._draws.batch(progress.step, settings.batch)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * settings.rate(progress.step)
        losses = self._gradients(draws)
        self.scaler.unscale_(self.optimiser)
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        progress.step += 1
        self._remember()
        late = progress.step > settings.steps // 2
        progress.add([self.lesson.labels[draw.image] for draw in draws], losses, late)
        if progress.step % settings.check_every == 0 or progress.step == settings.steps:
            self._check()
        return float(losses.mean())

    def release(self) -> None:
        """Give the backbone back as it was."""
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        self._backbone.pipeline.text_encoder.set_input_embeddings(self._table.table)
        if self._adapts:
            stop_adapter(self._backbone.pipeline.unet)
        if self._base is not None:
            self._backbone.use(None)

    def result(self) -> Concepts:
        """What was learned so far."""
        found = {k: v.detach().float().cpu().clone() for k, v in (self.average or self.parameters).items()}
        settings, lesson, progress = self.settings, self.lesson, self.progress
        about = {
            "model": self._backbone.record.model,
            "template": lesson.template,
            "metaclass": lesson.metaclass,
            "settings": settings.to_dict(),
            "steps": progress.step,
            "stopped_at": progress.step if progress.stopped and progress.step < settings.steps else None,
            "losses": progress.curve,
            "losses_by_class": progress.per_class(lesson.classes),
        }
        tokens = found.pop("tokens")
        return Concepts(lesson.tokens(settings.tokens), tokens, found if self._base is None else self._base.lora, about)

    def _gradients(self, draws: Sequence[Draw]) -> Tensor:
        """Leave the gradients of the mean loss in the parameters; each row's loss, float32 (B,) on the CPU."""
        parts, parameters = self._parts(draws), list(self.parameters.values())
        made: list[Tensor] = []
        for index in self.workers.share(len(parts)):
            self.optimiser.zero_grad()
            losses = self._losses(parts[index])
            self.scaler.scale(losses.sum() / len(draws)).backward()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            made.append(torch.cat([*(one.flatten() for one in gradients), self._padded(losses.detach())]))
        sizes = [parameter.numel() for parameter in parameters]
        rows = self._of_all(made, len(parts), sum(sizes) + self.settings.micro_batch)
        total, losses = rows[0], rows[:, sum(sizes) :].flatten()[: len(draws)]
        for row in rows[1:]:
            total = total + row
        for parameter, part in zip(parameters, total[: sum(sizes)].split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        return losses.cpu()

    def _parts(self, draws: Sequence[Draw]) -> list[Sequence[Draw]]:
        """Draws of one call of the model each: only the last may have fewer."""
        size = self.settings.micro_batch
        return [draws[start : start + size] for start in range(0, len(draws), size)]

    def _padded(self, losses: Tensor) -> Tensor:
        return F.pad(losses, (0, self.settings.micro_batch - len(losses)))

    def _of_all(self, mine: Sequence[Tensor], parts: int, size: int) -> Tensor:
        return self.workers.gather(mine, parts, size, self._backbone.device)

    @torch.no_grad()
    def _check(self) -> None:
        """The loss on the held-out draws, shared out among the workers; decides whether to stop early."""
        settings, progress, parts = self.settings, self.progress, self._parts(self._held)
        mine = [self._padded(self._losses(parts[index])) for index in self.workers.share(len(parts))]
        losses = self._of_all(mine, len(parts), settings.micro_batch)
        held_out = float(losses.double().sum()) / len(self._held)
        if not math.isfinite(held_out):
            raise ModelError(
                f"learning diverged: the loss is {held_out} after {progress.step} steps. Lower learn.token_lr and "
                "learn.lora_lr, or use backbone.dtype=bf16 or fp32."
            )
        progress.check(held_out, settings)

    @torch.no_grad()
    def _remember(self) -> None:
        keep = min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.average.items():
            value.lerp_(self.parameters[name].detach(), 1.0 - keep)


def _keep(rows_ND: Tensor, base: Concepts, lesson: Lesson, count: int) -> None:
    """Put the vectors of `base` into a lesson's rows, but for classes that have images there. Raises ModelError."""
    ours = lesson.tokens(count)
    for label, (name, tokens) in enumerate(ours.items()):
        if name not in base.tokens or label in lesson.labels:
            continue
        if base.tokens[name] != tokens:
            raise ModelError(
                f"the known concepts name {name!r} by {base.name_of(name)}, and here it would be {' '.join(tokens)}: "
                "classes keep their order and their number of tokens"
            )
        for part, word in enumerate(tokens):
            rows_ND[label * count + part] = base.vectors[base.rows[word]]
