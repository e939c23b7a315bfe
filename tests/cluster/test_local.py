"""The local Ray: nobody without this command's token may use it."""

from __future__ import annotations

import os
import subprocess
import sys

import ray

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
