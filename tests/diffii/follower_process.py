"""A reader that may be killed anywhere: it keeps each row and its own place in one line, which is there whole or not.

python -m tests.diffii.follower_process URL FILE
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import diffii


def keep_all(url: str, kept: Path) -> None:
    """Append the name of each row to `kept`, from where its last whole line says."""
    follower = diffii.follow(url, poll=0.05)
    lines = kept.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    os.truncate(kept, sum(map(len, whole)))
    if whole:
        follower.load_state_dict(json.loads(whole[-1])["state"])
    with kept.open("a", buffering=1, encoding="ascii") as file:
        for row in follower:
            file.write(json.dumps({"row": row["sample_id"], "state": follower.state_dict()}) + "\n")


if __name__ == "__main__":
    keep_all(sys.argv[1], Path(sys.argv[2]))
