"""`make readers`: readers whose packages want other versions than ours, each in an environment of its own.

Neither sees a line of our code: it is given a folder, and prints what it found there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from engine.export.export import export
from engine.run import Run
from tests.readers.made import Seen, expanded, expected, real_images

HERE = Path(__file__).parent / "alone"
ENVIRONMENTS = Path(".readers")


def environment(name: str) -> Path:
    """The Python of an environment with the packages of `alone/<name>.txt`; made once."""
    place = ENVIRONMENTS / name
    wanted = (HERE / f"{name}.txt").read_text()
    done = place / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        venv.create(place, with_pip=True, clear=True)
        pip = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", HERE / f"{name}.txt"], check=True)
        done.write_text(wanted)
    return place / "bin" / "python"


def seen(name: str, copy: Path) -> list[Seen]:
    """What the reader finds in a copy, sorted by id."""
    command = [environment(name), HERE / f"read_{name}.py", copy]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    rows = json.loads(done.stdout.splitlines()[-1])
    return sorted((Seen(*row[:4], pixels=bytes.fromhex(row[4])) for row in rows), key=lambda row: row.sample_id)


def check_mds(run: Run, place: Path) -> None:
    for encoding in ("png", "webp"):
        copy = place / f"mds-{encoding}"
        export(run.storage.url, str(copy), "mds", encoding=encoding, include_real=True)
        assert seen("mds", copy) == expected(run, real=True), f"streaming reads {copy} differently"
        print(f"streaming.StreamingDataset reads mds with {encoding}")


def check_energon(run: Run, place: Path) -> None:
    copy = place / "webdataset"
    export(run.storage.url, str(copy), "webdataset", include_real=True)
    found = [(row.sample_id, row.label, row.pixels) for row in seen("energon", copy)]
    assert found == [(row.sample_id, row.label, row.pixels) for row in expected(run, real=True)]
    print("megatron.energon reads webdataset, and its index is ours")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = expanded(str(place / "out"), real_images(place / "source"))
        for check in (check_mds, check_energon):
            check(run, place)


if __name__ == "__main__":
    sys.exit(main())
