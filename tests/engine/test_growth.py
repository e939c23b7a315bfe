"""A source that grows: what there is stays, and what is new is made of what is new."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from diffii.arms import ARMS
from diffii.errors import OutputError
from diffii.hashing import sha256
from engine.growth import Growth, Turn, last_turn
from engine.plan import Plan
from engine.row import Row
from engine.seasons import fitted, news
from engine.settings import from_flat
from engine.source import Source, SourceImage
from tests.engine.imaginary_run import SETTINGS
from tests.engine.sources import imaginary

FACTOR = 3


def plan(source: Source, growths: list[Growth] | None = None, arm: str = "diff-ii") -> Plan:
    return Plan(from_flat({**SETTINGS, "arm.name": arm}), source, "00" * 32, growths=growths or [])


def grown(source: Source, label: int, images: int) -> Source:
    added = [SourceImage(sha256(f"{label} new {k}".encode()), label, f"new/{label}/{k}.png") for k in range(images)]
    scanned = sorted([*source.images, *added], key=lambda image: (image.label, image.sha256))
    _, found = fitted(source, replace(source, images=tuple(scanned)), "out")
    assert found is not None
    return found


@pytest.mark.parametrize("new", [1, 2, 5])
@pytest.mark.parametrize("old", [1, 2, 4, 5])
def test_rows_begin_with_the_new_images_until_these_have_caught_up(old: int, new: int) -> None:
    source = imaginary([2, old])
    after = grown(source, 1, new)
    tried = old * FACTOR
    rows = [plan(after, [Growth((2, old), (6, tried))]).row(1, tried + k) for k in range(new * FACTOR)]
    fresh = {image.sha256 for image in after.by_class[1][old:]}
    known = {image.sha256 for image in after.by_class[1]}
    assert Counter(row.parent_a for row in rows) == dict.fromkeys(fresh, FACTOR)
    assert all(row.parent_b in known - {row.parent_a} for row in rows)
    first = [plan(source).row(1, k) for k in range(tried)]
    assert len({row.sample_id for row in [*first, *rows]}) == tried + new * FACTOR
    pairs = Counter(frozenset((row.parent_a, row.parent_b)) for row in rows)
    assert max(pairs.values()) <= -(-FACTOR * 2 // (old + new - 1)) + 1, "partners are spread, too"


def test_after_that_all_take_turns() -> None:
    source = imaginary([4])
    after = grown(source, 0, 1)
    rows = [plan(after, [Growth((4,), (12,))]).row(0, 12 + 3 + k) for k in range(25)]
    assert set(Counter(row.parent_a for row in rows).values()) == {5}


def test_a_class_without_new_images_does_not_notice() -> None:
    source = imaginary([3, 4])
    after = plan(grown(source, 0, 2), [Growth((3, 4), (9, 12))])
    assert [after.row(1, k) for k in range(40)] == [plan(source).row(1, k) for k in range(40)]


def test_a_new_class_is_planned_as_it_would_be_from_the_start() -> None:
    both = imaginary([3, 4])
    first = Source(both.url, both.classes[:1], both.by_class[0])
    _, after = fitted(first, both, "out")
    assert after is not None and after.classes == both.classes
    late = plan(after, [Growth((3,), (9,))])
    assert [late.row(1, k) for k in range(20)] == [plan(both).row(1, k) for k in range(20)]


@pytest.mark.parametrize("name", sorted(ARMS))
def test_every_arm_can_go_on(name: str) -> None:
    source = imaginary([3, 4])
    after = plan(grown(source, 0, 2), [Growth((3, 4), (9, 12))], name)
    before = [plan(source, arm=name).row(label, k) for label in (0, 1) for k in range(9)]
    rows: list[Row] = [after.row(0, 9 + k) for k in range(20)]
    assert len({row.sample_id for row in [*before, *rows]}) == 38
    if name == "diff-aug":
        assert Counter(row.parent_a for row in rows[:6]) == {sha256(f"0 new {k}".encode()): 3 for k in range(2)}


def test_a_source_that_grows_twice() -> None:
    once = last_turn([Growth((4,), (12,))], [6], 0)
    assert once == Turn(12, 6, old=4, passes=3) and once.behind == 6
    # Six rows to catch up, then one whole pass over all and a bit.
    twice = last_turn([Growth((4,), (12,)), Growth((6,), (25,))], [7], 0)
    assert twice == Turn(25, 7, old=6, passes=5) and twice.behind == 5
    # It grew again before the first ones had caught up: they do so no more, and nothing is counted twice.
    early = last_turn([Growth((4,), (12,)), Growth((6,), (15,))], [7], 0)
    assert early == Turn(15, 7, old=6, passes=3)


class TestFitted:
    source = imaginary([2, 3], ["a", "c"])

    def scanned(self, classes: tuple[str, ...], images: list[tuple[str, str]]) -> Source:
        made = [SourceImage(sha, classes.index(name), f"elsewhere/{sha[:6]}.png") for name, sha in images]
        return Source("moved", classes, tuple(sorted(made, key=lambda image: (image.label, image.sha256))))

    def known(self) -> list[tuple[str, str]]:
        return [(self.source.classes[image.label], image.sha256) for image in self.source.images]

    def test_a_source_that_moved_is_the_same(self) -> None:
        same, more = fitted(self.source, self.scanned(("a", "c"), self.known()), "out")
        assert more is None and same.digest == self.source.digest
        assert same.url == "moved" and same.images[0].where.startswith("elsewhere/")

    def test_labels_and_places_stay_where_a_class_comes_in_between(self) -> None:
        more = [("b", sha256(b"new")), ("a", sha256(b"other"))]
        same, after = fitted(self.source, self.scanned(("a", "b", "c"), [*self.known(), *more]), "out")
        assert after is not None and after.classes == ("a", "c", "b")
        assert after.images[: len(same.images)] == same.images
        assert [(image.label, image.sha256) for image in after.images[5:]] == [(0, more[1][1]), (2, more[0][1])]
        new, begun = news(same, after)
        assert len(new) == 2 and begun == ("b",)

    def test_a_class_that_was_empty_is_new(self) -> None:
        empty = replace(self.source, classes=("a", "c", "e"))
        same, after = fitted(empty, self.scanned(("a", "c", "e"), [*self.known(), ("e", sha256(b"new"))]), "out")
        assert after is not None and news(same, after)[1] == ("e",)

    @pytest.mark.parametrize("other", ["gone", "another class"])
    def test_what_went_is_named(self, other: str) -> None:
        images = self.known()
        _, sha = images.pop(0)
        if other == "another class":
            images.append(("c", sha))
        where = self.source.images[0].where
        with pytest.raises(
            OutputError, match=rf"1 of the 5 images .*moved any more, or in another class, such as {where}"
        ):
            fitted(self.source, self.scanned(("a", "c"), images), "out")
