"""The data set card: README.md of an output.

It is there before the first shard, because its front matter makes `datasets.load_dataset` look at `data/` alone; and it
is rewritten at every commit, because `datasets` caches a local folder by its name and its card: with an unchanged card
it goes on showing the rows it saw first, even those of another folder of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from diffii.arms import DIFF_II
from diffii.dataset import layout
from engine.config import Config

# With libyaml, where there is one: the card is written at every commit.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Counts:
    rows: int
    real: int
    shards: int
    content: str
    """A hash of what is committed, so that another content is another card."""
    complete: bool


def data_set_card(classes: Sequence[str], config: Config, counts: Counts) -> str:
    files = [{"split": "train", "path": f"{layout.DATA}/train-*.parquet"}]
    front = {
        "configs": [{"config_name": "default", "description": f"diffii {counts.content}", "data_files": files}],
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "diff-ii", "data-augmentation"],
    }
    lines = ["---", yaml.dump(front, Dumper=_Dumper, sort_keys=False).strip(), "---", "", "# Expanded with diffii", ""]
    lines += [
        f"{counts.rows} synthetic images of {len(classes)} classes in {counts.shards} shards, "
        f"made from {counts.real} real ones.",
        "",
    ]
    if counts.complete:
        lines += [f"![Real images and what came of them]({layout.CONTACT_SHEET})", ""]
    else:
        lines += ["It is still being written; what is committed so far can be read.", ""]
    lines += [
        "Method: inversion circle interpolation with two-stage denoising (Diff-II, arXiv 2408.16266)."
        if config.arm.name == DIFF_II
        else f"Method: {config.arm.name}, a control for Diff-II (arXiv 2408.16266).",
        "Every image is synthetic; its row names its two parents, angle, suffix and seed.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| `{key}` | {_cell(value)} |" for key, value in config.identity().items() if value not in ("", {}, [])),
        "",
        "The licences of the model and of the real images apply to what is derived from them.",
        "",
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{key} = {words}" for key, words in value.items())
    elif isinstance(value, (list, tuple)):
        value = ", ".join(str(item) for item in value)
    return str(value).replace("|", "\\|").replace("\n", " ")
