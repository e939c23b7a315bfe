"""Kubernetes with the KubeRay operator (1.6 or newer): a RayJob that makes its own cluster and takes it away again.

Or a RayCluster that stays, for `diffii cluster submit`. The operator makes the token, keeps it in a Secret of the
cluster's name, and gives it to the pods (`authOptions`).
"""

from __future__ import annotations

from typing import Any

import ray

from cluster.machines import GCP_ACCELERATORS
from cluster.render.image import HOME
from cluster.run_file import RUN_FILE, run_config
from cluster.spec import Kuberay, Spec
from engine.run_id import run_id

RUN_FOLDER = "/etc/diffii"
LABEL = "diffii/cluster"
RESTARTS = 3
"""Clusters that are made anew when one is lost, with its driver. Each goes on where the last stopped."""


def job_of(spec: Spec, run: str) -> list[dict[str, Any]]:
    """The run's settings as a ConfigMap, and the RayJob. Raises ConfigError."""
    kuberay = spec.part("kuberay", Kuberay)
    # Kubernetes refuses a second object of the same name: the cheap half of "one driver for an output".
    name = run_id(run_config(spec, "kuberay"))
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": kuberay.namespace},
        "data": {RUN_FILE: run},
    }
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": kuberay.namespace},
        "spec": {
            "entrypoint": f"python -m cluster.cli expand --config {RUN_FOLDER}/{RUN_FILE} --address auto",
            "submissionMode": "K8sJobMode",
            "backoffLimit": RESTARTS,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 300,
            "rayClusterSpec": _cluster(spec, kuberay, name, settings=name),
        },
    }
    return [settings, _closed(kuberay, name), job]


def cluster_of(spec: Spec) -> list[dict[str, Any]]:
    """The RayCluster. Raises ConfigError."""
    kuberay = spec.part("kuberay", Kuberay)
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": spec.name, "namespace": kuberay.namespace},
        "spec": _cluster(spec, kuberay, spec.name),
    }
    return [_closed(kuberay, spec.name), cluster]


def _closed(kuberay: Kuberay, name: str) -> dict[str, Any]:
    """Only pods of the same namespace and the operator reach the cluster; you do by `kubectl port-forward`.

    A job has one of its own: that of the cluster that stays would go with it.
    """
    operator = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": kuberay.namespace},
        "spec": {
            "podSelector": {"matchLabels": {LABEL: name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}, {"namespaceSelector": {}, "podSelector": operator}]}],
        },
    }


def _cluster(spec: Spec, kuberay: Kuberay, label: str, settings: str = "") -> dict[str, Any]:
    store = str(spec.shm_gb * 10**9 * 3 // 4)
    head_size = spec.head_machine
    head = _pod(
        spec,
        kuberay,
        name="head",
        label=label,
        cpus=head_size.cpus if head_size else 2,
        memory_gb=head_size.memory_gb if head_size else 12,
        settings=settings,
    )
    head["spec"]["containers"][0]["ports"] = [
        {"containerPort": 6379, "name": "gcs-server"},
        {"containerPort": 8265, "name": "dashboard"},
    ]
    head["spec"].update(_on(kuberay.on_demand_label))
    worker = _pod(
        spec,
        kuberay,
        name="worker",
        label=label,
        cpus=kuberay.worker_cpus,
        memory_gb=kuberay.worker_memory_gb,
        gpus=kuberay.gpus,
    )
    # Two minutes are what a spot node has; the chunk in hand is finished or dropped.
    worker["spec"]["terminationGracePeriodSeconds"] = 120
    gpu = GCP_ACCELERATORS.get(spec.gpu, spec.gpu) if kuberay.gpu_label.startswith("cloud.google.com/") else spec.gpu
    worker["spec"].update(_on(kuberay.spot_label if spec.spot else "", {kuberay.gpu_label: gpu}, taints=True))
    return {
        "rayVersion": ray.__version__,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": int(spec.idle_minutes * 60)},
        "headGroupSpec": {
            # Inside the cluster alone: a ClusterIP is no load balancer.
            "serviceType": "ClusterIP",
            "rayStartParams": {
                "num-cpus": "0",
                "num-gpus": "0",
                "object-store-memory": store,
                "disable-usage-stats": "true",
                # No dashboard-host: the operator sets what its own probes need, and `_closed` shuts out the rest.
            },
            "template": head,
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu",
                "replicas": spec.min_workers,
                "minReplicas": spec.min_workers,
                "maxReplicas": spec.max_workers,
                "rayStartParams": {"object-store-memory": store},
                "template": worker,
            }
        ],
    }


def _pod(
    spec: Spec, kuberay: Kuberay, *, name: str, label: str, cpus: int, memory_gb: int, gpus: int = 0, settings: str = ""
) -> dict[str, Any]:
    size: dict[str, Any] = {"cpu": str(cpus), "memory": f"{memory_gb}Gi"}
    if gpus:
        size["nvidia.com/gpu"] = str(gpus)
    claim = {"persistentVolumeClaim": {"claimName": kuberay.model_claim}} if kuberay.model_claim else {"emptyDir": {}}
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{spec.shm_gb}Gi"}},
        {"name": "models", **claim},
    ]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "models", "mountPath": spec.model_cache}]
    if settings:
        volumes.append({"name": "settings", "configMap": {"name": settings}})
        mounts.append({"name": "settings", "mountPath": RUN_FOLDER})
    return {
        "metadata": {"labels": {LABEL: label}},
        "spec": {
            "serviceAccountName": kuberay.role,
            "securityContext": {"fsGroup": 1000},
            "containers": [
                {
                    "name": f"ray-{name}",
                    "image": spec.image,
                    "env": _environment(spec, kuberay),
                    # Limits equal to requests: a pod that lives beside others is not the first to be put out.
                    "resources": {"requests": size, "limits": size},
                    "securityContext": {"allowPrivilegeEscalation": False},
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def _environment(spec: Spec, kuberay: Kuberay) -> list[dict[str, Any]]:
    plain = {"HF_HOME": spec.model_cache, "DIFFII_CACHE": spec.model_cache, "HOME": HOME}
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items()]
    if kuberay.hub_login:
        secret = {"secretKeyRef": {"name": kuberay.hub_login, "key": "token"}}
        found.append({"name": "HF_TOKEN", "valueFrom": secret})
    return found


def _on(label: str, more: dict[str, str] | None = None, taints: bool = False) -> dict[str, Any]:
    """The nodes that a pod goes to: those with these labels; `taints` lets it on tainted ones."""
    key, _, value = label.partition("=")
    chosen = {**({key: value} if key else {}), **(more or {})}
    tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if key:
        tolerated.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    return {**({"nodeSelector": chosen} if chosen else {}), **({"tolerations": tolerated} if taints else {})}
