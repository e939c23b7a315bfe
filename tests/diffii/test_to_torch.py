"""Torch data sets of a snapshot: every row once per epoch over ranks and workers, and after a saved state the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import diffii
from diffii.dataset.feed import Images
from diffii.dataset.row_groups import RowGroups
from diffii.dataset.snapshot import Snapshot
from tests.diffii.pictured import expand_pictured

pytest_plugins = ["tests.s3"]

KINDS = ("map", "stream")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of five rows, in row groups of two or three."""
    url = str(tmp_path_factory.mktemp("set"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.formats.parquet.ROW_GROUP_BYTES", 200)
        expand_pictured(url, expansion__factor=20.0)
    return url


@pytest.fixture(scope="module")
def ids(url: str) -> list[str]:
    ids = diffii.open(url).column("sample_id").to_pylist()
    assert len(ids) > 80 and len(diffii.open(url).shards) > 10
    return ids


def images(url: str) -> Images:
    return diffii.open(url).to_torch(columns=["sample_id"])


def sharer(kind: str, of: Images, batch: int, **options: Any) -> Any:
    return of.stream(batch, **options) if kind == "stream" else of.batches(batch, **options)


def loader(kind: str, of: Images, share: Any, workers: int = 0, **options: Any) -> DataLoader[Any]:
    if kind == "stream":
        return DataLoader(share, batch_size=None, num_workers=workers, **options)
    return DataLoader(of, batch_sampler=share, num_workers=workers, **options)


def epoch_of(kind: str, url: str, workers: int = 0, batch: int = 4, epoch: int = 0, **options: Any) -> list[list[str]]:
    """The batches of one rank's epoch, by the rows' names."""
    of = images(url)
    share = sharer(kind, of, batch, window=10, **options)
    share.set_epoch(epoch)
    return [batch["sample_id"] for batch in loader(kind, of, share, workers)]


def flat(batches: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(batches))


def together(ranks: list[list[list[str]]]) -> list[str]:
    """What ranks see, in the order of their steps."""
    steps = max(map(len, ranks))
    return flat([rank[step] for step in range(steps) for rank in ranks if step < len(rank)])


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_of_two_workers_see_every_row_once(kind: str, url: str, ids: list[str]) -> None:
    first = [epoch_of(kind, url, workers=2, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(together(first)) == sorted(ids)
    assert abs(len(first[0]) - len(first[1])) <= 1
    assert together(first) != ids
    again = [epoch_of(kind, url, workers=2, rank=rank, world_size=2) for rank in range(2)]
    assert again == first, "the same seed and epoch are the same order"
    assert epoch_of(kind, url, workers=2, rank=0, world_size=2, epoch=1) != first[0]
    assert epoch_of(kind, url, workers=2, rank=0, world_size=2, seed=1) != first[0]


def test_with_lanes_given_the_order_is_the_same_for_any_workers_and_ranks_and_both_kinds(url: str) -> None:
    alone = flat(epoch_of("stream", url, lanes=2))
    assert flat(epoch_of("stream", url, lanes=2, workers=2)) == alone
    for kind in KINDS:
        ranks = [epoch_of(kind, url, lanes=2, rank=rank, world_size=3) for rank in range(3)]
        assert together(ranks) == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", ["drop", "pad"])
@pytest.mark.parametrize("batch", [4, 7, 50])
def test_ranks_take_as_many_steps_where_they_are_to(kind: str, last: str, batch: int, url: str, ids: list[str]) -> None:
    ranks = [epoch_of(kind, url, last=last, batch=batch, rank=rank, world_size=2) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    assert {len(batch) for batch in ranks[0] + ranks[1]} <= {batch}
    seen, missing = together(ranks), -len(ids) % (2 * batch)
    if last == "drop":
        assert len(seen) == len(set(seen)) == len(ids) - len(ids) % (2 * batch)
    else:
        assert set(seen) == set(ids) and seen[len(ids) :] == seen[:missing]


RESTARTS = [("map", 2, 0), ("stream", 2, 1), ("stream", 0, 2), ("map", 0, 1)]
"""Kind, workers before and after: what the quick suite looks at."""


@pytest.mark.parametrize(
    ("kind", "workers", "again"),
    [
        pytest.param(*one, marks=[] if one in RESTARTS else pytest.mark.slow)
        for one in product(KINDS, (0, 2), (0, 2, 1))
    ],
)
def test_after_a_state_comes_exactly_the_rest(kind: str, workers: int, again: int, url: str, ids: list[str]) -> None:
    whole = epoch_of(kind, url, workers, epoch=3)
    for taken in (0, 5, len(whole)):
        of = images(url)
        share = sharer(kind, of, 4, window=10)
        share.set_epoch(3)
        loop = iter(loader(kind, of, share, workers))
        seen = [next(loop)["sample_id"] for _ in range(taken)]
        state = json.loads(json.dumps(share.state_dict(taken)))
        del loop
        assert seen == whole[:taken] and state["epoch"] == 3

        of = images(url)
        share = sharer(kind, of, 4, window=10)
        share.load_state_dict(state)
        resumed = loader(kind, of, share, again)
        share.set_epoch(3)
        rest = [batch["sample_id"] for batch in resumed]
        if taken or workers == again:
            assert rest == whole[taken:], "whatever the number of workers"
        assert sorted(flat(seen + rest)) == sorted(ids)
        assert share.state_dict(2)["taken"] == min(4 * taken + 8, len(ids)), "states of a resumed epoch go on, too"
        share.set_epoch(4)
        assert sorted(flat([batch["sample_id"] for batch in resumed])) == sorted(ids), "the next epoch is a whole one"


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_twice_and_by_other_ranks_and_batch_sizes(kind: str, url: str, ids: list[str]) -> None:
    """(ranks, batch size, batches that each rank takes) one after another; the last one ends the epoch."""
    state, seen = None, list[str]()
    whole = flat(epoch_of(kind, url, lanes=2, batch=3))
    for ranks, batch, steps in ((2, 3, 4), (3, 2, 3), (1, 5, 2), (2, 4, None)):
        parts, states = [], []
        for rank in range(ranks):
            of = images(url)
            share = sharer(kind, of, batch, window=10, lanes=2, rank=rank, world_size=ranks)
            if state is not None:
                share.load_state_dict(state)
            loop = iter(loader(kind, of, share))
            parts.append([found["sample_id"] for _, found in zip(range(steps or 1000), loop, strict=False)])
            states.append(share.state_dict(steps or 1000))
        seen += together(parts)
        state = states[0]
        assert all(other == state for other in states) and state["taken"] == len(seen)
    assert seen == whole and sorted(seen) == sorted(ids)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 3, 7, 1000])
def test_torchdatas_own_states_are_exact(workers: int, taken: int, url: str, ids: list[str]) -> None:
    def a_loader() -> tuple[Any, StatefulDataLoader]:
        stream = images(url).stream(4, window=10)
        return stream, StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    stream, loading = a_loader()
    stream.set_epoch(2)
    seen = [batch["sample_id"] for _, batch in zip(range(taken), loading, strict=False)]
    state = loading.state_dict()
    stream, loading = a_loader()
    loading.load_state_dict(state)
    ended = taken == 1000
    stream.set_epoch(3 if ended else 2)
    rest = flat([batch["sample_id"] for batch in loading])
    assert sorted(flat(seen) * (not ended) + rest) == sorted(ids)
    stream.set_epoch(4)
    assert sorted(flat([batch["sample_id"] for batch in loading])) == sorted(ids)


@pytest.mark.parametrize(("kind", "start"), [("map", "fork"), ("stream", "fork"), ("stream", "spawn")])
def test_workers_that_persist_hear_of_the_next_epoch(kind: str, start: str, url: str, ids: list[str]) -> None:
    of = images(url)
    share = sharer(kind, of, 4, window=10)
    loading = loader(kind, of, share, 2, persistent_workers=True, multiprocessing_context=start)
    share.load_state_dict(share.state_dict(0) | {"epoch": 1, "taken": 24, "lanes": 2})
    epochs = []
    for epoch in (1, 2, 1):
        share.set_epoch(epoch)
        epochs.append(flat([batch["sample_id"] for batch in loading]))
    assert len(epochs[0]) == len(ids) - 24
    assert sorted(epochs[1]) == sorted(epochs[2]) == sorted(ids)
    assert epochs[1] != epochs[2]
    if kind == "stream":
        assert epochs[2][24:] == epochs[0], "two lanes for two workers, as in the state"
        with pytest.raises(ValueError, match="workers have begun already"):
            share.load_state_dict(share.state_dict(0))


def test_states_that_say_too_little_or_are_of_something_else(url: str) -> None:
    whole = images(url)
    stream, sampler = whole.stream(4), whole.batches(4)
    with pytest.raises(ValueError, match="say how many batches"):
        stream.state_dict()
    next(iter(sampler))
    with pytest.raises(ValueError, match="say how many batches"):
        sampler.state_dict()
    with pytest.raises(ValueError, match="cannot have taken -1"):
        sampler.state_dict(-1)
    next(iter(stream))
    assert stream.state_dict() == stream.state_dict(1)
    earlier = diffii.open(url, version=5).to_torch()
    with pytest.raises(ValueError, match=r"of version 5, and here are \d+ of version"):
        stream.load_state_dict(earlier.batches(4).state_dict(1))
    with pytest.raises(ValueError, match="one worker among others"):
        stream.load_state_dict(stream.state_dict(1) | {"worker": [0, 2, 1]})


def test_what_cannot_be_shared_out_is_refused(url: str) -> None:
    whole = images(url)
    for wrong in ({"batch_size": 0}, {"window": 0}, {"lanes": 0}, {"rank": 2, "world_size": 2}, {"last": "first"}):
        with pytest.raises(ValueError, match=r"at least 1|not one of|'short', 'drop' or 'pad'"):
            whole.batches(**{"batch_size": 2} | wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no column 'colour'"):
        diffii.open(url).to_torch(columns=["colour"])


def test_ranks_are_those_of_whoever_started_the_process(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    share = images(url).batches(4)
    assert (share.rank, share.world_size) == (1, 2)
    assert list(share) == list(images(url).batches(4, rank=1, world_size=2))


def test_items_are_what_a_classifier_trains_on(url: str) -> None:
    snapshot = diffii.open(url)
    plain, small = snapshot.to_torch(), snapshot.to_torch(lambda image: image.getpixel((0, 0)))
    assert len(plain) == len(snapshot) and plain.classes == snapshot.classes
    for index in (0, 7, len(snapshot) - 1):
        image, label = plain[index]
        row = snapshot.row(index)
        assert (image.shape, image.dtype, label) == ((3, 8, 8), torch.uint8, row["label"])
        assert image[:, 3, 3].tolist() == [row["label"], row["ordinal"], 7]
        assert small[index] == ((row["label"], row["ordinal"], 7), row["label"])
    chosen = snapshot.to_torch(columns=["class_name", "image", "suffix"])[7]
    assert list(chosen) == ["class_name", "image", "suffix"] and chosen["image"].shape == (3, 8, 8)
    with pytest.raises(IndexError):
        plain[len(snapshot)]
    pixels, labels = next(iter(DataLoader(plain.stream(5), batch_size=None)))
    assert (pixels.shape, labels.tolist()) == ((5, 3, 8, 8), pixels[:, 0, 0, 0].tolist())


def test_soft_labels_arrive_as_distributions(tmp_path: Path) -> None:
    from tests.diffii import pictured

    made = pictured._with_picture
    with pytest.MonkeyPatch.context() as patch:
        edited = {"strength": 0.7, "source_label": 0, "label_weight": 0.75}
        patch.setattr(pictured, "_with_picture", lambda row, copies=True: made(row, copies) | edited)
        expand_pictured(str(tmp_path))
    snapshot = diffii.open(str(tmp_path))
    of = snapshot.to_torch()
    for index in range(len(snapshot)):
        expected = [0.25, 0.0, 0.0]
        expected[snapshot.labels[index]] += 0.75
        np.testing.assert_array_equal(of[index][1], np.array(expected, np.float32))
    assert next(iter(of.stream(4)))[1].shape == (4, 3)


def test_some_rows_and_none(url: str) -> None:
    some = diffii.open(url).where([("class_name", "==", "class 1")])
    assert 0 < len(some) < len(diffii.open(url))
    of = some.to_torch(columns=["sample_id"])
    for kind in KINDS:
        seen = flat([batch["sample_id"] for batch in loader(kind, of, sharer(kind, of, 4, window=7))])
        assert sorted(seen) == sorted(some.column("sample_id").to_pylist())
    none = diffii.open(url, version=0).to_torch()
    assert (len(none), list(none.stream(4)), list(none.batches(4)), len(none.stream(4))) == (0, [], [], 0)


def test_a_bucket_is_read_from_end_to_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row group is read once, and at the border of a window perhaps once more."""
    read: list[tuple[int, int]] = []
    original = RowGroups._read_group

    def counted(self: RowGroups, shard: int, group: int, columns: tuple[str, ...] | None) -> Any:
        read.append((shard, group))
        assert columns == ("image", "label")
        return original(self, shard, group, columns)

    monkeypatch.setattr("diffii.dataset.row_groups._KEPT", 1)
    monkeypatch.setattr(RowGroups, "_read_group", counted)
    snapshot = diffii.open(url)
    for _ in snapshot.to_torch().stream(4, window=20):
        pass
    assert len(set(read)) > 1.5 * len(snapshot.shards)
    assert len(read) <= len(set(read)) + len(snapshot) // 20 + 2


def test_a_part_of_a_snapshot_opens_its_own_shards_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = diffii.open(url)
    rows = np.arange(len(snapshot))[-3:]
    part = Snapshot(snapshot._storage, snapshot._history, rows)
    opened: list[str] = []
    original = snapshot._storage.open
    monkeypatch.setattr(snapshot._storage, "open", lambda name: opened.append(name) or original(name))
    assert part.table(["sample_id"])["sample_id"].to_pylist() == [snapshot.row(row)["sample_id"] for row in rows]
    assert len(set(opened)) < len(snapshot.shards) / 2


@pytest.fixture
def on_s3(s3_url: str) -> Iterator[str]:
    expand_pictured(s3_url)
    yield s3_url


@pytest.mark.parametrize("kind", KINDS)
def test_forked_workers_read_from_s3(kind: str, on_s3: str) -> None:
    snapshot = diffii.open(on_s3)
    snapshot.row(0)  # this process has connections of its own when it forks
    of = snapshot.to_torch(columns=["sample_id"])
    loading = loader(kind, of, sharer(kind, of, 4), 2, multiprocessing_context="fork", timeout=60)
    seen = flat([batch["sample_id"] for batch in loading])
    assert sorted(seen) == sorted(snapshot.column("sample_id").to_pylist())
