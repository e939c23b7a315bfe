"""Files for `ray up`, checked by Ray's own validation: the head works on nothing, workers are spot."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.render import render
from cluster.spec import Provider
from diffii.errors import ConfigError
from tests.cluster.specs import birds


def tree_of(provider: Provider, **changed: object) -> dict[str, Any]:
    tree = yaml.safe_load(render(birds(provider, **changed), provider)["cluster.yaml"])
    validate_config(prepare_config(tree))
    return tree


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_ray_takes_it(provider: Provider) -> None:
    tree = tree_of(provider)
    head, worker = tree["available_node_types"]["head"], tree["available_node_types"]["worker"]
    assert tree["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0} and (head["min_workers"], head["max_workers"]) == (0, 0)
    assert "--num-cpus=0" in tree["head_start_ray_commands"][-1]
    assert worker["resources"]["GPU"] == 1 and worker["resources"]["CPU"] >= 1
    assert (worker["min_workers"], worker["max_workers"], tree["max_workers"]) == (1, 8, 8)
    assert "--shm-size=8gb" in tree["docker"]["run_options"]
    # Both kinds of models that are downloaded outlive the container.
    for name in ("HF_HOME", "DIFFII_CACHE"):
        assert f"-e {name}=/mnt/models" in tree["docker"]["run_options"]
    assert "-v /mnt/models:/mnt/models" in tree["docker"]["run_options"]
    # Ray's defaults would install another Ray over the image's.
    assert tree["setup_commands"] == tree["head_setup_commands"] == tree["worker_setup_commands"] == []


def test_ray_would_refuse_a_field_that_it_does_not_know() -> None:
    tree = tree_of("aws")
    tree["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(tree))


@pytest.mark.parametrize("spot", [True, False])
@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_only_workers_are_spot_and_only_when_asked(provider: Provider, spot: bool) -> None:
    kinds = tree_of(provider, spot=spot)["available_node_types"]
    marks = {"aws": "MarketType': 'spot'", "gcp": "'SPOT'", "azure": "'Spot'"}
    assert marks[provider] not in str(kinds["head"])
    assert (marks[provider] in str(kinds["worker"])) is spot


def test_gpus_of_a_machine_are_counted() -> None:
    spec = birds("aws", gpu="A100")
    assert yaml.safe_load(render(spec, "aws")["run.yaml"])["actors"] == {"gpus": 1.0, "max": 64, "min": 8}
    assert tree_of("aws", gpu="A100")["available_node_types"]["worker"]["resources"] == {"CPU": 96, "GPU": 8}


def test_an_old_family_of_gcp_has_its_gpus_put_in() -> None:
    node = tree_of("gcp", gpu="T4")["available_node_types"]["worker"]["node_config"]
    assert node["guestAccelerators"] == [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}]
    assert "guestAccelerators" not in tree_of("gcp")["available_node_types"]["worker"]["node_config"]


def test_an_unknown_gpu_needs_a_machine() -> None:
    with pytest.raises(ConfigError, match=r"gpu=RTX: of aws the machines with T4, .* are known; .*worker_machine"):
        render(birds("aws", gpu="RTX"), "aws")
    machine = {"type": "x.large", "cpus": 4, "memory_gb": 16}
    with pytest.raises(ConfigError, match=r"worker_machine\.gpus is missing"):
        render(birds("aws", gpu="RTX", worker_machine=machine), "aws")
    kinds = tree_of("aws", gpu="RTX", worker_machine={**machine, "gpus": 2})["available_node_types"]
    assert kinds["worker"]["node_config"]["InstanceType"] == "x.large"
    assert kinds["worker"]["resources"] == {"CPU": 4, "GPU": 2}


def test_aws_wants_an_image_with_a_driver() -> None:
    assert tree_of("aws")["available_node_types"]["worker"]["node_config"]["ImageId"] == "ami-0a1b2c3d4e5f60718"


def test_a_provider_that_is_not_described_is_said() -> None:
    with pytest.raises(ConfigError, match=r"gcp is missing: .* it holds project, region, zone, subnet, head_role"):
        render(birds("gcp", gcp=None), "gcp")
