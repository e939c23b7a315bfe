"""Bytes <-> pixels: decode a user's image safely, fit it to the model, encode what the model made."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from diffii.provenance import MADE_BY_A_MODEL, PNG_KEYWORD

Encoding = Literal["png", "webp", "jpeg"]
Fit = Literal["crop", "pad", "stretch"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".avif"}
)
OTHER_IMAGES = frozenset(
    {".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".ico", ".tga", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
"""What people keep images in and is not read here: named where it is met, not passed over."""
MAX_PIXELS = 100_000_000
"""A larger image is refused before it is decoded: a small file can claim to be gigapixels."""
MAX_BYTES = 256 * 2**20
JPEG_QUALITY = 95
PILLOW_PIXELS = 178_956_970
"""Pillow itself refuses more."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Whatever a file is called, nothing else is tried: for some formats Pillow runs another program (EPS: Ghostscript)."""

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for damaged files, found by feeding it truncated and bit-flipped ones (AVIF: RuntimeError)."""


class UnreadableImage(Exception):
    """Why bytes are no usable image."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much, or too little, of an image."""

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    min_edge: int = 1
    """Pixels of the shorter edge."""


ACCEPTED = Limits(PILLOW_PIXELS, 2**40)
"""For bytes that a scan has accepted, whatever its limits were: told by their hash."""

_LARGE = 16_000_000
_one_large = threading.Lock()
"""Several images of 100 million pixels, decoded at once in threads, have taken gigabytes."""


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:
    """An RGB image, upright, first frame; alpha lies on white. Raises UnreadableImage with the reason."""
    if not data:
        raise UnreadableImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise UnreadableImage(f"{len(data)} bytes are more than the limit of {limits.max_bytes}")
    try:
        with warnings.catch_warnings():
            # Pillow warns above its own, lower limit; ours is checked just below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            if width * height > limits.max_pixels:
                raise UnreadableImage(f"{width}x{height} pixels are more than the limit of {limits.max_pixels}")
            if min(width, height) < limits.min_edge:
                raise UnreadableImage(f"{width}x{height} pixels: the shorter edge is below {limits.min_edge}")
            with _one_large if width * height > _LARGE else contextlib.nullcontext():
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise UnreadableImage(str(error)) from error
    except _BROKEN as error:
        if data.lstrip()[:1] == b"<":
            raise UnreadableImage("it is HTML or XML, not an image (a saved error page?)") from error
        text = str(error) or type(error).__name__
        raise UnreadableImage("not an image" if "cannot identify" in text else f"damaged: {text}") from error


def remark(data: bytes) -> str:
    """What a user should hear of an image that is usable: that frames after the first are left out; else empty."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            moving = getattr(Image.open(io.BytesIO(data), formats=_FORMATS), "is_animated", False)
    except _BROKEN:
        # A damaged second frame: the first one has been decoded.
        return ""
    return "of several frames or pages the first is used" if moving else ""


def named(how: Fit) -> dict[str, str]:
    """What a way of fitting adds to the name of what is made of images; nothing for `crop`: names are older than it."""
    return {} if how == "crop" else {"fit": how}


def fit(image: Image.Image, size: int, how: Fit = "crop") -> np.ndarray:
    """Bring an image to a square; uint8 (size, size, 3).

    `crop` scales the shorter edge to `size` and cuts the middle square; `pad` scales the longer edge and fills up with
    white, as under transparency; `stretch` scales both edges and does not keep the aspect, as the published code does
    (method.md section 3, item 13).
    """
    if image.size != (size, size):
        if how == "crop":
            image = ImageOps.fit(image, (size, size), method=Image.Resampling.LANCZOS)
        elif how == "pad":
            image = ImageOps.pad(image, (size, size), method=Image.Resampling.LANCZOS, color="white")
        else:
            image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


def encode(pixels: np.ndarray, encoding: Encoding, quality: int | None = None, mark: bool = False) -> bytes:
    """Encode uint8 (H, W, 3); the same pixels give the same bytes for one version of Pillow.

    `quality`, 1 to 100, is that of jpeg (95 by default) and of webp (lossless by default); png has none. With `mark`
    the file says that a model made it (`diffii.provenance`).
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    xmp = {"xmp": MADE_BY_A_MODEL.encode()} if mark else {}
    if encoding == "png":
        chunks = PngImagePlugin.PngInfo()
        if mark:
            chunks.add_itxt(PNG_KEYWORD, MADE_BY_A_MODEL)
        image.save(buffer, "PNG", compress_level=1 if image.width > 64 else 9, pnginfo=chunks)
    elif encoding == "webp" and quality is None:
        # Method 0 is four times faster than PNG at level 1 and no larger.
        image.save(buffer, "WEBP", lossless=True, method=0, quality=0, **xmp)
    elif encoding == "webp":
        image.save(buffer, "WEBP", quality=quality, **xmp)
    else:
        # Colours at full resolution: fine-grained classes differ in small coloured marks.
        image.save(buffer, "JPEG", quality=JPEG_QUALITY if quality is None else quality, subsampling=0, **xmp)
    return buffer.getvalue()


def extension(encoding: Encoding) -> str:
    return "jpg" if encoding == "jpeg" else encoding


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I", "I;16", "I;16B", "I;16L", "F"}:
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
        top = 65535.0 if image.mode != "F" else max(1.0, float(values.max(initial=1.0)))
        return Image.fromarray((np.clip(values / top, 0, 1) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
