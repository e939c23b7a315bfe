"""`diffii expand` with a troubled generator: `python -m tests.chaos.expand SOURCE OUT ACTORS KEY=VALUE ...`"""

from __future__ import annotations

import sys

from cluster.local import local_ray
from diffii.errors import DiffiiError
from engine import expand as expansion
from engine.settings import load_config
from tests.chaos.troubled import Troubled


def main(source: str, out: str, actors: str, *settings: str) -> None:
    expansion.Generator = Troubled
    overrides = {"source.url": source, "output.url": out, "actors.max": int(actors)}
    config = load_config(sets=settings, overrides=overrides)
    try:
        with local_ray(int(actors)):
            expansion.expand(config)
    except DiffiiError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
