"""What the command line prints: results on standard output, progress and messages on standard error."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffii.dataset import layout

if TYPE_CHECKING:
    from engine.evaluate.statistics import Line

console = Console(stderr=True)
"""Progress and messages."""
output = Console()
"""Results, for people and for pipes."""


def say(text: str) -> None:
    """A message to the person who started the command."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def tell(text: str) -> None:
    """A line of a result."""
    tell_to(output, text)


def tell_to(console: Console, text: str) -> None:
    """A line of a result, on another console."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))


def print_sheet(url: str) -> None:
    tell(f"{url}/{layout.CONTACT_SHEET}")


def print_estimate(found: dict[str, Any]) -> None:
    """The fields of an `engine.estimate.Estimate`."""
    speed = f"{rate(found['images_per_second'], 'images')} on {found['actors']} {found['device']} actors"
    learning = f"; {duration(found['learn_seconds'])} of it to learn the concepts" if found["learn_seconds"] else ""
    tell(
        f"plan: {found['synthetic_images']} images from {found['real_images']} of {found['classes']} classes, "
        f"{found['unet_rows']} U-Net rows; about {duration(found['seconds'])} at {speed}, "
        f"{_bytes(found['disk_bytes'])} of disk{learning}"
    )
    if found["skipped"]:
        tell(f"{found['skipped']} files are skipped; diffii expand names them")


def print_cost(found: dict[str, Any]) -> None:
    """The fields of an `engine.cost.Cost`."""
    if found["on_demand"] is not None:
        hours = f"{found['machine_hours']:.2f} machine-hours, {found['machines']} at once"
        tell(f"cost: {found['on_demand']:.2f} for {hours}")
    if found["spot"] is not None:
        each = f"each costs {duration(found['lost_seconds'])}, {100 * found['overhead']:.1f} % in all"
        tell(
            f"cost on spot: {found['spot']:.2f} for {found['spot_hours']:.2f} machine-hours; "
            f"{found['preemptions']:.1f} preemptions are expected, {each}"
        )


def print_head(found: dict[str, Any], to: Console = output) -> None:
    """The fields of an `engine.status.Status`, without those per class and per reason."""
    tell = functools.partial(tell_to, to)
    done = 100 * found["decided"] / found["planned"] if found["planned"] else 0
    tell(f"{found['url']}: {found['state']}, {done:.0f} % of {found['planned']} rows decided")
    tell(
        f"{found['kept']} kept in {found['shards']} shards ({_bytes(found['bytes'])}), "
        f"{found['rejected']} rejected, {found['poisoned']} poisoned, {found['staged']} waiting to be committed"
    )
    if found["driver"]:
        tell(f"{found['driver']} is at work{_doing(found['doing'], found['seconds_left'])}")
    if not found["reproducible"]:
        tell(f"not reproducible: {found['not_reproducible']}")


def print_status(found: dict[str, Any], to: Console = output) -> None:
    """The fields of an `engine.status.Status`."""
    print_head(found, to)
    table = Table("class", "kept", "wanted", box=None, pad_edge=False)
    for name, kept in found["classes"].items():
        table.add_row(Text(name), str(kept), str(found["targets"][name]))  # not markup: a class may be called `a [b]`
    to.print(table)
    for name, why in found["short"].items():
        tell_to(to, f"{name} is short: {why}")
    for reason, count in found["reasons"].items():
        tell_to(to, f"{count:6} {reason}")


def _doing(doing: dict[str, Any], seconds_left: float | None) -> str:
    """The fields of a `diffii.dataset.driver.Doing`, as the end of a line."""
    if not doing["stage"]:
        return ""
    parts = [f": {doing['stage']} {doing['done']} of {doing['wanted']} {doing['unit']}"]
    if doing["per_second"]:
        parts.append(rate(doing["per_second"], doing["unit"]))
    if seconds_left:
        parts.append(f"{duration(seconds_left)} left")
    if doing["waiting_seconds"]:
        parts.append(f"for {duration(doing['waiting_seconds'])} without capacity")
    if doing["actors_wanted"]:
        parts.append(f"{doing['actors_held']} of {doing['actors_wanted']} actors, {doing['actors_busy']} busy")
    return ", ".join(parts)


def print_verification(found: dict[str, Any]) -> None:
    """The fields of an `engine.verify.Verification`; problems go to standard error."""
    for name, value in found.items():
        if name != "problems" and value != "":
            tell(f"{name:16} {', '.join(value) or 'none' if isinstance(value, list) else value}")
    for problem in found["problems"]:
        say(f"wrong: {problem}")


def print_study(lines: Sequence[Line]) -> None:
    """A table per figure of what `engine.evaluate.statistics.summary` found."""
    for figure in dict.fromkeys(line.figure for line in lines):
        shown = [line for line in lines if line.figure == figure]
        others = sorted({other for line in shown for other in line.over}, reverse=True)
        table = Table("classifier", "arm", f"{figure}, %", *(f"over {other}" for other in others), "seeds", box=None)
        for line in shown:
            over = (line.over[other].difference if other in line.over else "" for other in others)
            table.add_row(Text(line.classifier), line.arm, str(line.value), *over, str(line.value.seeds))
        output.print(table)
        tell("")


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def rate(per_second: float, unit: str) -> str:
    """What takes long is told in seconds: of 0.03 trainings/s nobody knows how long they take."""
    if 0 < per_second < 0.1:
        return f"{1 / per_second:.0f} s each"
    return f"{per_second:.{1 if per_second < 100 else 0}f} {unit}/s"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
