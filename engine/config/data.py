"""Settings of what comes in and what goes out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from diffii.images import MAX_BYTES, MAX_PIXELS, PILLOW_PIXELS, Fit
from engine.config.group import Count, Group

PARQUET = "parquet"


class SourceConfig(Group):
    url: str = ""
    """Labelled images: a folder of class folders; Parquet, or a directory of Hugging Face `datasets`; WebDataset tars;
    a CSV, TSV, JSON lines or Parquet list of paths; a data set of the hub, `owner/name`. A path or any fsspec URL."""
    license: str = ""
    """Licence of the images, for the card; by default what a README.md beside them says."""
    images: str = ""
    """What the paths of a list lie below, if that is not the list's own folder: a folder or the beginning of URLs."""
    split: str = ""
    """The split that is expanded; by default `train` where there is one, else everything."""
    holdout_split: str = ""
    """A split that is never expanded, nor any copy of an image in it. The leak report is about it if `dedup.holdout`
    names nothing else."""
    fit: Fit = "crop"
    """How an image becomes square: `crop` cuts the middle, `pad` adds white, `stretch` does not keep the aspect, as the
    published code does (for `inversion.preset=reference`)."""
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_PIXELS)] = MAX_PIXELS
    """An image that claims more is skipped before it is decoded."""
    max_bytes: Count = MAX_BYTES
    """A larger file is skipped."""
    min_edge: Count = 1
    """An image whose shorter edge has fewer pixels is skipped."""

    @model_validator(mode="after")
    def _splits_differ(self) -> SourceConfig:
        if self.split and self.split == self.holdout_split:
            raise ValueError(f"source.split={self.split}: is source.holdout_split too; a split is one or the other")
        return self


class OutputConfig(Group):
    url: str = ""
    """Where the expanded data set is written; any fsspec URL."""
    format: list[Literal["parquet", "webdataset", "mds", "imagefolder"]] = Field(default=[PARQUET])
    """Parquet, which every run writes; and further formats, each kept up in a folder of its name beside it."""
    include_real: bool = False
    """Put the real images in too, apart from the synthetic ones: in `real/`, their rows with `is_synthetic` false."""
    encoding: Literal["png", "webp", "jpeg"] = "png"
    """How images are stored. png and webp are lossless, jpeg has quality 95, unless `quality` says otherwise."""
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Quality of jpeg; or of webp, which then is no longer lossless."""
    mark: bool = True
    """Each image's own metadata say that a model made it (IPTC digital source type, in XMP)."""
    shard_rows: Count = 1000
    """A shard is published once this many kept rows are decided."""

    @field_validator("format", mode="before")
    @classmethod
    def _parquet_and_others(cls, value: Any) -> Any:
        named = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        return list(dict.fromkeys([PARQUET, *named])) if isinstance(named, (list, tuple)) else named

    @model_validator(mode="after")
    def _png_has_no_quality(self) -> OutputConfig:
        if self.encoding == "png" and self.quality is not None:
            raise ValueError(
                f"output.quality={self.quality}: png is lossless and has none; set output.encoding to webp or jpeg"
            )
        return self
