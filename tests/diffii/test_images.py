"""Whatever bytes a user has: an upright RGB image, or one reason why not; and pixels that survive being stored."""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffii import images
from diffii.images import ACCEPTED, Encoding, Fit, Limits, UnreadableImage, decode, encode, extension, fit, remark

WIDTH, HEIGHT = 24, 16
ORIENTATION = 0x0112
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")


def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A gradient with something different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def reason(data: bytes, limits: Limits = Limits()) -> str:  # noqa: B008
    with pytest.raises(UnreadableImage) as caught:
        decode(data, limits)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


# --- damaged and hostile files


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_unreadable(kind: str, part: float) -> None:
    data = saved(photo(120, 80), kind)
    why = reason(data[: int(len(data) * part)])
    assert why.startswith("damaged: ") or kind in {"AVIF", "TIFF", "WEBP"}


def _variety() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    image, frames = photo(), [photo().convert("P"), photo().rotate(90).convert("P")]
    return {
        "png": saved(image, exif=exif),
        "png palette": saved(image.convert("P"), transparency=3),
        "png 16 bit": saved(image.convert("I;16")),
        "png animated": saved(image, save_all=True, append_images=[image.rotate(3)]),
        "jpeg": saved(image, "JPEG", exif=exif),
        "jpeg cmyk": saved(image.convert("CMYK"), "JPEG"),
        "jpeg progressive": saved(image, "JPEG", progressive=True),
        "webp": saved(image, "WEBP", exif=exif),
        "gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bmp": saved(image, "BMP"),
        "ppm": saved(image, "PPM"),
        "tiff": saved(image, "TIFF"),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff float": saved(image.convert("F"), "TIFF"),
        "avif": saved(image, "AVIF"),
    }


def _corrupted(data: bytes, chance: random.Random) -> bytes:
    broken = bytearray(data)
    way = chance.randrange(4)
    if way == 0:
        return bytes(broken[: chance.randrange(len(broken))])
    if way == 1:
        start = chance.randrange(len(broken))
        broken[start : start + chance.randrange(1, 30)] = chance.randbytes(chance.randrange(30))
        return bytes(broken)
    reach = len(broken) if way == 2 else min(len(broken), 200)
    for _ in range(chance.randrange(1, 9)):
        broken[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(broken)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("name", list(_variety()))
def test_corruption_gives_an_image_or_a_reason_and_nothing_else(name: str) -> None:
    data, chance = _variety()[name], random.Random(name)
    readable = 0
    for _ in range(60):
        try:
            image = decode(_corrupted(data, chance))
        except UnreadableImage as error:
            assert str(error)
        else:
            assert image.mode == "RGB" and np.asarray(image).ndim == 3
            readable += 1
    assert readable < 60


@given(st.binary(max_size=400))
@settings(max_examples=60)
def test_noise_is_no_image(data: bytes) -> None:
    assert reason(data)


@pytest.mark.parametrize("page", [b"<html><body>404</body></html>", b"\n <!DOCTYPE html><p>", b"<?xml version='1.0'?>"])
def test_a_saved_error_page_is_recognised(page: bytes) -> None:
    assert "HTML or XML" in reason(page)


def test_nothing_and_text_are_told_from_damage() -> None:
    assert reason(b"") == "the file is empty"
    assert reason(b"just some words") == "not an image"


def test_a_format_that_runs_another_program_is_not_tried() -> None:
    # Pillow would hand PostScript to Ghostscript.
    assert reason(saved(photo(), "EPS")) == "not an image"


def _claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_001, 10_000), (1_000_000, 101)])
def test_a_huge_claim_is_refused_before_it_is_decoded(
    width: int, height: int, recwarn: pytest.WarningsRecorder
) -> None:
    assert re.search("more than the limit|exceeds limit", reason(_claims(width, height)))
    assert not recwarn.list
    assert reason(_claims(100, 100)).startswith("damaged: ")


def test_limits_are_configured_and_each_is_told() -> None:
    data = saved(photo())
    assert reason(data, Limits(max_bytes=len(data) - 1)).endswith(f"more than the limit of {len(data) - 1}")
    assert reason(data, Limits(max_pixels=WIDTH * HEIGHT - 1)).endswith(f"more than the limit of {WIDTH * HEIGHT - 1}")
    assert reason(data, Limits(min_edge=HEIGHT + 1)).endswith(f"the shorter edge is below {HEIGHT + 1}")
    just = Limits(max_bytes=len(data), max_pixels=WIDTH * HEIGHT, min_edge=HEIGHT)
    assert decode(data, just).size == (WIDTH, HEIGHT)


def test_what_a_scan_accepted_is_decoded_whatever_its_limits_were() -> None:
    large = saved(Image.new("L", (10_001, 10_000)))
    assert "more than the limit" in reason(large)
    assert decode(large, ACCEPTED).size == (10_001, 10_000)


# --- what a file may hold


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "1"])
def test_colours_of_a_palette_greys_and_black_and_white_are_kept(mode: str) -> None:
    image = photo().quantize(16) if mode == "P" else photo().convert(mode)
    decoded = decode(saved(image))
    assert decoded.mode == "RGB" and np.array_equal(pixels(decoded), pixels(image.convert("RGB")))


def test_cmyk_keeps_its_colours() -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 90))
    decoded = pixels(decode(saved(image.convert("CMYK"), "JPEG", quality=100)))
    assert np.abs(decoded - pixels(image)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind: str) -> None:
    deep = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    decoded = pixels(decode(saved(Image.fromarray(deep), kind)))
    assert np.abs(decoded - (deep / 257)[..., None]).max() <= 1


def test_floats_keep_their_range_and_bad_ones_are_black() -> None:
    values = np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    values[0, :3] = np.nan, np.inf, -np.inf
    decoded = pixels(decode(saved(Image.fromarray(values), "TIFF")))
    assert decoded[0, :3].max() == 0
    assert np.abs(decoded[1:] - (values[1:] * 255)[..., None]).max() <= 1


def test_transparency_lies_on_white() -> None:
    see_through = photo().convert("RGBA")
    see_through.putalpha(Image.new("L", see_through.size, 0))
    assert pixels(decode(saved(see_through))).min() == 255
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.abs(pixels(decode(saved(half))) - 127).max() <= 1
    grey = Image.new("LA", (4, 4), (0, 0))
    assert pixels(decode(saved(grey))).min() == 255


def test_a_transparent_colour_lies_on_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)
    decoded = pixels(decode(saved(palette, transparency=0)))
    assert decoded[0, 0].tolist() == [0, 0, 255] and decoded[1, 1].tolist() == [255, 255, 255]
    named = Image.new("RGB", (4, 4), (9, 8, 7))
    assert pixels(decode(saved(named, transparency=(9, 8, 7)))).min() == 255


@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)])
def test_exif_orientation_is_applied(orientation: int, turn: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    as_the_camera_stored_it = photo().transpose(turn)
    decoded = decode(saved(as_the_camera_stored_it, exif=exif))
    assert np.array_equal(pixels(decoded), pixels(photo()))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(pixels(decode(data)), pixels(frames[0]))
    assert remark(data) == "of several frames or pages the first is used"


def test_pages_are_frames_and_one_frame_is_nothing_to_speak_of() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert remark(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])).endswith("the first is used")
    assert [remark(saved(pages[0], kind)) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "AVIF", "BMP")] == [""] * 7


def test_a_damaged_second_frame_costs_nothing() -> None:
    frames = [Image.fromarray(noise(40, seed)) for seed in range(3)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    cut = data[: len(data) // 2]
    assert decode(cut).size == (40, 40)
    assert remark(cut) in ("", "of several frames or pages the first is used")


def test_one_pixel_is_an_image() -> None:
    decoded = decode(saved(Image.new("RGB", (1, 1), (1, 2, 3))))
    assert fit(decoded, 4).tolist() == [[[1, 2, 3]] * 4] * 4


# --- fitting


def test_an_image_of_the_right_size_is_not_touched() -> None:
    square = photo(20, 20)
    assert np.array_equal(fit(square, 20), np.asarray(square))


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90)])
def test_fit_cuts_the_middle_square(width: int, height: int) -> None:
    thirds = np.zeros((height, width, 3), dtype=np.uint8)
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        part = slice(30 * number, 30 * number + 30)
        thirds[(slice(None), part) if width > height else part] = colour
    fitted = fit(Image.fromarray(thirds), 30)
    assert (fitted == (0, 255, 0)).all()


def test_fit_keeps_the_aspect() -> None:
    y, x = np.mgrid[0:60, 0:100]
    disc = ((x - 49.5) ** 2 + (y - 29.5) ** 2 < 20**2).astype(np.uint8) * 255
    fitted = fit(Image.fromarray(disc).convert("RGB"), 30)[..., 0] > 127
    rows, columns = np.flatnonzero(fitted.any(1)), np.flatnonzero(fitted.any(0))
    assert abs((rows[-1] - rows[0]) - (columns[-1] - columns[0])) <= 1
    assert abs((rows[-1] - rows[0] + 1) - 20) <= 1


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(FITS))
@settings(max_examples=60)
def test_fit_gives_a_square_of_bytes(width: int, height: int, size: int, how: Fit) -> None:
    fitted = fit(photo(width, height), size, how)
    assert fitted.shape == (size, size, 3) and fitted.dtype == np.uint8


@pytest.mark.parametrize("how", FITS)
def test_an_image_of_the_right_size_is_fitted_by_all_alike(how: Fit) -> None:
    assert np.array_equal(fit(photo(20, 20), 20, how), np.asarray(photo(20, 20)))


def test_pad_keeps_all_of_the_image_between_white_bars() -> None:
    red = Image.new("RGB", (80, 40), (255, 0, 0))
    fitted = fit(red, 40, "pad")
    assert (fitted[10:30] == (255, 0, 0)).all()
    assert (fitted[:10] == 255).all() and (fitted[30:] == 255).all()
    assert (fit(red.rotate(90, expand=True), 40, "pad")[:, 10:30] == (255, 0, 0)).all()


def test_stretch_keeps_all_of_the_image_and_not_its_aspect() -> None:
    halves = np.zeros((40, 120, 3), dtype=np.uint8)
    halves[:, 60:] = 255
    fitted = fit(Image.fromarray(halves), 40, "stretch")
    assert (fitted[:, :18] < 8).all() and (fitted[:, 22:] > 247).all()


# --- storing


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("encoding", ["png", "webp"])
@pytest.mark.parametrize("size", [1, 32, 65])
def test_lossless_is_lossless(encoding: Encoding, size: int) -> None:
    for made in (noise(size), np.asarray(photo(size, size))):
        assert np.array_equal(np.asarray(decode(encode(made, encoding))), made)


def test_jpeg_is_close() -> None:
    made = np.asarray(photo(64, 64))
    difference = np.abs(pixels(decode(encode(made, "jpeg"))) - made)
    assert difference.mean() < 2 and difference.max() < 16


@pytest.mark.parametrize(("encoding", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
def test_the_same_pixels_give_the_same_bytes(encoding: Encoding, kind: str) -> None:
    made = noise(40)
    strided = np.ascontiguousarray(made[::-1])[::-1]
    assert encode(made, encoding) == encode(made.copy(), encoding) == encode(strided, encoding)
    assert encode(made, encoding) != encode(noise(40, seed=1), encoding)
    assert Image.open(io.BytesIO(encode(made, encoding))).format == kind


def test_the_extension_is_the_one_people_use() -> None:
    kinds: list[Encoding] = ["png", "webp", "jpeg"]
    assert [f".{extension(kind)}" for kind in kinds] == [".png", ".webp", ".jpg"]
    assert {f".{extension(kind)}" for kind in kinds} <= images.SUFFIXES


@pytest.mark.parametrize("quality", [None, 60])
@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_a_mark_says_that_a_model_made_it_and_changes_no_pixel(encoding: Encoding, quality: int | None) -> None:
    made = noise(40)
    plain, marked = (encode(made, encoding, quality, mark) for mark in (False, True))
    assert marked == encode(made, encoding, quality, mark=True) and "xmp" not in Image.open(io.BytesIO(plain)).info
    with Image.open(io.BytesIO(marked)) as image:
        packet = image.info["xmp"]
    found = [
        element.text
        for element in ElementTree.fromstring(packet.strip(b"\0")).iter()
        if element.tag == "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    ]
    assert found == ["http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"]
    assert np.array_equal(pixels(decode(marked)), pixels(decode(plain)))


def test_quality_makes_webp_lossy_and_files_smaller() -> None:
    made = noise(64)
    assert not np.array_equal(pixels(decode(encode(made, "webp", 90))), made)
    for encoding in ("webp", "jpeg"):
        assert len(encode(made, encoding, 50)) < len(encode(made, encoding, 90)) < len(encode(made, encoding))
    assert encode(made, "jpeg", 95) == encode(made, "jpeg")
