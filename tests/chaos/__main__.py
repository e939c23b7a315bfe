"""Put real runs through real trouble: `python -m tests.chaos --seeds 6 --first 1` prints one JSON object a run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.chaos.scenarios import TROUBLES, Place, endure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--troubles", default=",".join(TROUBLES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--drivers", type=int, default=2, help="to be killed in a run of `kills`")
    parser.add_argument("--actors", type=int, default=2, help="to be killed in a run of `kills`")
    given = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), given.drivers, given.actors)
        for seed in range(given.first, given.first + given.seeds):
            for trouble in given.troubles.split(","):
                tally = endure(place, trouble, seed)
                print(json.dumps(asdict(tally)), flush=True)
                bad += not tally.ok
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
