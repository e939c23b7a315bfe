"""A file for Ray's cluster launcher (`ray up`): AWS, GCP, Azure.

The head is a small machine that is never spot and does no GPU work; workers come and go. Everything runs in one image,
with the host's network, so that what listens on 127.0.0.1 is reached through `ray dashboard` (SSH) alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.machines import GCP_ACCELERATORS, head_of, worker_of
from cluster.render.image import HOME
from cluster.spec import Aws, Azure, Gcp, Machine, Provider, Spec

TOKEN_FOLDER = ".diffii"
"""Below the home of whoever starts the cluster, a folder per cluster; below that of the container, its copy."""
TOKEN_FILE = "auth_token"
OPEN_FILES = 65536
_HEAD, _WORKER = "head", "worker"


def launcher(spec: Spec, provider: Provider) -> dict[str, Any]:
    """The content of the file. Raises ConfigError."""
    head, worker = head_of(spec, provider), worker_of(spec, provider)
    described: dict[str, Callable[[Spec, Machine, bool], dict[str, Any]]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
    node = described[provider]
    return {
        "cluster_name": spec.name,
        "max_workers": spec.max_workers,
        "idle_timeout_minutes": spec.idle_minutes,
        "provider": _provider(spec, provider),
        "auth": {"ssh_user": "ubuntu"},
        "docker": _docker(spec),
        # The token is made on your machine and goes to the others by SSH; here stands only where it lies.
        "file_mounts": {f"~/{TOKEN_FOLDER}": f"~/{TOKEN_FOLDER}/{spec.name}"},
        "initialization_commands": [
            # The group holds from the next login on; Ray keeps its connection for ten seconds.
            "docker info > /dev/null 2>&1 || { sudo usermod -aG docker $USER || true; sleep 12; }",
            "touch ~/.sudo_as_admin_successful",
            f"sudo install -d -m 1777 {spec.model_cache}",
        ],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "ray stop",
            _start(spec, "--head --port=6379 --dashboard-host=127.0.0.1", head=True),
        ],
        "worker_start_ray_commands": ["ray stop", _start(spec, "--address=$RAY_HEAD_IP:6379")],
        "head_node_type": _HEAD,
        "available_node_types": {
            _HEAD: {
                # No work is sent to the head: it holds the driver, and is not to be lost for an image.
                "resources": {"CPU": 0},
                "min_workers": 0,
                "max_workers": 0,
                "node_config": node(spec, head, True),
            },
            _WORKER: {
                "resources": {"CPU": worker.cpus, "GPU": worker.gpus},
                "min_workers": spec.min_workers,
                "max_workers": spec.max_workers,
                "node_config": node(spec, worker, False),
            },
        },
    }


def _start(spec: Spec, how: str, head: bool = False) -> str:
    options = [
        "--object-manager-port=8076",
        f"--object-store-memory={spec.shm_gb * 10**9 * 3 // 4}",
        "--disable-usage-stats",
    ]
    if head:
        options += ["--num-cpus=0", "--num-gpus=0", "--autoscaling-config=~/ray_bootstrap_config.yaml"]
    return f"ulimit -n {OPEN_FILES}; RAY_AUTH_MODE=token ray start {how} {' '.join(options)}"


def _docker(spec: Spec) -> dict[str, Any]:
    return {
        "image": spec.image,
        "container_name": "diffii",
        "pull_before_run": True,
        "disable_shm_size_detection": True,
        "run_options": [
            f"--shm-size={spec.shm_gb}gb",
            f"--ulimit nofile={OPEN_FILES}:{OPEN_FILES}",
            "-e RAY_AUTH_MODE=token",
            f"-e RAY_AUTH_TOKEN_PATH={HOME}/{TOKEN_FOLDER}/{TOKEN_FILE}",
            f"-e HF_HOME={spec.model_cache}",
            f"-e DIFFII_CACHE={spec.model_cache}",
            f"-v {spec.model_cache}:{spec.model_cache}",
        ],
    }


def _provider(spec: Spec, provider: Provider) -> dict[str, Any]:
    if provider == "aws":
        aws = spec.part("aws", Aws)
        zones = ",".join(aws.zones)
        # Stopped machines would go on to cost their disks.
        return {"type": "aws", "region": aws.region, "availability_zone": zones, "cache_stopped_nodes": False}
    if provider == "gcp":
        gcp = spec.part("gcp", Gcp)
        place = {"region": gcp.region, "availability_zone": gcp.zone, "project_id": gcp.project}
        return {"type": "gcp", **place, "use_internal_ips": True, "cache_stopped_nodes": False}
    azure = spec.part("azure", Azure)
    return {
        "type": "azure",
        "location": azure.location,
        "resource_group": azure.resource_group,
        **({"subscription_id": azure.subscription} if azure.subscription else {}),
        "msi_name": azure.role,
        "msi_resource_group": azure.role_resource_group,
        # Ray's own template lets everybody in by SSH; nobody gets there where no machine has a public address.
        "use_internal_ips": True,
        "use_external_head_ip": False,
        "cache_stopped_nodes": False,
    }


def _aws(spec: Spec, machine: Machine, head: bool) -> dict[str, Any]:
    aws = spec.part("aws", Aws)
    return {
        "InstanceType": machine.type,
        "ImageId": aws.image_id,
        "SubnetIds": aws.subnets,
        "SecurityGroupIds": [aws.security_group],
        "IamInstanceProfile": {"Arn": aws.head_role if head else aws.worker_role},
        # A container is one hop further from the service that gives the role's rights.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": spec.disk_gb, "VolumeType": "gp3", "Encrypted": True}}
        ],
        **({"InstanceMarketOptions": {"MarketType": "spot"}} if spec.spot and not head else {}),
    }


def _gcp(spec: Spec, machine: Machine, head: bool) -> dict[str, Any]:
    gcp = spec.part("gcp", Gcp)
    disk = {"diskSizeGb": spec.disk_gb, "sourceImage": gcp.boot_image}
    node: dict[str, Any] = {
        "machineType": machine.type,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        # Without accessConfigs there is no public address.
        "networkInterfaces": [{"kind": "compute#networkInterface", "subnetwork": gcp.subnet, "aliasIpRanges": []}],
        "serviceAccounts": [
            {
                "email": gcp.head_role if head else gcp.worker_role,
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            }
        ],
    }
    if machine.gpus:
        # A machine with a GPU cannot be moved while it runs.
        spot = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"} if spec.spot else {}
        node["scheduling"] = [{"onHostMaintenance": "TERMINATE", **spot}]
        node["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
        # The other families have theirs built in.
        if machine.type.startswith("n1-"):
            kind = GCP_ACCELERATORS.get(spec.gpu, spec.gpu)
            node["guestAccelerators"] = [{"acceleratorType": kind, "acceleratorCount": machine.gpus}]
    return node


def _azure(spec: Spec, machine: Machine, head: bool) -> dict[str, Any]:
    spot = {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}
    return {
        "azure_arm_parameters": {
            "vmSize": machine.type,
            # As Ray's own defaults have it: with Docker and NVIDIA's driver.
            "imagePublisher": "microsoft-dsvm",
            "imageOffer": "ubuntu-2204",
            "imageSku": "2204-gen2",
            "imageVersion": "latest",
            "osDiskSize": spec.disk_gb,
            **(spot if spec.spot and not head else {}),
        }
    }
