"""Data sets of the hub, out of the hub's own cache, as a machine without network finds them there."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffii.errors import SourceError
from diffii.sources import Splits, open_source, opener
from engine.scan import read_source
from engine.source import Source, iter_bytes
from tests.diffii.sources.layouts import folder, hub_parquet, png, tar, webdataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [(png(number), number % 2) for number in range(6)]
NAMES = ["a", "b"]


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache keeps the files of `birds/wrens` at its newest commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "datasets--birds--wrens"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    return repository / "snapshots" / COMMIT


@pytest.mark.parametrize("url", ["birds/wrens", "hf://datasets/birds/wrens", f"birds/wrens@{COMMIT}"])
def test_an_id_is_its_files_at_a_commit(snapshot: Path, tmp_path: Path, url: str) -> None:
    hub_parquet(snapshot, NAMES, ROWS)
    hub_parquet(snapshot, NAMES, [(png(99), 0)], "test")
    here = read_source(folder(tmp_path / "folder", NAMES, ROWS))
    source = read_source(url)
    assert source.url == f"hf://datasets/birds/wrens@{COMMIT}"
    assert source.digest == here.digest
    again = Source.from_parquet(source.url, source.classes, source.to_parquet())
    assert list(iter_bytes(again, again.images)) == list(iter_bytes(here, here.images))


def test_tars_and_folders_of_the_hub_are_read_too(snapshot: Path, tmp_path: Path) -> None:
    here = read_source(webdataset(tmp_path / "tars", NAMES, ROWS))
    webdataset(snapshot, NAMES, ROWS)
    assert read_source("birds/wrens").digest == here.digest
    for file in snapshot.iterdir():
        file.unlink()
    folder(snapshot / "train", NAMES, ROWS)
    assert read_source("birds/wrens").digest == here.digest


def test_a_folder_of_that_name_comes_first(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_parquet(snapshot, NAMES, ROWS)
    folder(tmp_path / "birds" / "wrens", ["here"], ROWS[:1])
    monkeypatch.chdir(tmp_path)
    assert read_source("birds/wrens").classes == ("here",)


@pytest.mark.parametrize("url", ["birds/finches", f"hf://datasets/birds/wrens@{'f' * 40}"])
def test_what_is_not_to_be_had_is_told(snapshot: Path, url: str) -> None:
    with pytest.raises(
        SourceError, match=r"no data set of that name is to be had from the hub .*check the name"
    ) as said:
        open_source(url)
    assert "\n" not in str(said.value)


def test_an_id_is_written_one_way() -> None:
    with pytest.raises(SourceError, match="is no data set of the hub; write it as hf://datasets/owner/name"):
        open_source("hf://datasets/birds/wrens/data/train.parquet")


def test_the_card_says_which_files_are_meant(tmp_path: Path) -> None:
    for place, seed in (("plain/train-0", 1), ("plain/check-0", 2), ("odd/train-0", 3)):
        made = Path(hub_parquet(tmp_path / "made" / str(seed), NAMES, [(png(seed), 0)]))
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (made / "data" / "train-00000-of-00001.parquet").rename(tmp_path / f"{place}.parquet")
    card = "---\nconfigs:\n- config_name: odd\n  data_files: odd/*.parquet\n- config_name: plain\n  default: true\n"
    card += "  data_files:\n  - split: train\n    path: plain/train-*\n"
    card += "  - split: held\n    path: [plain/check-*]\n---\n# x\n"
    (tmp_path / "README.md").write_text(card)
    reader = open_source(str(tmp_path))
    assert [entry.where for entry in reader.listing().entries] == ["plain/train-0.parquet#0"]
    assert [entry.where for entry in reader.listing(Splits("held")).entries] == ["plain/check-0.parquet#0"]
    assert opener(str(tmp_path))("plain/check-0.parquet#0") == png(2)


@pytest.mark.parametrize("path", ["../outside/*.tar", "/etc/*.tar", "s3://bucket/*.tar", 7, None, ""])
def test_a_card_leads_nowhere_else(tmp_path: Path, path: object) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.tar").write_bytes(tar([("0.png", png(1)), ("0.cls", b"0")]))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n- data_files:\n  - path: {path!r}\n---\n")
    with pytest.raises(SourceError, match="holds no class folders"):
        read_source(str(tmp_path / "set"))


@pytest.mark.parametrize("above", ["", "default/", "data/"])
def test_folders_named_after_splits_hold_shards(tmp_path: Path, above: str) -> None:
    for number, split in enumerate(("train", "test")):
        made = Path(hub_parquet(tmp_path / f"made{number}", NAMES, [(png(number), 0)]))
        (tmp_path / "set" / above / split).mkdir(parents=True)
        (made / "data" / "train-00000-of-00001.parquet").rename(tmp_path / "set" / above / split / "0000.parquet")
    found = open_source(str(tmp_path / "set")).listing()
    assert [entry.where for entry in found.entries] == [f"{above}train/0000.parquet#0"]
