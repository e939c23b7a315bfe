"""The specification of a cluster: one small file from which the files of every provider are rendered.

It names machines, places and roles, and never a secret: machines have their rights by the role they run under.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diffii.errors import ConfigError

PROVIDERS = ("aws", "gcp", "azure", "kuberay", "slurm")
Provider = Literal["aws", "gcp", "azure", "kuberay", "slurm"]

Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")]
Count = Annotated[int, Field(ge=1)]
Folder = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]*$")]
P = TypeVar("P", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)


class Prices(_Part):
    """What a machine costs an hour, from your provider's list; nothing is known of it here."""

    head: Annotated[float, Field(ge=0)] = 0.0
    worker: Annotated[float, Field(ge=0)]
    currency: str = "USD"


class Machine(_Part):
    """A kind of machine, where the GPU's name alone does not tell it."""

    type: str
    """The provider's name of it: g6.2xlarge, g2-standard-8, Standard_NC4as_T4_v3."""
    cpus: Count
    memory_gb: Count
    gpus: Annotated[int, Field(ge=0)] = 0


class Aws(_Part):
    region: str
    zones: list[str] = Field(min_length=1)
    """Tried in this order: spot machines are had where there are some."""
    security_group: Annotated[str, Field(pattern=r"^sg-[0-9a-f]+$")]
    """Lets you in by SSH and its own members to each other. Without one Ray makes one that lets everybody in by SSH."""
    subnets: list[Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]] = Field(min_length=1)
    """One in each zone."""
    head_role: Annotated[str, Field(pattern=r"^arn:[a-z-]+:iam::\d+:instance-profile/.+$")]
    """Instance profile that may start and end machines, pass on the worker's role, and use the bucket."""
    worker_role: Annotated[str, Field(pattern=r"^arn:[a-z-]+:iam::\d+:instance-profile/.+$")]
    """Instance profile that may use the bucket, and nothing else."""
    image_id: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")]
    """A machine image of the region with Ubuntu, Docker and NVIDIA's driver. The one that Ray would take has a driver
    that is too old for today's torch."""


class Gcp(_Part):
    project: str
    region: str
    zone: str
    subnet: str
    """`projects/P/regions/R/subnetworks/S`, of a network whose firewall lets you in by SSH. Machines get no public
    address."""
    head_role: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """Service account that may start and end machines and use the bucket."""
    worker_role: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """Service account that may use the bucket, and nothing else."""
    boot_image: str
    """A disk image with Docker and NVIDIA's driver: those of the project
    deeplearning-platform-release have them."""


class Azure(_Part):
    location: str
    resource_group: str
    """Made if there is none, with a network in it. Machines get no public address: be in that network to reach them."""
    role: str
    """Name of a user-assigned managed identity, of head and workers: Ray gives all machines the same."""
    role_resource_group: str
    """The resource group that the identity is in."""
    subscription: str | None = None
    """By default that of the Azure command line."""


class Kuberay(_Part):
    namespace: Name = "default"
    role: Name
    """Service account of the pods, bound to a cloud role that may use the bucket (IRSA, Workload Identity)."""
    worker_cpus: Count = 4
    worker_memory_gb: Count = 24
    gpus: Count = 1
    """GPUs of a worker's pod."""
    model_claim: Name | None = None
    """PersistentVolumeClaim that keeps models; without one every pod downloads them."""
    hub_login: Name | None = None
    """Secret whose key `token` is a token of the model hub, for a model that is not public."""
    gpu_label: str = "nvidia.com/gpu.product"
    """Label of nodes whose value is `gpu` (here such as NVIDIA-L4). GKE: cloud.google.com/gke-accelerator, where L4 and
    its like are known."""
    spot_label: str = "karpenter.sh/capacity-type=spot"
    """Label, and taint if there is one, of spot nodes. GKE: cloud.google.com/gke-spot=true; AKS:
    kubernetes.azure.com/scalesetpriority=spot."""
    on_demand_label: str = ""
    """Label of the nodes for the head, such as karpenter.sh/capacity-type=on-demand; empty: any that is not tainted."""


class Slurm(_Part):
    partition: str
    account: str | None = None
    gpus: Count = 1
    """GPUs of a node."""
    cpus: Count = 8
    memory_gb: Count = 32
    hours: Annotated[int, Field(ge=1, le=24 * 30)] = 24
    """Time limit. The job is put back in the queue when it is preempted, and goes on where it stopped."""
    environment: Folder | None = None
    """Folder of a Python environment with diffii in it, on a disk that all nodes see; without one `image` is run by
    Apptainer."""


class Spec(_Part):
    """A whole cluster."""

    name: Name
    image: str
    """The container image that the rendered Dockerfile is built to: with a tag that is not `latest`, or a digest. For
    Slurm the path of a .sif file."""
    output: str
    """URL of the expanded data set: `output.url` of the run."""
    run: dict[str, Any]
    """The run's other settings, as in `diffii expand --config`; `source.url` at least."""
    gpu: str
    """The workers' GPU: T4, L4, A10G, A100, H100, ... For KubeRay and Slurm as the cluster calls it."""
    min_workers: Annotated[int, Field(ge=0)] = 0
    max_workers: Count = 2
    """Machines, of one or more GPUs."""
    spot: bool = True
    """Workers may be taken away at any time, for a lower price; a run loses what they had in hand and goes on. The head
    is never spot."""
    worker_machine: Machine | None = None
    """Where the name of the GPU does not say which machine."""
    head_machine: Machine | None = None
    """A small one without a GPU; each cloud has a default."""
    disk_gb: Annotated[int, Field(ge=50)] = 200
    shm_gb: Count = 8
    """Shared memory of each container. Ray's object store gets three quarters of it."""
    idle_minutes: Annotated[float, Field(gt=0)] = 10.0
    """A worker that has nothing to do for so long is given back."""
    model_cache: Folder = "/mnt/models"
    """Folder of each machine that keeps downloaded models between containers: a shared disk, or the machine's own. For
    Slurm the user's own cache, unless it is given."""
    prices: Prices | None = None
    aws: Aws | None = None
    gcp: Gcp | None = None
    azure: Azure | None = None
    kuberay: Kuberay | None = None
    slurm: Slurm | None = None

    @field_validator("image")
    @classmethod
    def _image_is_one_image(cls, value: str) -> str:
        last = value.rpartition("/")[2]
        if value.endswith(".sif") or "@sha256:" in last or (":" in last and not last.endswith(":latest")):
            return value
        raise ValueError("is not one image for all machines and all times; add a tag other than latest, or @sha256:...")

    @field_validator("output")
    @classmethod
    def _output_is_reached_from_everywhere(cls, value: str) -> str:
        if "://" in value or value.startswith("/"):
            return value.rstrip("/")
        raise ValueError("is a relative path; give a URL (s3://..., gs://..., abfs://...) or a shared disk's full path")

    @model_validator(mode="after")
    def _max_is_not_below_min(self) -> Spec:
        if self.max_workers < self.min_workers:
            raise ValueError(f"max_workers: {self.max_workers} is below min_workers ({self.min_workers})")
        return self

    def part(self, provider: Provider, kind: type[P]) -> P:
        """What the specification says of a provider. Raises ConfigError when it says nothing."""
        found = getattr(self, provider)
        if found is None:
            wanted = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
            raise ConfigError(f"{provider} is missing: the specification has no such section; it holds {wanted}")
        assert isinstance(found, kind)
        return found
