"""Every protocol on a reduced copy in its published layout; and what a user is told when a layout is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from diffii.errors import ConfigError, SourceError
from diffii.protocols import archives
from diffii.protocols.paper import NAMES, load
from tests.diffii.protocols import layouts

MAKERS: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "cub-fewshot": (layouts.cub, "bird", 4),
    "aircraft-fewshot": (layouts.aircraft, "aircraft", 4),
    "car-fewshot": (layouts.cars, "car", 3),
    "pet-fewshot": (layouts.pets, "animal", 3),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shots", [5, 10])
def test_few_shots(name: str, shots: int, tmp_path: Path) -> None:
    make, metaclass, classes = MAKERS[name]
    make(tmp_path)
    task = load(name, str(tmp_path), shots=shots, seed=3, counts=None)
    assert (task.name, task.shots, task.seed, task.metaclass) == (name, shots, 3, metaclass)
    assert task.counts == (shots,) * classes
    assert len(task.test) == 2 * classes
    # 13 images of a class to train on: behind the tenth three are left to choose on.
    assert len(task.validation) == 3 * classes
    places = [sample.where for sample in (*task.train, *task.validation, *task.test)]
    assert len(set(places)) == len(places)
    assert all(sample.image().size == (6, 4) for sample in (*task.train, *task.test))
    papers = [one for one in task.published if one.source.startswith("Diff-II")]
    assert papers[-1].method == "Diff-II" and {one.classifier for one in papers} == {"ResNet-50"}
    assert {one.classifier for one in task.published if one not in papers} <= {"classifier not said"}


@pytest.mark.parametrize("name", MAKERS)
def test_ten_shots_are_five_and_five_more_and_another_seed_is_another_draw(name: str, tmp_path: Path) -> None:
    MAKERS[name][0](tmp_path)
    five, ten, other = (
        load(name, str(tmp_path), shots=shots, seed=seed, counts=None) for shots, seed in ((5, 0), (10, 0), (5, 1))
    )
    assert set(five.train) < set(ten.train) and set(five.train) != set(other.train)
    assert five.validation == ten.validation and five.test == other.test


def test_labels_and_names_are_the_archives_own(tmp_path: Path) -> None:
    for make in (layouts.cub, layouts.aircraft, layouts.cars, layouts.pets):
        make(tmp_path)
    bird = load("cub-fewshot", str(tmp_path), counts=None)
    assert bird.classes == layouts.BIRDS
    assert all(f"/images/{bird.classes[sample.label]}/" in sample.where for sample in bird.train + bird.test)
    plane = load("aircraft-fewshot", str(tmp_path), counts=None)
    assert plane.classes == layouts.VARIANTS
    listed = (tmp_path / "fgvc-aircraft-2013b/data/images_variant_test.txt").read_text(encoding="utf-8").splitlines()
    told = [f"{Path(sample.where).stem} {plane.classes[sample.label]}" for sample in plane.test]
    assert told == listed
    car = load("car-fewshot", str(tmp_path), counts=None)
    assert car.classes == layouts.CARS
    assert [sample.label for sample in car.test] == [0, 0, 1, 1, 2, 2]
    assert car.test[3].where.endswith("stanford_cars/cars_test/00004.jpg")
    pet = load("pet-fewshot", str(tmp_path), counts=None)
    assert pet.classes == layouts.PETS
    assert all(pet.classes[sample.label] in sample.where for sample in pet.test)


def test_cub_with_a_long_tail(tmp_path: Path) -> None:
    layouts.cub(tmp_path, trains=30)
    task = load("cub-lt", str(tmp_path), imbalance=100, counts=None)
    # Mean 30, four classes: int(30 * 100^(-rank/2)), and one where that is none.
    assert task.counts == (30, 3, 1, 1)
    assert task.partitions == {"many": (0,), "medium": (), "few": (1, 2, 3)}
    assert [sum(sample.label == label for sample in task.validation) for label in range(4)] == [0, 10, 10, 10]
    assert not set(task.train) & set(task.validation)
    assert {one.metric for one in task.published} == {"accuracy", "many"}
    assert any("30.00 * (1/100)^(rank/2)" in rule for rule in task.rules)


def test_flowers_with_a_long_tail(tmp_path: Path) -> None:
    layouts.flowers(tmp_path)
    task = load("flower-lt", str(tmp_path), imbalance=10, seed=1, counts=None)
    # Classes of 30, 31, 32, 33 images: halves of 15, 15, 16, 16, mean 15.5; ranks are labels 2, 3, 0, 1.
    assert task.counts == (1, 1, 15, 4)
    assert len(task.test) == 15 + 16 + 16 + 17
    pool = {sample.where for sample in task.train} | {sample.where for sample in task.validation}
    assert not pool & {sample.where for sample in task.test}
    assert task.classes == ("001", "002", "003", "004")
    for sample in task.test:
        assert 0 <= sample.label < 4
    assert task.test != load("flower-lt", str(tmp_path), imbalance=10, seed=2, counts=None).test


def test_birds_where_they_do_not_belong(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    layouts.waterbirds(tmp_path)
    task = load("cub-waterbird", str(tmp_path), shots=5, counts=None)
    assert task.groups == ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
    assert task.counts == (5,) * 4 and len(task.test) == 8
    assert all("waterbird_complete95" in sample.where for sample in task.test)
    assert all("CUB_200_2011" in sample.where for sample in task.train + task.validation)
    for sample in task.test:
        assert task.classes[sample.label] in sample.where
        assert sample.group // 2 == (sample.label < 2)
    assert [sample.group % 2 for sample in task.test] == [1, 0] * 4
    assert {one.metric for one in task.published} == {"average"}


def test_a_reduced_copy_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    with pytest.raises(SourceError, match="holds 52 images to train; CUB-200-2011 as published has 5994") as told:
        load("cub-fewshot", str(tmp_path))
    assert "CUB_200_2011.tgz" in str(told.value)
    counts = {"train": 52, "test": 8, "classes": 4}
    assert load("cub-fewshot", str(tmp_path), counts=counts).shots == 5
    with pytest.raises(SourceError, match="holds 8 images to test"):
        load("cub-fewshot", str(tmp_path), counts={**counts, "test": 9})


def test_the_published_counts() -> None:
    wanted = [
        (archives.CUB, 5994, 5794, 200),
        (archives.AIRCRAFT, 6667, 3333, 100),
        (archives.CARS, 8144, 8041, 196),
        (archives.PETS, 3680, 3669, 37),
        (archives.FLOWERS, 1020, 6149, 102),
        (archives.WATERBIRDS, 4795, 5794, 200),
    ]
    for layout, train, test, classes in wanted:
        assert (layout.counts["train"], layout.counts["test"], layout.counts["classes"]) == (train, test, classes)


@pytest.mark.parametrize(
    ("name", "lost", "told"),
    [
        ("cub-fewshot", "CUB_200_2011/classes.txt", "classes.txt is missing; unpack CUB_200_2011.tgz"),
        ("cub-fewshot", "CUB_200_2011/images.txt", "neither images.txt nor CUB_200_2011/images.txt is there"),
        ("aircraft-fewshot", "fgvc-aircraft-2013b/data/variants.txt", "variants.txt is missing"),
        ("car-fewshot", "stanford_cars/devkit/cars_test_annos_withlabels.mat", "published beside the devkit"),
        ("pet-fewshot", "oxford-iiit-pet/annotations/test.txt", "test.txt is missing; unpack images.tar.gz"),
        ("flower-lt", "flowers-102/setid.mat", "setid.mat is missing"),
        ("cub-waterbird", "waterbird_complete95_forest2water2/metadata.csv", "neither metadata.csv nor waterbird_"),
        (
            "cub-lt",
            f"CUB_200_2011/images/{layouts.BIRDS[0]}/Black_footed_Albatross_0003_700004.jpg",
            "0003_700004.jpg is",
        ),
    ],
)
def test_a_missing_file_is_named_with_the_mend(name: str, lost: str, told: str, tmp_path: Path) -> None:
    for make in (layouts.cub, layouts.aircraft, layouts.cars, layouts.pets, layouts.flowers, layouts.waterbirds):
        make(tmp_path)
    load(name, str(tmp_path), counts=None)
    (tmp_path / lost).unlink()
    with pytest.raises(SourceError) as error:
        load(name, str(tmp_path), counts=None)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        (
            "cub-fewshot",
            "CUB_200_2011/image_class_labels.txt",
            b"1 1\n",
            "does not name the images",
        ),
        ("cub-fewshot", "CUB_200_2011/classes.txt", b"1\n", "has 1 columns instead of 2 in line 1"),
        ("cub-fewshot", "CUB_200_2011/classes.txt", b"1 \xff\xfe\n", "is no UTF-8 text"),
        ("cub-fewshot", "CUB_200_2011/classes.txt", b"1 a\n2 b\n3 c\n", "a label lies outside the 3 classes"),
        ("aircraft-fewshot", "fgvc-aircraft-2013b/data/variants.txt", b"707-320\n", "names the variant 'A340-300'"),
        ("car-fewshot", "stanford_cars/devkit/cars_meta.mat", b"<html>", "is no MATLAB file of version 5"),
        ("car-fewshot", "stanford_cars/devkit/cars_meta.mat", b"", "is no MATLAB file of version 5"),
        ("pet-fewshot", "oxford-iiit-pet/annotations/test.txt", b"Abyssinian_1 x 1 1\n", "has 'x' where a number"),
        ("pet-fewshot", "oxford-iiit-pet/annotations/trainval.txt", b"Abyssinian_1 x 1 1\n", "has 'x' where a number"),
        (
            "cub-waterbird",
            "waterbird_complete95_forest2water2/metadata.csv",
            b"img_filename,y,split,place\n001.a/b.jpg,2,2,0\n",
            "has a row that is not understood",
        ),
    ],
)
def test_a_damaged_file_is_named(name: str, file: str, content: bytes, told: str, tmp_path: Path) -> None:
    for make in (layouts.cub, layouts.aircraft, layouts.cars, layouts.pets, layouts.waterbirds):
        make(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SourceError) as error:
        load(name, str(tmp_path), counts=None)
    assert told in str(error.value)
    # Three class names are a whole file: that they are too few is only seen beside the labels.
    assert Path(file).name in str(error.value) or "a label lies outside" in told


def test_the_folder_itself_may_be_given_and_any_url(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    inner = load("cub-fewshot", str(tmp_path / "CUB_200_2011"), counts=None)
    assert inner == load("cub-fewshot", str(tmp_path), counts=None)
    fsspec.filesystem("memory").put(str(tmp_path), "memory://birds", recursive=True)
    remote = load("cub-fewshot", "memory://birds", counts=None)
    assert [sample.label for sample in remote.train] == [sample.label for sample in inner.train]
    assert remote.train[0].where.startswith("memory://") and remote.train[0].image().size == (6, 4)


def test_labels_of_the_cars_beside_the_devkit(tmp_path: Path) -> None:
    layouts.cars(tmp_path, beside=True)
    assert len(load("car-fewshot", str(tmp_path), counts=None).test) == 6


def test_a_bird_that_was_trained_on_is_not_tested(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    layouts.waterbirds(tmp_path, trains=12)
    with pytest.raises(SourceError, match="shows a bird of CUB's training part"):
        load("cub-waterbird", str(tmp_path), counts=None)


def test_unknown_names_and_impossible_shots(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    with pytest.raises(ConfigError, match="cub-fewshot, aircraft-fewshot"):
        load("cub", str(tmp_path))
    with pytest.raises(ConfigError, match="shots must be 1 to 13"):
        load("cub-fewshot", str(tmp_path), shots=14, counts=None)
    assert len(NAMES) == 7
