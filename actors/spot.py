"""Spot notices: a cloud says in the machine's own metadata that it will take the machine back, and Ray is told.

A thread of each resident actor asks; where no cloud answers it ends at once. On a notice it drains its Ray node: Ray
Data gives the node no further chunk, what is in hand is finished if there is time, and the journals say of the rest
that the node went. AWS tells two minutes ahead, Azure and GCP half a minute.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

METADATA = "http://169.254.169.254"
"""Where AWS, GCP and Azure all answer; reached from nowhere but the machine itself."""
METADATA_VARIABLE = "DIFFII_METADATA_URL"
"""Environment variable of a node that says another place, such as a proxy for containers."""
ANSWER_SECONDS = 2.0
EVERY_SECONDS = 5.0
"""Between two questions: what AWS and GCP advise."""
GCP_SECONDS, AZURE_SECONDS = 30.0, 30.0
"""How long a machine lives after its notice where the notice does not say until when."""
SILENT_TRIES = 60
"""Questions without an answer, five minutes of them, after which a cloud that has answered is asked no more."""
SLOW_TRIES = 36
"""Questions that nobody answers in time, three minutes of them, before a machine is taken for no cloud's: Azure's
service is started by the first one, and takes up to two."""
PREEMPTION = 2
"""Ray's number of the reason for which a node is drained (`autoscaler.proto`)."""

NO_ANSWER = (OSError, ValueError, LookupError, TypeError)
"""A cloud does not answer, or says something else than it should."""

Ask = Callable[[], "Notice | None"]


@dataclass(frozen=True, slots=True)
class Notice:
    """`cloud` takes the machine back at `at` (seconds since 1970)."""

    cloud: str
    at: float

    def __str__(self) -> str:
        return f"{self.cloud} takes its machine back in {max(0.0, self.at - time.time()):.0f} s"


def cloud_here(url: str) -> Ask | None:
    """How to ask the cloud whose machine this is; None when no cloud answers at `url`.

    Raises TimeoutError when something may be there and did not answer in time.
    """
    slow = False
    for cloud in (_aws, _gcp, _azure):
        try:
            cloud(url)
        except NO_ANSWER as error:
            slow = slow or isinstance(getattr(error, "reason", error), TimeoutError)
            continue
        return lambda: cloud(url)
    if slow:
        raise TimeoutError(f"nothing at {url} answers in time")
    return None


def _patiently(url: str, every: float, over: threading.Event) -> Ask | None:
    for _ in range(SLOW_TRIES):
        try:
            return cloud_here(url)
        except TimeoutError:
            if over.wait(every):
                break
    return None


def wait_for_notice(url: str, every: float = EVERY_SECONDS, over: threading.Event | None = None) -> Notice | None:
    """Ask until there is a notice; None when no cloud answers, or not any more, or once `over` is set."""
    over = over or threading.Event()
    ask, silent = _patiently(url, every, over), 0
    while ask is not None and silent < SILENT_TRIES:
        try:
            if (notice := ask()) is not None:
                return notice
            silent = 0
        except NO_ANSWER:
            silent += 1
        if over.wait(every):
            break
    return None


def heed_notices(tell: Callable[[Notice], None]) -> None:
    """Watch this machine from a thread; on a notice `tell` it, and drain the Ray node that this actor is on."""

    def watch() -> None:
        notice = wait_for_notice(os.environ.get(METADATA_VARIABLE, METADATA))
        if notice is not None:
            tell(notice)
            drain_here(notice)

    threading.Thread(target=watch, name="spot", daemon=True).start()


def drain_here(notice: Notice) -> bool:
    """Tell Ray that this actor's node goes; whether Ray heard.

    The head's node is not drained: the driver goes with it, and until then its actors may as well work on.
    """
    context = ray.get_runtime_context()
    mine = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    if "node:__internal_head__" in mine["Resources"]:
        return False
    heard, _ = GcsClient(address=context.gcs_address).drain_node(
        context.get_node_id(), PREEMPTION, f"spot notice of {notice.cloud}", int(notice.at * 1000)
    )
    return bool(heard)


# -- what each cloud says; one of NO_ANSWER when it is not this cloud's machine ---------------------------------------


def _aws(url: str) -> Notice | None:
    # Version 2 of the service; version 1, without a token, is switched off on many machines. The recommendation to
    # rebalance is not heeded: it may come hours ahead, and the two minutes' notice is enough to finish a chunk.
    token = _answer(f"{url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token.strip()}
    try:
        said = json.loads(_answer(f"{url}/latest/meta-data/spot/instance-action", headers))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    # stop and hibernate end the work as terminate does.
    at = datetime.strptime(said["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return Notice("AWS", at.timestamp())


def _gcp(url: str) -> Notice | None:
    said = _answer(f"{url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}).strip()
    if said not in ("TRUE", "FALSE"):
        raise ValueError(said)
    return Notice("GCP", time.time() + GCP_SECONDS) if said == "TRUE" else None


def _azure(url: str) -> Notice | None:
    headers = {"Metadata": "true"}
    events = json.loads(_answer(f"{url}/metadata/scheduledevents?api-version=2020-07-01", headers))["Events"]
    goes = [event for event in events if event["EventType"] in ("Preempt", "Terminate")]
    if not goes:
        return None
    # The list is of all machines of a scale set.
    name = _answer(f"{url}/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers).strip()
    times = [_azure_time(event["NotBefore"]) for event in goes if name in event["Resources"]]
    return Notice("Azure", min(times)) if times else None


def _azure_time(text: str) -> float:
    # Empty once it has begun.
    return parsedate_to_datetime(text).timestamp() if text else time.time() + AZURE_SECONDS


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Not by way of a proxy: that would answer for its own machine."""


def _answer(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    with _OPENER.open(request, timeout=ANSWER_SECONDS) as answer:
        return answer.read(2**20).decode()
