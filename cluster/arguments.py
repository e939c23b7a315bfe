"""Arguments and options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import jobs

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="Labelled images: class folders, Parquet, tars, a list, a hub id; any URL."),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The expanded data set; any fsspec URL.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Actors = Annotated[int | None, typer.Option("--actors", min=1, help="How many actors work at once.")]
Address = Annotated[
    jobs.Address, typer.Option(help="auto: work on the Ray cluster that this machine is part of, as jobs do.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray says.")]


def names(text: str) -> tuple[str, ...]:
    """What is listed by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def settings_of(actors: int | None) -> dict[str, Any]:
    """The settings that `--actors` stands for."""
    return {} if actors is None else {"actors.min": actors, "actors.max": actors}
