"""Ray's token: who has it may run code on a cluster, who has not gets nothing.

It lives in the environment (`RAY_AUTH_TOKEN`, or the file that `RAY_AUTH_TOKEN_PATH` names, or ~/.ray/auth_token),
never in a file of ours.
"""

from __future__ import annotations

import os

from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import AuthenticationError

from diffii.errors import ClusterError


def demand_token() -> None:
    """Say that clusters want a token, unless the environment says otherwise; Ray's own default depends on its version.

    Raises ClusterError when there is none to show.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    read_environment()
    try:
        missing = os.environ["RAY_AUTH_MODE"] == "token" and not AuthenticationTokenLoader.instance().has_token()
    except (RuntimeError, AuthenticationError) as error:  # there is none, or its file is not there, or empty
        raise ClusterError(f"{_MEND} ({' '.join(str(error).split())})") from error
    if missing:
        raise ClusterError(_MEND)


_MEND = (
    "the cluster's token is not to be found; export RAY_AUTH_TOKEN_PATH=FILE, the file that the cluster was started "
    "with (KubeRay: export RAY_AUTH_TOKEN=$(kubectl get secret CLUSTER -o jsonpath='{.data.auth_token}' | base64 -d))"
)


def read_environment() -> None:
    """Have Ray look at its environment again: it did so when it was imported, which may have been long ago."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
