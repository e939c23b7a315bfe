"""What the caption stage leaves behind, written and read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffii.contexts.files import (
    ImageContext,
    context_key,
    contexts_from_parquet,
    contexts_to_parquet,
    known_keys,
    put_context,
    read_context,
    suffixes_from_text,
    suffixes_to_text,
)
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ConfigError, OutputError

CAPTIONED = ImageContext(sha256="a" * 64, caption="ein Vogel über Wasser", context="über Wasser", method="captioner")
CHOSEN = ImageContext(sha256="b" * 64, caption="a bird", context="", method="diffusion", score=0.25, margin=0.5)


def test_a_context_is_stored_once_under_its_key(tmp_path: Path) -> None:
    storage, key = Storage(str(tmp_path)), context_key("a" * 64, "a photo of a bird", {"model": "blip"})
    assert put_context(storage, key, CAPTIONED) and not put_context(storage, key, CHOSEN)
    assert read_context(storage, key) == CAPTIONED
    assert known_keys(storage) == {key}
    assert layout.context(key) == f"{layout.CONTEXTS}/{key[:2]}/{key}.json" and len(key) == 40


def test_the_key_follows_image_prompt_and_method() -> None:
    keys = {
        context_key(image, prompt, method)
        for image in ("a", "b")
        for prompt in ("", "a photo")
        for method in ({"model": "blip"}, {"model": "git"}, {"levels": [0.9, 0.8]})
    }
    assert len(keys) == 12


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"sha256": "a"}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    storage = Storage(str(tmp_path))
    storage.put_once(layout.context("abc"), data)
    with pytest.raises(OutputError, match=r"contexts/ab/abc\.json is damaged"):
        read_context(storage, "abc")
    with pytest.raises(FileNotFoundError):
        read_context(storage, "other")


def test_the_table_is_the_same_in_any_order() -> None:
    data = contexts_to_parquet([CHOSEN, CAPTIONED])
    assert data == contexts_to_parquet([CAPTIONED, CHOSEN])
    assert contexts_from_parquet(data) == [CAPTIONED, CHOSEN]
    assert contexts_from_parquet(contexts_to_parquet([])) == []
    with pytest.raises(OutputError, match="no table of image contexts"):
        contexts_from_parquet(b"PAR1")


def test_a_text_file_has_one_suffix_a_line() -> None:
    suffixes = ["on grass", "über Wasser"]
    assert suffixes_to_text(suffixes) == "on grass\nüber Wasser\n".encode()
    assert suffixes_from_text(suffixes_to_text(suffixes), "s.txt") == suffixes
    assert suffixes_from_text(b"\xef\xbb\xbf on grass \r\n\r\nat night", "s.txt") == ["on grass", "at night"]


@pytest.mark.parametrize(("data", "says"), [(b" \n\n", "s.txt holds no suffix"), (b"\xff\xfe", "s.txt is not UTF-8")])
def test_a_file_without_suffixes_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        suffixes_from_text(data, "s.txt")
