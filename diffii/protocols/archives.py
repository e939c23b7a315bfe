"""The published data sets of the paper, each read in the layout that its authors' archives unpack to."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from diffii.protocols.archive import Archive, Folder, Layout

CUB = Layout(
    "CUB-200-2011",
    "CUB_200_2011",
    "images.txt",
    "CUB_200_2011.tgz",
    {"train": 5994, "test": 5794, "classes": 200},
)
AIRCRAFT = Layout(
    "FGVC-Aircraft 2013b",
    "fgvc-aircraft-2013b",
    "data/images_variant_trainval.txt",
    "fgvc-aircraft-2013b.tar.gz",
    {"train": 6667, "test": 3333, "classes": 100},
)
CARS = Layout(
    "Stanford Cars",
    "stanford_cars",
    "devkit/cars_meta.mat",
    "cars_train.tgz, cars_test.tgz and car_devkit.tgz",
    {"train": 8144, "test": 8041, "classes": 196},
)
PETS = Layout(
    "Oxford-IIIT Pet",
    "oxford-iiit-pet",
    "annotations/trainval.txt",
    "images.tar.gz and annotations.tar.gz",
    {"train": 3680, "test": 3669, "classes": 37},
)
FLOWERS = Layout(
    "Oxford Flowers 102",
    "flowers-102",
    "imagelabels.mat",
    "102flowers.tgz, with imagelabels.mat and setid.mat beside its folder jpg",
    {"train": 1020, "validation": 1020, "test": 6149, "classes": 102},
)
WATERBIRDS = Layout(
    "Waterbirds",
    "waterbird_complete95_forest2water2",
    "metadata.csv",
    "waterbird_complete95_forest2water2.tar.gz",
    {"train": 4795, "validation": 1199, "test": 5794, "classes": 200},
)
WATERBIRD_GROUPS = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")


def read_cub(folder: Folder) -> Archive:
    """images.txt, image_class_labels.txt, train_test_split.txt and classes.txt; images below `images`."""
    images = folder.numbered("images.txt")
    label_of, trains = folder.numbered("image_class_labels.txt"), folder.numbered("train_test_split.txt")
    classes = folder.numbered("classes.txt")
    for name, table in (("image_class_labels.txt", label_of), ("train_test_split.txt", trains)):
        if table.keys() != images.keys():
            raise folder.wrong(name, "does not name the images that images.txt names")
    rows = {"1": [], "0": []}
    for key, path in images.items():
        if trains[key] not in rows:
            raise folder.wrong("train_test_split.txt", f"has {trains[key]!r} where 0 or 1 belongs")
        label = folder.number("image_class_labels.txt", label_of[key]) - 1
        rows[trains[key]].append((f"images/{path}", label, 0))
    names = tuple(classes[key] for key in sorted(classes))
    return Archive(names, {"train": folder.samples(rows["1"]), "test": folder.samples(rows["0"])})


def read_aircraft(folder: Folder) -> Archive:
    """data/images_variant_{trainval,test}.txt and variants.txt; images below data/images.

    The 20 lowest pixel rows of every image name its photographer; they are left in.
    """
    classes = tuple(folder.lines("data/variants.txt"))
    label_of = {name: label for label, name in enumerate(classes)}
    parts = {}
    for part, listed in (("train", "trainval"), ("test", "test")):
        name = f"data/images_variant_{listed}.txt"
        rows = folder.table(name, 2)
        if unknown := [variant for _, variant in rows if variant not in label_of]:
            raise folder.wrong(name, f"names the variant {unknown[0]!r}, which data/variants.txt does not")
        parts[part] = folder.samples((f"data/images/{image}.jpg", label_of[variant], 0) for image, variant in rows)
    return Archive(classes, parts)


def read_cars(folder: Folder) -> Archive:
    """devkit/cars_meta.mat and cars_train_annos.mat, cars_test_annos_withlabels.mat in `devkit` or beside it."""
    classes = tuple(
        str(name) for name in np.atleast_1d(folder.matlab("devkit/cars_meta.mat", ["class_names"])["class_names"])
    )
    labelled = "cars_test_annos_withlabels.mat"
    tests = f"devkit/{labelled}" if folder.has(f"devkit/{labelled}") else labelled
    if not folder.has(tests):
        raise folder.wrong(tests, "is missing (it is published beside the devkit, whose own list has no labels)")
    parts = {}
    for part, name in (("train", "devkit/cars_train_annos.mat"), ("test", tests)):
        rows = np.atleast_1d(folder.matlab(name, ["annotations"])["annotations"])
        if rows.dtype.names is None or not {"fname", "class"} <= set(rows.dtype.names):
            raise folder.wrong(name, "has annotations without fname and class")
        parts[part] = folder.samples((f"cars_{part}/{row['fname']}", int(row["class"]) - 1, 0) for row in rows)
    return Archive(classes, parts)


def read_pets(folder: Folder) -> Archive:
    """annotations/{trainval,test}.txt: image, class, species, breed; images below `images`. A class is named as its
    images are, without their number."""
    names: dict[int, str] = {}
    parts = {}
    for part, listed in (("train", "trainval"), ("test", "test")):
        name = f"annotations/{listed}.txt"
        found = []
        for image, number, _, _ in folder.table(name, 4):
            label = folder.number(name, number) - 1
            names.setdefault(label, image.rpartition("_")[0])
            found.append((f"images/{image}.jpg", label, 0))
        parts[part] = folder.samples(found)
    return Archive(tuple(names[label] for label in sorted(names)), parts)


def read_flowers(folder: Folder) -> Archive:
    """imagelabels.mat and setid.mat; jpg/image_00001.jpg and on. The archive numbers its classes and does not name
    them: they are called 001 to 102."""
    labels = _numbers(folder, "imagelabels.mat", "labels")
    places = {"train": "trnid", "validation": "valid", "test": "tstid"}
    parts = {}
    for part, variable in places.items():
        ids = _numbers(folder, "setid.mat", variable)
        if len(ids) and not 1 <= ids.min() <= ids.max() <= len(labels):
            raise folder.wrong("setid.mat", f"names images in {variable} that imagelabels.mat has no label for")
        parts[part] = folder.samples((f"jpg/image_{k:05d}.jpg", int(labels[k - 1]) - 1, 0) for k in ids)
    return Archive(tuple(f"{label:03d}" for label in range(1, int(labels.max(initial=0)) + 1)), parts)


def read_waterbirds(folder: Folder) -> Archive:
    """metadata.csv: img_filename, y (1: waterbird), split (0, 1, 2), place (1: water). Labels are CUB's 200 species,
    which the folders' numbers tell; groups are `WATERBIRD_GROUPS`."""
    rows = list(csv.DictReader(folder.lines("metadata.csv")))
    parts: dict[str, list[tuple[str, int, int]]] = {"train": [], "validation": [], "test": []}
    names: dict[int, str] = {}
    for row in rows:
        try:
            file, split = row["img_filename"], int(row["split"])
            group, label = 2 * int(row["y"]) + int(row["place"]), int(file.partition(".")[0]) - 1
            part = dict(enumerate(parts))[split]
            if label < 0 or row["y"] not in {"0", "1"} or row["place"] not in {"0", "1"}:
                raise ValueError(file)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise folder.wrong("metadata.csv", f"has a row that is not understood: {row}") from error
        names[label] = file.partition("/")[0]
        parts[part].append((file, label, group))
    classes = tuple(names.get(label, "") for label in range(max(names, default=-1) + 1))
    return Archive(classes, {part: folder.samples(found) for part, found in parts.items()})


def _numbers(folder: Folder, name: str, variable: str) -> np.ndarray:
    found: Any = folder.matlab(name, [variable])[variable]
    return np.atleast_1d(np.asarray(found)).astype(np.int64)
