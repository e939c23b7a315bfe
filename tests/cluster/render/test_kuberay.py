"""Files for KubeRay: their structure; and against the operator's own CRDs where `DIFFII_KUBERAY_CRDS` says they lie.

That is the folder `helm-chart/kuberay-operator/crds` of a checkout of KubeRay.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from cluster.render import render
from engine.run_id import run_id
from engine.settings import from_flat
from tests.cluster.specs import birds


def documents(name: str, **changed: object) -> dict[str, Any]:
    """Kind -> document."""
    found = list(yaml.safe_load_all(render(birds("kuberay", **changed), "kuberay")[name]))
    return {document["kind"]: document for document in found}


def test_a_job_brings_its_settings_and_takes_its_cluster_away() -> None:
    found = documents("rayjob.yaml")
    job, settings = found["RayJob"], found["ConfigMap"]
    name = job["metadata"]["name"]
    assert name == run_id(from_flat({"output.url": "s3://example-bucket/birds-x5"})) == settings["metadata"]["name"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True and job["spec"]["backoffLimit"] > 0
    run = yaml.safe_load(settings["data"]["run.yaml"])
    assert run["output"]["url"] == "s3://example-bucket/birds-x5" and run["actors"]["gpus"] == 1.0
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = [mount for mount in head["containers"][0]["volumeMounts"] if mount["name"] == "settings"]
    (volume,) = [volume for volume in head["volumes"] if volume["name"] == "settings"]
    assert f"--config {mount['mountPath']}/run.yaml --address auto" in job["spec"]["entrypoint"]
    assert volume["configMap"]["name"] == name
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_a_jobs_policy_is_not_the_one_of_the_cluster_that_stays() -> None:
    """`kubectl delete -f rayjob.yaml` would open it."""
    job, stays = (documents(name)["NetworkPolicy"] for name in ("rayjob.yaml", "raycluster.yaml"))
    assert job["metadata"]["name"] != stays["metadata"]["name"]
    assert job["spec"]["podSelector"] != stays["spec"]["podSelector"]


def test_gke_knows_a_card_by_another_name() -> None:
    (worker,) = documents("raycluster.yaml")["RayCluster"]["spec"]["workerGroupSpecs"]
    chosen = worker["template"]["spec"]["nodeSelector"]
    assert chosen["cloud.google.com/gke-accelerator"] == "nvidia-l4"


def test_models_are_kept_on_the_claim_and_the_hubs_token_comes_from_a_secret() -> None:
    kuberay = {**KUBERAY, **KEPT}
    (worker,) = documents("raycluster.yaml", kuberay=kuberay)["RayCluster"]["spec"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    told = {one["name"]: one for one in container["env"]}
    (mount,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert told["HF_HOME"]["value"] == told["DIFFII_CACHE"]["value"] == mount
    assert told["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_the_head_works_on_nothing_and_workers_are_spot_with_shared_memory() -> None:
    cluster = documents("raycluster.yaml", kuberay={**KUBERAY, "on_demand_label": "pool=steady"})["RayCluster"]["spec"]
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    assert head["template"]["spec"]["nodeSelector"] == {"pool": "steady"}
    assert "nvidia.com/gpu" not in str(head)
    assert (worker["minReplicas"], worker["maxReplicas"]) == (1, 8)
    pod = worker["template"]["spec"]
    assert pod["nodeSelector"] == {"spot": "true", "nvidia.com/gpu.product": "L4"}
    assert {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    for template in (head["template"], worker["template"]):
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in template["spec"]["volumes"]
        mounts = template["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in mounts
        assert template["spec"]["serviceAccountName"] == "birds"


KEPT = {"model_claim": "models", "hub_login": "hub"}
KUBERAY = {"role": "birds", "gpus": 2, "spot_label": "spot=true"}


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_only_the_namespace_and_the_operator_reach_it(name: str) -> None:
    found = documents(name)
    policy = found["NetworkPolicy"]["spec"]
    (rule,) = policy["ingress"]
    assert rule["from"][0] == {"podSelector": {}} and len(rule["from"]) == 2
    cluster = found["RayCluster"]["spec"] if "RayCluster" in found else found["RayJob"]["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    labels = [group["template"]["metadata"]["labels"] for group in groups]
    assert all(policy["podSelector"]["matchLabels"].items() <= of.items() for of in labels)


CRDS = os.environ.get("DIFFII_KUBERAY_CRDS", "")


@pytest.mark.skipif(not CRDS, reason="DIFFII_KUBERAY_CRDS names no folder of CRDs")
@pytest.mark.parametrize(("name", "kind"), [("rayjob.yaml", "RayJob"), ("raycluster.yaml", "RayCluster")])
@pytest.mark.parametrize(
    "changed", [{}, {"spot": False}, {"kuberay": {**KUBERAY, "model_claim": "models", "hub_login": "hub"}}], ids=str
)
def test_the_operators_own_schema_takes_it(name: str, kind: str, changed: dict[str, Any]) -> None:
    crd = yaml.safe_load((Path(CRDS) / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8"))
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    document = documents(name, **changed)[kind]
    jsonschema.validate(document, schema)
    document["spec"]["nonsense"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def strict(schema: Any) -> dict[str, Any]:
    """A CRD's schema as JSON Schema: what it does not name is refused, and a quantity may be a number."""
    made = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in ("description", "format")
    }
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in made:
        made["properties"] = {name: strict(inner) for name, inner in made["properties"].items()}
        if made["properties"].get("metadata", {}) == {"type": "object"}:
            made["properties"]["metadata"] = {}
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(made.get("items"), dict):
        made["items"] = strict(made["items"])
    if isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(made["additionalProperties"])
    return made
