"""Reduced copies of the published data sets, in the exact layouts of their archives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross", "004.Groove_billed_Ani")
VARIANTS = ("707-320", "A340-300", "F-16A/B", "Challenger 600")
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
PETS = ("Abyssinian", "american_bulldog", "Egyptian_Mau")


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value % 256, 80, 160)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())


def cub(root: Path, trains: int = 13, tests: int = 2) -> Path:
    """`trains` and `tests` images of each of four classes; columns stand one space apart, as in the archive."""
    folder = root / "CUB_200_2011"
    images, labels, splits = [], [], []
    number = 0
    for label, name in enumerate(BIRDS, start=1):
        for k in range(trains + tests):
            number += 1
            file = f"{name}/{name.split('.')[1]}_{k:04d}_{700000 + number}.jpg"
            picture(folder / "images" / file, number)
            images.append(f"{number} {file}")
            labels.append(f"{number} {label}")
            splits.append(f"{number} {int(k < trains)}")
    _write(folder / "images.txt", images)
    _write(folder / "image_class_labels.txt", labels)
    _write(folder / "train_test_split.txt", splits)
    _write(folder / "classes.txt", [f"{label} {name}" for label, name in enumerate(BIRDS, start=1)])
    return root


def aircraft(root: Path, trains: int = 13, tests: int = 2) -> Path:
    data = root / "fgvc-aircraft-2013b" / "data"
    _write(data / "variants.txt", list(VARIANTS))
    number = 34308
    for part, count in (("trainval", trains), ("test", tests)):
        rows = []
        for variant in VARIANTS:
            for _ in range(count):
                number += 1
                picture(data / "images" / f"{number:07d}.jpg", number)
                rows.append(f"{number:07d} {variant}")
        _write(data / f"images_variant_{part}.txt", rows)
    return root


def cars(root: Path, trains: int = 13, tests: int = 2, beside: bool = False) -> Path:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([list(CARS)], dtype=object)})
    kind = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for part, count in (("train", trains), ("test", tests)):
        rows = []
        for label in range(1, len(CARS) + 1):
            for _ in range(count):
                file = f"{len(rows) + 1:05d}.jpg"
                picture(folder / f"cars_{part}" / file, len(rows))
                rows.append((39, 116, 569, 375, label, file))
        annotations = np.array([rows], dtype=kind).reshape(1, -1)
        names = {"train": "devkit/cars_train_annos.mat", "test": "devkit/cars_test_annos_withlabels.mat"}
        name = "cars_test_annos_withlabels.mat" if beside and part == "test" else names[part]
        savemat(folder / name, {"annotations": annotations})
    return root


def pets(root: Path, trains: int = 13, tests: int = 2) -> Path:
    folder = root / "oxford-iiit-pet"
    for part, first, count in (("trainval", 1, trains), ("test", 1 + trains, tests)):
        rows = []
        for label, name in enumerate(PETS, start=1):
            for k in range(first, first + count):
                picture(folder / "images" / f"{name}_{k}.jpg", k)
                rows.append(f"{name}_{k} {label} {2 if name[0].islower() else 1} {label}")
        _write(folder / "annotations" / f"{part}.txt", rows)
    return root


def flowers(root: Path, classes: int = 4, sizes: tuple[int, int, int] = (2, 2, 26)) -> Path:
    """Class c has c more images to test than class 0."""
    folder = root / "flowers-102"
    labels: list[int] = []
    ids: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for label in range(1, classes + 1):
        for part, size in zip(ids, sizes, strict=True):
            for _ in range(size + (label - 1 if part == "tstid" else 0)):
                labels.append(label)
                ids[part].append(len(labels))
                picture(folder / "jpg" / f"image_{len(labels):05d}.jpg", len(labels))
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(folder / "setid.mat", {name: np.array([rows], dtype=np.uint16) for name, rows in ids.items()})
    return root


def waterbirds(root: Path, trains: int = 13, tests: int = 2) -> Path:
    """Made of the same file names as `cub`; the first two species count as waterbirds."""
    folder = root / "waterbird_complete95_forest2water2"
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    number = 0
    for label, name in enumerate(BIRDS):
        for k in range(trains + tests):
            number += 1
            file = f"{name}/{name.split('.')[1]}_{k:04d}_{700000 + number}.jpg"
            picture(folder / file, number)
            place = k % 2
            split = 2 if k >= trains else int(k == 0)
            rows.append(f"{number},{file},{int(label < 2)},{split},{place},/o/ocean/{number:08d}.jpg")
    _write(folder / "metadata.csv", rows)
    return root


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
