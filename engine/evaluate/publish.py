"""What a study leaves for people: a table in Markdown and a plot beside the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffii.dataset.storage import Storage
from diffii.errors import ConfigError
from diffii.protocols.task import Task
from engine.evaluate.plot import plot
from engine.evaluate.statistics import Line, summary
from engine.evaluate.study import Study
from engine.evaluate.tasks import draw


def publish(study: Study, rows: Sequence[Mapping[str, Any]], note: Callable[[str], None]) -> list[Line]:
    """Write both, named by the task; returns the lines of the table. Without matplotlib a note stands for the plot."""
    task = draw(study.questions, study.first_seed)
    lines = summary(rows, study.arms)
    storage, name = Storage(study.url), _title(task).replace(", ", "-").replace(" ", "-")
    storage.put(f"{name}.md", _markdown(study, task, lines).encode())
    figure = "worst_group" if study.questions.protocol in ("garments-ood", "cub-waterbird") else "accuracy"
    try:
        storage.put(f"{name}.png", plot(lines, figure, _title(task)))
        note(f"{storage.url}/{name}.png")
    except ConfigError as error:
        note(str(error))
    return lines


_EXPLORED = "Measured on the images that settings are chosen on, not on test images. "


def _title(task: Task) -> str:
    shots = f", {task.shots} shots" if task.shots else ""
    return task.name + shots + (f", imbalance {task.imbalance}" if task.imbalance else "")


def _markdown(study: Study, task: Task, lines: Sequence[Line]) -> str:
    text = [f"# {_title(task)}", "", *(f"- {rule}" for rule in task.rules), ""]
    chosen = f"chosen on {study.tuning_seeds} other draws" if study.tuning_seeds else "the usual one"
    told = [
        f"{name}: {chosen if given is None else f'{given} as given'}"
        for name, given in (("p", study.p), ("learning rate", study.lr))
    ]
    text += [
        f"{_EXPLORED if study.exploring else ''}"
        f"Mean over seeds, 95 % t-interval; differences are paired by seed. {'; '.join(told)}. "
        + (f"A figure of a seed is the mean of {study.trainings} trainings. " if study.trainings > 1 else "")
        + "Accuracy is that of the last step.",
        "",
    ]
    for figure in dict.fromkeys(line.figure for line in lines):
        text += [
            f"## {figure.replace('_', ' ')}, %",
            "",
            "| classifier | arm | mean | over real | over noise | seeds |",
            "|---|---|---|---|---|---|",
        ]
        for line in lines:
            if line.figure == figure:
                over = [line.over[other].difference if other in line.over else "" for other in ("real", "noise")]
                cells = [line.classifier, line.arm, str(line.value), *over, str(line.value.seeds)]
                text.append(f"| {' | '.join(cells)} |")
        text.append("")
    for figure in task.published:
        text.append(
            f"- published: {figure.method}, {figure.classifier}: {figure.metric} {figure.accuracy} ({figure.source})"
        )
    return "\n".join(text).rstrip() + "\n"
