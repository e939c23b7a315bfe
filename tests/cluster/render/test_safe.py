"""Every rendered file, read for what would let a stranger in or a secret out."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import yaml

from cluster.render import render
from cluster.spec import Provider
from tests.cluster.specs import birds

PROVIDERS: tuple[Provider, ...] = get_args(Provider)
STARTS_RAY = {"cluster.yaml", "job.sbatch", "rayjob.yaml", "raycluster.yaml"}
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|\bhf_\w{20}|RAY_AUTH_TOKEN=|[?&]sig=|://[^/\s]+:[^/\s]+@"
    r"|(?i:(secret|password|access_key|account_key)\w*\s*[:=])"
)


def files() -> list[tuple[Provider, str, str]]:
    return [
        (provider, name, text) for provider in PROVIDERS for name, text in render(birds(provider), provider).items()
    ]


@pytest.mark.parametrize(("provider", "name", "text"), files(), ids=lambda value: str(value)[:14])
def test_no_file_lets_anybody_in(provider: Provider, name: str, text: str) -> None:
    assert not SECRETS.search(text)
    # Neither a dashboard nor a rule of a firewall is for all the world.
    for opened in (
        "0.0.0.0",
        "::/0",
        "LoadBalancer",
        "NodePort",
        "Ingress\n",
        "hostNetwork",
        "hostPort",
        "privileged: true",
    ):
        if opened == "Ingress\n":
            assert "kind: Ingress\n" not in text
        else:
            assert opened not in text
    if name in STARTS_RAY:
        assert "RAY_AUTH_MODE=token" in text or text.count("authOptions:\n") == text.count("mode: token\n") == 1
        assert "RAY_AUTH_MODE=disabled" not in text


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_the_launcher_tells_ray_nothing_that_it_would_open(provider: Provider) -> None:
    tree = yaml.safe_load(render(birds(provider), provider)["cluster.yaml"])
    for command in tree["head_start_ray_commands"] + tree["worker_start_ray_commands"]:
        assert command == "ray stop" or "RAY_AUTH_MODE=token ray start" in command
    (start,) = [command for command in tree["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start
    assert "-e RAY_AUTH_MODE=token" in tree["docker"]["run_options"]
    (where,) = [option for option in tree["docker"]["run_options"] if "RAY_AUTH_TOKEN_PATH" in option]
    ((there, here),) = tree["file_mounts"].items()
    assert where.endswith(f"{there.removeprefix('~')}/auth_token") and here == "~/.diffii/birds"
    nodes = [kind["node_config"] for kind in tree["available_node_types"].values()]
    if provider == "aws":
        # Without a group and a profile of its own Ray makes a group open to the world, and a role that may do anything.
        assert all(node["SecurityGroupIds"] == ["sg-0a1b2c3d"] for node in nodes)
        assert len({node["IamInstanceProfile"]["Arn"] for node in nodes}) == 2
    elif provider == "gcp":
        assert tree["provider"]["use_internal_ips"] is True
        assert all("accessConfigs" not in interface for node in nodes for interface in node["networkInterfaces"])
        assert len({node["serviceAccounts"][0]["email"] for node in nodes}) == 2
    else:
        assert tree["provider"]["use_internal_ips"] is True and not tree["provider"]["use_external_head_ip"]
        assert tree["provider"]["msi_name"] == "birds-role"
