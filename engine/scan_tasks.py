"""A large source looked at by small tasks of Ray, on whatever machines there are; images never reach the driver.

These are plain tasks and not a Ray Data stream: an image can end the process that decodes it (a bug in a decoder, no
memory left), and Ray Data would try its block again and then give up the whole scan. Here the block is cut in halves
until the image is found, and it alone is skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

from diffii.images import Limits
from engine.scan import Eye, Look, look, look_at_part
from engine.stream import our_error

_PLACES = 256
"""Images of a task: a second of work and more."""
_RETRIES = 1
"""A node may be taken back; what dies twice is cut in halves."""
KILLER = "decoding it ended the process (a crash, or no memory left)"

Places = tuple[str, ...]


def look_in_ray(url: str, images: str, places: list[str], limits: Limits, eye: Eye = look) -> Iterator[Look]:
    """A look at each place, in their order (`engine.scan.LookAt`); a Ray must be up. Raises SourceError."""
    task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(look_at_part)

    def begin(part: Places) -> tuple[Places, Any]:
        return part, task.remote(url, images, part, limits, eye)

    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    begun: deque[tuple[Places, Any]] = deque()
    for start in range(0, len(places), _PLACES):
        begun.append(begin(tuple(places[start : start + _PLACES])))
        if len(begun) > ahead:
            yield from _seen(*begun.popleft(), begin)
    while begun:
        yield from _seen(*begun.popleft(), begin)


def _seen(part: Places, looks: Any, begin: Callable[[Places], tuple[Places, Any]]) -> list[Look]:
    try:
        return ray.get(looks)
    except (WorkerCrashedError, OutOfMemoryError):
        if len(part) == 1:
            return [Look(reason=KILLER)]
        middle = len(part) // 2
        halves = [begin(part[:middle]), begin(part[middle:])]
        return [one for half in halves for one in _seen(*half, begin)]
    except RayTaskError as error:
        raise our_error(error) or error from None
