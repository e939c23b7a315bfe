"""Mixing real and synthetic images: how often, of which class, and the same again for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

import diffii
from diffii.dataset.labelled import labelled
from diffii.dataset.mixing import Mixing
from diffii.errors import SourceError

REAL = np.repeat(np.arange(3), [90, 8, 2])
SYNTHETIC = np.tile(np.arange(3), 20)


def colours(labels: np.ndarray, blue: int) -> list[tuple[Image.Image, int]]:
    return [(Image.new("RGB", (4, 4), (int(label), number, blue)), int(label)) for number, label in enumerate(labels)]


def pixel(image: Image.Image) -> tuple[int, int, int]:
    value = image.getpixel((0, 0))
    assert isinstance(value, tuple)
    return value[0], value[1], value[2]


def test_each_image_is_replaced_with_probability_p_by_one_of_its_class() -> None:
    mixing = Mixing(REAL, SYNTHETIC, 3, 0.3, balanced=False)
    replaced = np.zeros(len(REAL))
    for epoch in range(300):
        places = mixing.epoch(epoch)
        replaced += places.synthetic
        assert (SYNTHETIC[places.index[places.synthetic]] == REAL[places.synthetic]).all()
        assert (places.index[~places.synthetic] == np.flatnonzero(~places.synthetic)).all()
    # 300 tosses at 0.3: three standard errors of the mean over 100 places are 0.008.
    assert abs(replaced.mean() / 300 - 0.3) < 0.008
    assert replaced.min() / 300 > 0.18


def test_balanced_draws_rare_classes_more_often() -> None:
    mixing = Mixing(REAL, SYNTHETIC, 3, 1.0, balanced=True)
    labels = np.concatenate([SYNTHETIC[mixing.epoch(epoch).index] for epoch in range(300)])
    weights = 1 / (np.array([90, 8, 2]) + 1)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), weights / weights.sum(), atol=0.01)
    assert len(np.unique(mixing.epoch(0).index)) > 30, "any image of the class, not one"


def test_a_class_without_synthetic_images_keeps_its_real_ones() -> None:
    only_first = np.zeros(5, np.int64)
    same = Mixing(REAL, only_first, 3, 1.0, balanced=False).epoch(0)
    np.testing.assert_array_equal(same.synthetic, REAL == 0)
    assert (Mixing(REAL, only_first, 3, 1.0, balanced=True).epoch(0).index < 5).all()
    assert not Mixing(REAL, only_first[:0], 3, 1.0, balanced=True).epoch(0).synthetic.any()


def test_epochs_ranks_and_seeds_differ_and_repeat() -> None:
    def drawn(epoch: int, rank: int = 0, seed: int = 0) -> bytes:
        return Mixing(REAL, SYNTHETIC, 3, 0.5, True, seed).epoch(epoch, rank).index.tobytes()

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(3, rank=1), drawn(3, seed=1)}) == 4


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="p is a probability"):
        Mixing(REAL, SYNTHETIC, 3, 1.5, True)
    with pytest.raises(ValueError, match="no real image"):
        Mixing(REAL[:0], SYNTHETIC, 3, 0.5, True)
    with pytest.raises(ValueError, match="outside the 2 classes"):
        Mixing(REAL, SYNTHETIC, 2, 0.5, True)


def test_sequences_become_a_data_set_that_worker_processes_share() -> None:
    mixed = diffii.mix(colours(REAL, 0), colours(SYNTHETIC, 255), p=0.5, balanced=False, transform=pixel)
    assert len(mixed) == 100
    loader = DataLoader(mixed, batch_size=None, num_workers=1, persistent_workers=True)  # pyright: ignore
    epochs = []
    for epoch in (0, 1, 0):
        mixed.set_epoch(epoch)
        epochs.append([(tuple(map(int, image)), int(label)) for image, label in loader])
        assert epochs[-1] == [mixed[place] for place in range(100)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert all(image[0] == label for image, label in epochs[0])
    assert 30 < sum(image[2] == 255 for image, _ in epochs[0]) < 70
    with pytest.raises(IndexError):
        mixed[100]


def test_classes_of_folders_are_matched_by_name(tmp_path: Path) -> None:
    for set_name, classes in (("real", ("ant", "bee", "cat")), ("made", ("bee", "cat"))):
        for name in classes:
            (tmp_path / set_name / name).mkdir(parents=True)
            Image.new("RGB", (2, 2), (len(name), ord(name[0]), 0)).save(tmp_path / set_name / name / "1.png")
    mixed = diffii.mix(tmp_path / "real", str(tmp_path / "made"), p=1.0, balanced=False, transform=pixel)
    assert mixed.classes == ("ant", "bee", "cat")
    assert [(image[1], label) for image, label in (mixed[place] for place in range(3))] == [(97, 0), (98, 1), (99, 2)]
    np.testing.assert_array_equal(mixed.places.synthetic, [False, True, True])
    with pytest.raises(SourceError, match="the class 'ant', which the real ones do not have"):
        diffii.mix(tmp_path / "made", tmp_path / "real")
    (tmp_path / "made" / "bee" / "1.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"bee/1\.png is not a usable image"):
        mixed[1]
    with pytest.raises(SourceError, match="there is nothing there"):
        diffii.mix(tmp_path / "nowhere", tmp_path / "real")


def test_soft_labels_are_distributions(tmp_path: Path) -> None:
    from dataclasses import replace

    from diffii.dataset.mix import Mixed

    real, made = labelled(colours(np.array([0, 1]), 0)), labelled(colours(np.array([1, 0]), 255))
    made = replace(made, other_labels=np.array([0, 0]), weights=np.array([0.75, 1.0]))
    mixing = Mixing(real.labels, made.labels, 2, 1.0, balanced=False)
    mixed = Mixed(real, made, ("a", "b"), mixing, None, 0)
    np.testing.assert_array_equal(mixed[0][1], np.array([1, 0], np.float32))
    np.testing.assert_array_equal(mixed[1][1], np.array([0.25, 0.75], np.float32))
    loaded = next(iter(DataLoader(mixed, batch_size=2, collate_fn=lambda rows: [label for _, label in rows])))  # pyright: ignore
    assert all(label.dtype == np.float32 and label.sum() == 1 for label in loaded)


def test_workers_may_be_spawned(tmp_path: Path) -> None:
    for set_name, blue in (("real", 0), ("made", 255)):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / set_name / name).mkdir(parents=True)
            Image.new("RGB", (2, 2), (label, 0, blue)).save(tmp_path / set_name / name / "1.png")
    mixed = diffii.mix(tmp_path / "real", tmp_path / "made", balanced=False, transform=pixel)
    mixed[0]  # what is open here is not to travel
    loader = DataLoader(mixed, batch_size=None, num_workers=1, multiprocessing_context="spawn")  # pyright: ignore
    assert [(tuple(map(int, image)), int(label)) for image, label in loader] == [mixed[place] for place in range(2)]
