"""From and to `s3://`, against a real S3 protocol server: the same bytes as on a local disk, killed or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine.verify import verify
from tests.cluster.commands import SMALL, diffii, kill_when, run
from tests.engine.sources import garments

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.s3"]


def test_a_bucket_is_as_good_as_a_disk(s3_url: str, tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=2, classes=2)
    # Enough shards that some are in the log while others are still to be made.
    settings = [*SMALL, "--set=expansion.factor=30"]
    bucket: Any = fsspec.filesystem("s3")
    bucket.put(str(source), f"{s3_url}/source", recursive=True)
    out, disk = f"{s3_url}/out", tmp_path / "out"

    def committing() -> bool:
        return len(Storage(out).find(layout.LOG)) > 2

    kill_when(diffii("expand", f"{s3_url}/source", out, *settings), committing)
    assert not verify(out).ok
    run("expand", f"{s3_url}/source", out, *settings)
    run("expand", source, disk, *settings)
    found, expected = verify(out), verify(str(disk))
    assert (found.problems, found.orphans) == ([], [])
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
    assert "nothing to do" in run("expand", f"{s3_url}/source", out, *settings).stderr
    assert json.loads(run("status", out, "--json").stdout)["kept"] == 120
    assert bucket.cat(f"{out}/{layout.CONTACT_SHEET}") == (disk / layout.CONTACT_SHEET).read_bytes()
