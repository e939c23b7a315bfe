"""The plan: pure, in order, reached at random, and only ever extended."""

from __future__ import annotations

import json
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffii.dataset.log import WaveEntry
from diffii.errors import ConfigError
from engine.config import Config
from engine.defaults import resolve
from engine.next_wave import next_wave
from engine.plan import Plan
from engine.prompts import plain_prompt
from engine.settings import from_flat
from engine.source import SourceImage
from tests.engine.sources import imaginary


def make(sizes: list[int], **settings: object) -> Plan:
    source = imaginary(sizes)
    values = {key.replace("__", "."): value for key, value in settings.items()}
    return Plan(
        resolve(from_flat({"prompts.suffixes": ["on grass", "at night"], **values}), source.classes), source, "w"
    )


def first_wave(plan: Plan) -> WaveEntry:
    wave = after(plan, [], [0] * len(plan.source.classes))
    assert wave is not None
    return wave


def after(plan: Plan, waves: list[WaveEntry], kept: list[int]) -> WaveEntry | None:
    return next_wave(plan, waves, kept, plan.targets(), plan.limits())


def test_rows_stand_in_the_order_pass_class_ordinal() -> None:
    plan = make([1, 2, 3], expansion__factor=2.0)
    rows = [(row.label, row.ordinal) for row in plan.rows(first_wave(plan), 0, 12)]
    assert rows == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (0, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any),
    per_class=st.integers(1, 30),
    chunk=st.integers(1, 17),
)
def test_chunks_cover_the_wave_once_and_in_order(sizes: list[int], per_class: int, chunk: int) -> None:
    plan = make(sizes, expansion__per_class=per_class, commit__chunk_size=chunk)
    wave = first_wave(plan)
    rows = [row for k in range(plan.chunk_count(wave)) for row in plan.chunk(wave, k)]
    assert Counter(row.label for row in rows) == {label: per_class for label, size in enumerate(sizes) if size}
    order = [(row.ordinal // sizes[row.label], row.label, row.ordinal) for row in rows]
    assert order == sorted(set(order))
    assert rows == plan.rows(wave, 0, plan.row_count(wave))
    assert len({row.sample_id for row in rows}) == len(rows)


def test_a_plan_is_a_function_of_configuration_and_source() -> None:
    wave = first_wave(make([3, 4]))
    assert make([3, 4]).chunk(wave, 0) == make([3, 4]).chunk(wave, 0)
    other = make([3, 4], expansion__seed=1).chunk(wave, 0)
    assert {row.sample_id for row in other}.isdisjoint({row.sample_id for row in make([3, 4]).chunk(wave, 0)})


def test_growing_keeps_every_earlier_row() -> None:
    small, large = make([2, 5], expansion__factor=5.0), make([2, 5], expansion__factor=10.0)
    first = first_wave(small)
    second = after(large, [first], [10, 25])
    assert second is not None
    grown = [row for wave in (first, second) for row in large.rows(wave, 0, large.row_count(wave))]
    straight = large.rows(first_wave(large), 0, 70)
    assert sorted(row.sample_id for row in grown) == sorted(row.sample_id for row in straight)
    assert after(large, [first, second], [20, 50]) is None


def test_a_wave_refills_what_was_lost_up_to_the_limit() -> None:
    plan = make([2, 3, 0], expansion__per_class=10, expansion__max_attempts=1.5)
    first = first_wave(plan)
    assert (first.stops, first.limits) == ([10, 10, 0], [15, 15, 0])
    second = after(plan, [first], [10, 7, 0])
    assert second is not None
    assert (second.wave, second.starts, second.stops) == (1, [10, 10, 0], [10, 13, 0])
    third = after(plan, [first, second], [10, 7, 0])
    assert third is not None
    assert third.stops == [10, 15, 0], "three are short, and two may still be tried"
    assert after(plan, [first, second, third], [10, 9, 0]) is None
    more = make([2, 3, 0], expansion__per_class=10, expansion__max_attempts=2)
    again = after(more, [first, second, third], [10, 9, 0])
    assert again is not None
    assert again.stops == [10, 16, 0]


def test_shrinking_is_refused() -> None:
    first = first_wave(make([3], expansion__factor=5.0))
    with pytest.raises(ConfigError, match=r"class 'class 0' was planned for 15 images and now for 6"):
        after(make([3], expansion__factor=2.0), [first], [15])
    with pytest.raises(ConfigError, match=r"class 'class 0' could be tried 30 times and now 23; .* max_attempts"):
        after(make([3], expansion__factor=5.0, expansion__max_attempts=1.5), [first], [15])
    # Fewer tries per row are no fewer tries where more rows are wanted.
    assert after(make([3], expansion__factor=10.0, expansion__max_attempts=1.5), [first], [15]) is not None


def test_a_total_per_class_takes_the_place_of_a_factor_only_upwards() -> None:
    waves = [first_wave(make([2, 6], expansion__factor=5.0))]
    more = after(make([2, 6], expansion__target="balanced"), waves, [10, 30])
    assert more is not None
    assert (more.targets, more.starts, more.stops) == ([34, 30], [10, 30], [34, 30])
    with pytest.raises(ConfigError, match=r"class 'class 1' was planned for 30 images and now for 29"):
        after(make([2, 6], expansion__target=35), waves, [10, 30])


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    steps=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([1.0, 1.1, 1.5, 2.0])), min_size=2, max_size=4),
    lost=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_growing_in_steps_ends_where_one_step_would(
    sizes: list[int], steps: list[tuple[int, float]], lost: list[float], seed: int
) -> None:
    # Each class loses its own share of ordinals: some classes are short after a step, or after all of them.
    is_kept = np.random.default_rng(seed).random((4, 100)) >= np.array(lost)[:, None]

    def grow(waves: list[WaveEntry], wanted: int, attempts: float) -> list[int]:
        plan = make(sizes, expansion__per_class=wanted, expansion__max_attempts=attempts)
        while True:
            kept = [int(is_kept[k, : waves[-1].stops[k]].sum()) if waves else 0 for k in range(len(sizes))]
            wave = after(plan, waves, kept)
            if wave is None:
                return kept
            waves.append(wave)

    upwards = list(zip(sorted(wanted for wanted, _ in steps), sorted(tries for _, tries in steps), strict=True))
    most, attempts = upwards[-1]
    gradual: list[WaveEntry] = []
    for wanted, tries in upwards:
        grow(gradual, wanted, tries)
    at_once: list[WaveEntry] = []
    kept = grow(at_once, most, attempts)
    assert gradual[-1].stops == at_once[-1].stops
    for label, size in enumerate(sizes):
        stop = at_once[-1].stops[label]
        assert kept[label] == (min(most, int(is_kept[label, : at_once[-1].limits[label]].sum())) if size else 0)
        assert kept[label] < most or is_kept[label, stop - 1], "no row is made beyond the target"


def test_targets() -> None:
    assert make([1, 0, 4], expansion__factor=2.5).targets() == [2, 0, 10]
    assert make([1, 0, 4], expansion__factor=0.1).targets() == [1, 0, 1]
    assert make([1, 0, 4], expansion__per_class=7).targets() == [7, 0, 7]


def test_a_long_tail_is_levelled() -> None:
    plan = make([1, 0, 3, 50], expansion__target="balanced", expansion__factor=2.0, expansion__max_attempts=1.1)
    assert plan.targets() == [149, 0, 147, 100], "150 images each, real ones counted"
    assert plan.limits() == [164, 0, 162, 110]
    rows = plan.rows(first_wave(plan), 0, plan.row_count(first_wave(plan)))
    assert Counter(row.label for row in rows) == {0: 149, 2: 147, 3: 100}
    assert {row.sample_id for row in make([1, 0, 3, 50], expansion__factor=2.0).rows(first_wave(plan), 0, 8)} <= {
        row.sample_id for row in rows
    }, "a target says how many rows there are, not which"


def test_a_total_counts_real_images() -> None:
    assert make([1, 0, 3, 50], expansion__target=10).targets() == [9, 0, 7, 0]
    wave = first_wave(make([1, 50], expansion__target=10))
    assert wave.stops == [9, 0]
    with pytest.raises(ConfigError, match=r"expansion\.target=3: no class has fewer real images"):
        make([3, 0, 5], expansion__target=3).targets()


@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=8).filter(any),
    factor=st.floats(0.01, 50),
    total=st.integers(1, 300),
)
def test_every_target_reaches_the_same_total_and_balanced_never_shrinks(
    sizes: list[int], factor: float, total: int
) -> None:
    grown = make(sizes, expansion__factor=factor).targets()
    balanced = make(sizes, expansion__target="balanced", expansion__factor=factor).targets()
    assert len({size + more for size, more in zip(sizes, balanced, strict=True) if size}) == 1
    assert all(after >= before for before, after in zip(grown, balanced, strict=True))
    assert max(zip(sizes, balanced, strict=True)) == max(zip(sizes, grown, strict=True))
    if any(0 < size < total for size in sizes):
        wanted = make(sizes, expansion__target=total).targets()
        assert all(
            more == max(0, total - size) if size else more == 0 for size, more in zip(sizes, wanted, strict=True)
        )


@given(first=st.integers(0, 59), count=st.integers(1, 60))
def test_labels_are_those_of_the_rows(first: int, count: int) -> None:
    plan = make([1, 0, 3, 5], expansion__per_class=20)
    wave = first_wave(plan)
    last = min(60, first + count)
    assert plan.labels(wave, first, last).tolist() == [row.label for row in plan.rows(wave, first, last)]


def test_settings_that_make_no_image_change_no_sample_id() -> None:
    wave = first_wave(make([4]))
    ids = [row.sample_id for row in make([4]).chunk(wave, 0)]
    for key, value in (("commit__chunk_size", 7), ("output__shard_rows", 3), ("output__encoding", "webp")):
        rows = make([4], **{key: value}).rows(wave, 0, len(ids))
        assert [row.sample_id for row in rows] == ids
    for key, value in (("generation__split", 0.5), ("inversion__steps", 20), ("prompts__metaclass", "bird")):
        rows = make([4], **{key: value}).rows(wave, 0, len(ids))
        assert not {row.sample_id for row in rows} & set(ids)


def test_a_class_of_one_image_gets_a_diffused_partner() -> None:
    plan = make([1], expansion__per_class=5)
    rows = plan.chunk(first_wave(plan), 0)
    assert all(row.parent_a == row.parent_b for row in rows)
    assert {json.loads(row.recipe)["partner"] for row in rows} == {"diffused"}
    assert len({row.seed for row in rows}) == 5


def test_a_recipe_says_what_made_the_row() -> None:
    plan = make([4], backbone__model="garments")
    row = plan.chunk(first_wave(plan), 0)[0]
    recipe = json.loads(row.recipe)
    assert (recipe["phi"], recipe["seed"], recipe["suffix"]) == (row.phi, row.seed, row.suffix)
    assert recipe["generation"]["split"] == 0.3
    assert 0 <= row.phi < 2 * math.pi
    assert row.suffix_prompt == f"{row.plain_prompt} {row.suffix}"


def test_any_chunk_of_a_hundred_million_rows_is_reached_at_once() -> None:
    plan = make([1, 2, 5, 50] * 250, expansion__per_class=100_000)
    wave = first_wave(plan)
    assert plan.row_count(wave) == 100_000_000
    began = time.monotonic()
    for chunk in (0, 777_777, plan.chunk_count(wave) - 1):
        assert len(plan.chunk(wave, chunk)) == 64
    assert time.monotonic() - began < 5, "walking to the last chunk would take hours"
    with pytest.raises(IndexError):
        plan.chunk(wave, plan.chunk_count(wave))


def test_inversion_keys_follow_what_shapes_an_inversion() -> None:
    keys = {item.key for item in make([2, 2]).inversions()}
    assert len(keys) == 4
    assert {item.key for item in make([2, 2], generation__split=0.9, expansion__seed=5).inversions()} == keys
    assert {item.key for item in make([2, 2], dedup__embedder="lite0").inversions()} == keys
    shapes = [("inversion__steps", 10), ("inversion__diffuse", 0.0)]
    for key, value in (*shapes, ("backbone__dtype", "bf16"), ("prompts__metaclass", "car")):
        assert not {item.key for item in make([2, 2], **{key: value}).inversions()} & keys


@pytest.mark.parametrize("arm", ["diff-ii", "diff-mix", "noise"])
def test_how_images_become_square_is_part_of_what_is_made_of_them(arm: str) -> None:
    def named(fit: str) -> tuple[set[str], set[str], str]:
        plan = make([2, 2], arm__name=arm, source__fit=fit, dedup__embedder="lite0")
        rows = plan.chunk(first_wave(plan), 0)
        image = plan.source.images[0]
        return (
            {row.sample_id for row in rows},
            {item.key for item in plan.inversions()} - {""},
            plan.signature_key(image),
        )

    crop, pad, stretch = named("crop"), named("pad"), named("stretch")
    assert not crop[0] & pad[0] and not crop[0] & stretch[0] and not pad[0] & stretch[0]
    assert not crop[1] & pad[1] and not crop[1] & stretch[1] and not pad[1] & stretch[1]
    assert len({crop[2], pad[2], stretch[2]}) == 3
    recipe = json.loads(make([2], source__fit="pad").row(0, 0).recipe)
    assert recipe["fit"] == "pad"
    assert "fit" not in json.loads(make([2]).row(0, 0).recipe), "rows from before there was a choice keep their names"


def test_what_is_read_and_where_it_lies_changes_no_row() -> None:
    wave = first_wave(make([4]))
    ids = [row.sample_id for row in make([4]).chunk(wave, 0)]
    keys = {"source__holdout_split": "x", "source__split": "y", "source__max_pixels": 9, "source__min_edge": 2}
    assert [row.sample_id for row in make([4], source__images="z", **keys).chunk(wave, 0)] == ids


def test_signature_keys_follow_the_image_and_the_embedder_alone() -> None:
    image = imaginary([2]).images[0]
    assert make([2], dedup__embedder="off").signature_key(image) == ""

    def key(weights: str = "w", embedder: str = "e", **more: object) -> str:
        plan = make([2], dedup__embedder="lite0", **more)
        return Plan(plan.config, plan.source, weights, embedder).signature_key(image)

    assert len(key()) == 40
    assert key() == key(prompts__metaclass="car", inversion__steps=9, expansion__seed=3)
    assert len({key(), key(embedder="other"), key(weights="other"), key(inversion__micro_batch=3)}) == 4
    heldout = SourceImage(image.sha256, 7, "elsewhere.png")
    plan = make([2], dedup__embedder="lite0")
    assert plan.signature_key(heldout) == plan.signature_key(image), "a held-out copy of an image is signed once"
    assert plan.signature_key(imaginary([2]).images[1]) != plan.signature_key(image)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("001.Black_footed_Albatross", "a photo of a Black footed Albatross bird"),
        ("bugatti_veyron_16.4", "a photo of a bugatti veyron 16.4 bird"),
        ("été", "a photo of a été bird"),
        ("12", "a photo of a 12 bird"),
        ("a/b", "a photo of a a/b bird"),
        ("{name}", "a photo of a {name} bird"),
    ],
)
def test_plain_prompts(name: str, prompt: str) -> None:
    assert plain_prompt(from_flat({"prompts.metaclass": "bird"}), name) == prompt


def test_auto_takes_the_embedded_model_for_the_embedded_classes_only() -> None:
    ours = resolve(Config(), ("Bag", "Coat"))
    assert ours.backbone.model == "garments"
    assert ours.generation.guidance_scale == 1.5
    assert plain_prompt(ours, "Coat") == "a photo of a top"
    other = resolve(Config(), ("Bag", "sparrow"))
    assert other.backbone.model.startswith("stable-diffusion-v1-5/")
    assert other.prompts.suffixes == []


def test_the_reference_preset_is_the_published_codes_numbers_unless_set() -> None:
    preset = resolve(from_flat({"inversion.preset": "reference", "backbone.model": "x"}), ("a",))
    assert (preset.inversion.steps, preset.generation.steps, preset.generation.guidance_scale) == (200, 25, 7.5)
    assert (preset.inversion.diffuse, preset.inversion.norm) == (0.0, "parents")
    own = resolve(from_flat({"inversion.preset": "reference", "inversion.steps": 20, "backbone.model": "x"}), ("a",))
    assert own.inversion.steps == 20


class TestArms:
    """One plan, other beginnings."""

    def test_diff_ii_is_what_it_was_before_there_were_arms(self) -> None:
        plan = make([1, 2, 3], inversion__diffuse=0)
        assert not any(key.startswith("arm.") or key == "inversion.diffuse" for key in plan.config.identity())
        row = plan.row(1, 0)
        assert row.sample_id == "8fedd2e23b7b41651508c7ed0c92cd7f", "the name of a published row may never change"
        assert json.loads(row.recipe)["kind"] == "diff-ii"

    def test_arms_are_told_apart_and_share_all_but_the_beginning(self) -> None:
        ours = make([3, 4]).row(1, 2)
        seen = {ours.sample_id}
        for name in ("noise", "slerp", "circle", "diff-aug", "diff-mix"):
            plan = make([3, 4], arm__name=name)
            assert plan.config.identity()["arm.name"] == name
            row = plan.row(1, 2)
            seen.add(row.sample_id)
            assert (row.seed, row.label, row.ordinal) == (ours.seed, 1, 2)
            assert row.suffix == ("" if name in ("slerp", "circle", "diff-mix") else ours.suffix)
        assert len(seen) == 6

    def test_prompts(self) -> None:
        def prompts(name: str) -> tuple[str, str]:
            row = make([3, 4], arm__name=name, prompts__suffixes=["on grass"]).row(1, 0)
            return row.plain_prompt, row.suffix_prompt

        plain, suffixed = "a photo of a class 1", "a photo of a class 1 on grass"
        assert prompts("diff-ii") == prompts("noise") == (plain, suffixed)
        assert prompts("slerp") == prompts("circle") == prompts("diff-mix") == (plain, plain)
        assert prompts("diff-aug") == (suffixed, suffixed)

    def test_nobody_pays_for_inversions_that_are_not_used(self) -> None:
        keys = {item.key for item in make([2, 2]).inversions()}
        assert {item.key for item in make([2, 2], arm__name="slerp").inversions()} == keys
        assert {item.key for item in make([2, 2], arm__name="noise").inversions()} == {""}
        latents = {item.key for item in make([2, 2], arm__name="diff-aug").inversions()}
        assert len(latents) == 4 and not latents & keys
        same = make([2, 2], arm__name="diff-mix", inversion__steps=9, prompts__metaclass="car")
        assert {item.key for item in same.inversions()} == latents, "a latent knows no prompt and no grid"
        row = make([2, 2], arm__name="noise").row(0, 0)
        assert (row.parent_a, row.parent_b, row.inversion_a, row.inversion_b) == ("", "", "", "")

    def test_an_edit_towards_another_class_says_so(self) -> None:
        plan = make([3, 4], arm__name="diff-mix", arm__strength=0.64, arm__gamma=0.5)
        row = plan.row(1, 0)
        assert (row.source_label, row.strength, row.parent_b) == (0, 0.64, "")
        assert row.label_weight == pytest.approx(0.8)
        assert row.inversion_a == plan.inversion_key(
            next(image for image in plan.source.images if image.sha256 == row.parent_a)
        )
        assert json.loads(row.recipe) | {"source_class": "class 0", "strength": 0.64} == json.loads(row.recipe)

    def test_an_unknown_arm_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"arm\.name='difii': must be one of diff-ii, noise, slerp"):
            from_flat({"arm.name": "difii"})
        with pytest.raises(ConfigError, match=r"arm\.strength"):
            from_flat({"arm.strength": [0.5, 1.5]})
