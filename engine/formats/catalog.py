"""The formats by name."""

from __future__ import annotations

from engine.formats.image_folder import ImageFolder
from engine.formats.mds import Mds
from engine.formats.parquet import Parquet
from engine.formats.part import Format
from engine.formats.webdataset import WebDataset

FORMATS: dict[str, Format] = {kind.name: kind for kind in (Parquet(), WebDataset(), Mds(), ImageFolder())}
