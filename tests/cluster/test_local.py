"""The local Ray: nobody without this command's token may use it, and a machine too busy for it is told of."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

from cluster.local import local_ray
from diffii.errors import ClusterError

STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in:", ray.get(ray.remote(lambda: 1).remote()))
"""


def test_a_stranger_without_the_token_is_refused(ray_here: None) -> None:
    address = ray.get_runtime_context().gcs_address
    assert os.environ["RAY_AUTH_MODE"] == "token"
    for token, welcome in ((os.environ["RAY_AUTH_TOKEN"], True), ("0" * 64, False)):
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, address],
            env={**os.environ, "RAY_AUTH_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ("in: 1" in done.stdout) is welcome, done.stderr[-500:]


@pytest.mark.parametrize(
    ("said", "raised"),
    [("The current node timed out during startup. This could happen", ClusterError), ("another thing", RuntimeError)],
)
def test_a_machine_too_busy_for_ray_is_said(said: str, raised: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(raised, match="too busy" if raised is ClusterError else said), local_ray():
        pass
