"""The contact sheet: for each class its real images, numbered, and what came of them: parents, angle, suffix."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from diffii.dataset.snapshot import Snapshot
from diffii.images import ACCEPTED, decode
from engine.source import Source, SourceImage, iter_bytes

REAL, SYNTHETIC, CLASSES = 5, 10, 24
"""Images shown per class, and classes shown at most: a sheet is for looking at."""
TILE = 96
_GAP, _LABEL, _NAME, _MARGIN = 6, 28, 132, 18
_INK, _SOFT, _PAPER, _FRAME = "#1c1c1c", "#6b6b6b", "#ffffff", "#c9873a"


@dataclass(frozen=True, slots=True)
class _Tile:
    image: Image.Image
    lines: tuple[str, ...]
    framed: bool


def contact_sheet(source: Source, snapshot: Snapshot, title: str) -> bytes:
    """A PNG. Real images are framed and numbered; synthetic ones are spread over the class's rows, each suffix in turn.

    Below a synthetic image stand its suffix, the numbers of its two parents, and its angle on their circle (phi): at 0
    degrees it begins where the first parent's inversion lies. Of an edited image, its number and the edit's strength.
    """
    shown = [label for label, images in enumerate(source.by_class) if images][:CLASSES]
    synthetic = _pick(snapshot, source, shown)
    real = min(REAL, max(len(source.by_class[label]) for label in shown))
    made = max((len(rows) for rows in synthetic.values()), default=0)
    width = 2 * _MARGIN + _NAME + (real + made) * (TILE + _GAP) + 3 * _GAP
    row_height = TILE + _LABEL + _GAP
    header = 52
    sheet = Image.new("RGB", (width, header + len(shown) * row_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 12), title, _INK, ImageFont.load_default(17))
    first_made = _MARGIN + _NAME + real * (TILE + _GAP) + 2 * _GAP
    draw.text((_MARGIN + _NAME, 34), "real", _FRAME, ImageFont.load_default(12))
    draw.text((first_made, 34), "synthetic", _SOFT, ImageFont.load_default(12))
    for position, label in enumerate(shown):
        top = header + position * row_height
        name = _shorten(source.classes[label], 17)
        draw.text((_MARGIN, top + TILE // 2 - 8), name, _INK, ImageFont.load_default(14))
        for column, tile in enumerate(_real_tiles(source, source.by_class[label][:real])):
            _paste(sheet, draw, tile, _MARGIN + _NAME + column * (TILE + _GAP), top)
        for column, tile in enumerate(synthetic.get(label, [])):
            _paste(sheet, draw, tile, first_made + column * (TILE + _GAP), top)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _real_tiles(source: Source, images: Sequence[SourceImage]) -> list[_Tile]:
    return [
        _Tile(decode(data, ACCEPTED), (str(number),), True)
        for number, data in enumerate(iter_bytes(source, images), start=1)
    ]


def _pick(snapshot: Snapshot, source: Source, labels: Sequence[int]) -> dict[int, list[_Tile]]:
    """Up to SYNTHETIC rows of each class, evenly over the ordinals, so that every context has its turn."""
    rows: dict[int, list[tuple[int, int, tuple[str, ...]]]] = {label: [] for label in labels}
    places = {image.sha256: (label, n) for label, of in enumerate(source.by_class) for n, image in enumerate(of, 1)}
    index = 0
    for table in snapshot.tables(["label", "ordinal", "suffix", "parent_a", "parent_b", "phi", "strength"]):
        for row in table.to_pylist():
            if (label := row["label"]) in rows:
                rows[label].append((row["ordinal"], index, (row["suffix"], _made_of(row, places, source.classes))))
            index += 1
    wanted: dict[int, tuple[int, tuple[str, ...]]] = {}
    for label, found in rows.items():
        found.sort()
        step = max(1.0, len(found) / SYNTHETIC)
        for k in range(min(SYNTHETIC, len(found))):
            _, number, lines = found[math.floor(k * step)]
            wanted[number] = (label, lines)
    tiles: dict[int, list[_Tile]] = {label: [] for label in labels}
    for number in sorted(wanted):  # in commit order, so that each shard is read once
        label, lines = wanted[number]
        tiles[label].append(_Tile(snapshot.image(number).convert("RGB"), lines, False))
    return tiles


def _made_of(row: dict[str, Any], places: Mapping[str, tuple[int, int]], classes: Sequence[str]) -> str:
    """What a row was made of, in a few characters."""
    unknown = (row["label"], "?")
    (label, a), (_, b) = places.get(row["parent_a"], unknown), places.get(row["parent_b"], unknown)
    if not row["parent_a"]:
        return ""
    if not row["parent_b"]:
        return f"{a if label == row['label'] else f'{classes[label]} {a}'}, {100 * row['strength']:.0f} %"
    return f"{f'{a}+{b}' if a != b else a}, {math.degrees(row['phi']):.0f}\u00b0"


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: _Tile, left: int, top: int) -> None:
    image = tile.image
    # Whole multiples stay crisp for small images; large ones are scaled down smoothly.
    small = max(image.size) <= TILE // 2
    image = image.resize((TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    sheet.paste(image, (left, top))
    if tile.framed:
        draw.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), outline=_FRAME, width=2)
    font = ImageFont.load_default(11)
    for number, line in enumerate(line for line in tile.lines if line):
        place = (left + TILE / 2, top + TILE + 2 + 12 * number)
        draw.text(place, _shorten(line, 18), _SOFT, font, anchor="ma")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"
