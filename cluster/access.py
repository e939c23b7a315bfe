"""A cluster's job server, by its dashboard's address: what goes wrong on the way is said in one line with the mend."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from diffii.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def connect(address: str) -> JobSubmissionClient:
    """The job server at `http(s)://HOST:PORT`, whose token is in the environment. Raises ClusterError."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ClusterError(
            f"--address {address}: must be the dashboard's, http://127.0.0.1:8265 through a tunnel; Ray Client "
            "(ray://) is not used"
        )
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ClusterError(
            f"--address {address}: the token would go over the network for everybody to read; open a tunnel (ray "
            "dashboard CLUSTER.yaml, kubectl port-forward, ssh -L) and give http://127.0.0.1:8265, or use https"
        )
    try:
        import aiohttp  # noqa: F401
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ClusterError("jobs need packages that are not installed: pip install 'diffii[cluster]'") from error
    from cluster.authentication import demand_token

    demand_token()
    # Both set their own level when they are imported.
    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Ray takes the environment's address over the one that it is given.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    with answering(address):
        return JobSubmissionClient(address)


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """What Ray raises here becomes a ClusterError."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{address} does not know this token; export RAY_AUTH_TOKEN_PATH=FILE, the file that the cluster was "
            "started with"
        ) from error
    except (ConnectionError, requests.RequestException) as error:
        raise ClusterError(
            f"{address} does not answer; is the cluster up, and the tunnel open (ray dashboard CLUSTER.yaml, kubectl "
            "port-forward service/CLUSTER-head-svc 8265)?"
        ) from error
    except RuntimeError as error:
        raise ClusterError(f"{address} refuses: {' '.join(str(error).split())[:300]}") from error
