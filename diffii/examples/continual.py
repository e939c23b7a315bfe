"""Train a classifier while `diffii expand` is still writing, and while its source gains images and classes.

    python -m diffii.examples.continual ./birds-x5 ./classifier --epochs 50

Each epoch takes the rows that are committed when it begins. The state is written every few batches: what was learned,
and how far the epoch has come. Kill it anywhere and start it again, beside a writer that may have been killed as well:
it goes on in the middle of the epoch, with exactly the rows that are left. `epochs.jsonl` says what each epoch was of.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

import diffii
from diffii.dataset.snapshot import Snapshot
from diffii.errors import OutputError

STATE, EPOCHS = "state.pt", "epochs.jsonl"


def network(classes: int) -> nn.Sequential:
    """A small one, for any size of image; the last layer has a row per class."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def widen(model: nn.Sequential, classes: int) -> None:
    """Give the last layer rows for classes that have come; those that are there keep theirs."""
    known = model[-1]
    assert isinstance(known, nn.Linear)
    if classes == known.out_features:
        return
    wider = nn.Linear(known.in_features, classes)
    with torch.no_grad():
        wider.weight[: known.out_features] = known.weight
        wider.bias[: known.out_features] = known.bias
    model[-1] = wider


def newest(url: str, patience: float) -> Snapshot:
    """The data set as it is committed now; waits for its first rows. Raises OutputError when none come in time."""
    until = time.monotonic() + patience
    while True:
        try:
            snapshot = diffii.open(url)
            if len(snapshot):
                return snapshot
        except OutputError:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise OutputError(f"{url} has no rows after {patience:.0f} s")
        time.sleep(1.0)


class Training:
    """What is learned, and where it stands; `save` and `Training(folder)` are each other's inverse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epoch, self.version = 0, -1
        self.reading: dict[str, Any] | None = None
        """How far the epoch has come; None between two of them."""
        self.model: nn.Sequential | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            found = torch.load(folder / STATE, weights_only=True)
            self.epoch, self.version, self.reading = found["epoch"], found["version"], found["reading"]
            self.model = network(found["classes"])
            self.model.load_state_dict(found["model"])

    def save(self, model: nn.Sequential, reading: dict[str, Any] | None) -> None:
        last = model[-1]
        assert isinstance(last, nn.Linear)
        state = {"epoch": self.epoch, "version": self.version, "reading": reading, "classes": last.out_features}
        torch.save({**state, "model": model.state_dict()}, self.folder / f"{STATE}.new")
        (self.folder / f"{STATE}.new").replace(self.folder / STATE)

    def tell(self, **facts: Any) -> None:
        """A line on an epoch that has ended; one that was killed right after it says it once more."""
        with (self.folder / EPOCHS).open("a") as file:
            file.write(json.dumps(facts) + "\n")


def train(
    url: str, folder: Path, epochs: int, *, batch: int = 32, every: int = 20, workers: int = 0, patience: float = 600.0
) -> None:
    """Train `epochs` epochs in all, those of earlier runs counted. Raises OutputError when there is nothing to read."""
    training = Training(folder)
    while training.epoch < epochs:
        # In the middle of an epoch its own rows; at the border what has been committed since.
        middle = training.reading is not None
        snapshot = diffii.open(url, training.version) if middle else newest(url, patience)
        training.version = snapshot.version
        model = training.model = training.model or network(len(snapshot.classes))
        widen(model, len(snapshot.classes))
        # Made anew: momentum would be of the other classes' gradients.
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        stream = snapshot.to_torch().stream(batch)
        if training.reading is not None:
            stream.load_state_dict(training.reading)
        stream.set_epoch(training.epoch)
        losses: list[float] = []
        model.train()
        for taken, (images, labels) in enumerate(DataLoader(stream, batch_size=None, num_workers=workers), start=1):
            loss = nn.functional.cross_entropy(model(images.float() / 127.5 - 1), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss))
            if taken % every == 0:
                training.save(model, stream.state_dict(taken))
        training.epoch, training.reading = training.epoch + 1, None
        mean = sum(losses) / max(1, len(losses))
        training.tell(
            epoch=training.epoch, version=snapshot.version, rows=len(snapshot), classes=len(snapshot.classes), loss=mean
        )
        training.save(model, None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train while a data set is still being written.")
    parser.add_argument("data", help="what diffii expand writes; any fsspec URL")
    parser.add_argument("folder", type=Path, help="where the classifier and its state go")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--every", type=int, default=20, help="batches between two states")
    parser.add_argument("--workers", type=int, default=0)
    asked = parser.parse_args()
    train(asked.data, asked.folder, asked.epochs, batch=asked.batch, every=asked.every, workers=asked.workers)


if __name__ == "__main__":
    main()
