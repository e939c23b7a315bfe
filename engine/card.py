"""The data set card: README.md of an output, and of a copy in another format.

It is there before the first shard, because its front matter makes `datasets.load_dataset` look at `data/` alone; and it
is rewritten at every commit, because `datasets` caches a local folder by its name and its card: with an unchanged card
it goes on showing the rows it saw first, even those of another folder of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from diffii.arms import DIFF_II
from diffii.dataset import layout
from diffii.provenance import DIGITAL_SOURCE_TYPE
from engine.config import Config
from engine.formats.parquet import Parquet
from engine.licences import KEY

# With libyaml, where there is one: the card is written at every commit.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LISTED = 100
"""Classes whose rows are told, at most."""


@dataclass(frozen=True)
class Counts:
    rows: int
    real: int
    shards: int
    content: str
    """A hash of what is committed, so that another content is another card."""
    complete: bool
    per_class: Mapping[str, int] = field(default_factory=dict)
    """Class -> synthetic images."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the images come from."""

    sources: Mapping[str, Any] = field(default_factory=dict)
    """What it is -> which one."""
    licences: Sequence[tuple[str, str]] = ()
    """(part, licence)"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """In which form they lie here."""

    format: str = Parquet.name
    patterns: Sequence[str] = (Parquet.patterns["data"],)
    """What `datasets.load_dataset` is to read; empty where it cannot."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are others here than the data set's own."""
    features: Sequence[Mapping[str, Any]] = ()
    """What the columns hold, where single files do not know all of it."""
    include_real: bool = False
    usage: str = ""
    contact_sheet: bool = True


def data_set_card(
    classes: Sequence[str],
    config: Config,
    counts: Counts,
    origin: Origin | None = None,
    shape: Shape | None = None,
) -> str:
    """The whole file; the same facts give the same bytes."""
    origin, shape = origin or Origin(), shape or Shape()
    lines = ["---", *_front(counts, origin, shape), "---", "", "# Expanded with diffii", ""]
    lines += [
        f"{counts.rows} synthetic images of {len(classes)} classes in {counts.shards} shards, "
        f"made from {counts.real} real ones.",
        "",
    ]
    if not counts.complete:
        lines += ["It is still being written; what is committed so far can be read.", ""]
    elif shape.contact_sheet:
        lines += [f"![Real images and what came of them]({layout.CONTACT_SHEET})", ""]
    lines += [
        "Method: inversion circle interpolation with two-stage denoising (Diff-II, arXiv 2408.16266)."
        if config.arm.name == DIFF_II
        else f"Method: {config.arm.name}, a control for Diff-II (arXiv 2408.16266).",
        *_synthetic(config, counts, shape),
        "",
    ]
    settings = {**config.identity(), **shape.settings}
    if shape.usage:
        lines += [f"Format: {shape.format}. To read it:", "", f"    {shape.usage}", ""]
    lines += _table("source", "", origin.sources)
    lines += _table("setting", "value", {f"`{key}`": value for key, value in settings.items()})
    lines += _per_class(counts.per_class)
    lines += _table("part", "licence", dict(origin.licences))
    lines += ["The licences of the model and of the real images apply to what is derived from them.", ""]
    return "\n".join(lines)


def _front(counts: Counts, origin: Origin, shape: Shape) -> list[str]:
    front: dict[str, Any] = {}
    if shape.patterns:
        paths = list(shape.patterns)
        files = [{"split": "train", "path": paths[0] if len(paths) == 1 else paths}]
        front["configs"] = [{"config_name": "default", "description": f"diffii {counts.content}", "data_files": files}]
    if shape.features:
        front["dataset_info"] = {"features": [dict(column) for column in shape.features]}
    front |= {
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "diff-ii", "data-augmentation"],
    }
    if origin.licences:
        front[KEY] = dict(origin.licences)
    return [yaml.dump(front, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120).strip()]


def _synthetic(config: Config, counts: Counts, shape: Shape) -> list[str]:
    if shape.include_real:
        lines = [
            f"The {counts.real} real images are here too: their rows have `is_synthetic` false and no recipe. Every "
            "other image is synthetic; its row names its two parents, angle, suffix and seed."
        ]
    else:
        lines = ["Every image is synthetic; its row names its two parents, angle, suffix and seed."]
    if config.output.mark:
        lines += [f"So does its file: its metadata (XMP) give IPTC's digital source type <{DIGITAL_SOURCE_TYPE}>."]
    return lines


def _per_class(rows: Mapping[str, int]) -> list[str]:
    if len(rows) <= _LISTED:
        return _table("class", "synthetic images", rows)
    counts = sorted(rows.values())
    return [f"Synthetic images per class: {counts[0]} to {counts[-1]}, median {counts[len(counts) // 2]}.", ""]


def _table(left: str, right: str, rows: Mapping[str, Any]) -> list[str]:
    shown = {name: value for name, value in rows.items() if value not in ("", {}, [], None)}
    if not shown:
        return []
    return [f"| {left} | {right} |", "|---|---|", *(f"| {_cell(k)} | {_cell(v)} |" for k, v in shown.items()), ""]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{key} = {words}" for key, words in value.items())
    elif isinstance(value, (list, tuple)):
        value = ", ".join(str(item) for item in value)
    return str(value).replace("|", "\\|").replace("\n", " ")
