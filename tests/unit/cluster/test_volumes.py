"""Volumes of the cluster for tests: made for claims that wait, deleted when their claims are gone."""

from pathlib import Path
from typing import Any

import pytest
from flowagg.kubernetes import Api
from flowagg_cluster import volumes
from flowagg_cluster.layout import NODE_NAME
from flowagg_cluster.volumes import FOLDERS, PROVISIONER, STORAGE_CLASS, Provisioner, to_delete, to_make, volume_for


def claim(name: str = "data-kafka-0", **changes: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "main",
        "uid": f"uid-{name}",
        "annotations": {"volume.kubernetes.io/selected-node": NODE_NAME},
    }
    spec = {
        "storageClassName": STORAGE_CLASS,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "4Gi"}},
    }
    found = {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}
    for key, value in changes.items():
        found[key] = found[key] | value
    return found


def volume(phase: str, **changes: Any) -> dict[str, Any]:
    found = volume_for(claim()) | {"status": {"phase": phase}}
    for key, value in changes.items():
        found[key] = found[key] | value
    return found


def test_a_claim_that_waits_for_this_node_gets_a_volume_of_its_own() -> None:
    (made,) = to_make([claim()], [])
    assert made["metadata"]["name"] == "pvc-uid-data-kafka-0"
    assert made["spec"]["claimRef"]["uid"] == "uid-data-kafka-0"
    assert made["spec"]["claimRef"]["namespace"] == "main"
    assert made["spec"]["capacity"] == {"storage": "4Gi"}
    assert made["spec"]["local"]["path"] == str(FOLDERS / "pvc-uid-data-kafka-0")


def test_two_claims_of_one_name_never_share_a_volume() -> None:
    again = claim(metadata=claim()["metadata"] | {"uid": "another"})
    assert volume_for(claim())["metadata"]["name"] != volume_for(again)["metadata"]["name"]


def test_a_claim_that_has_its_volume_gets_no_second_one() -> None:
    assert to_make([claim()], [volume("Available")]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"storageClassName": "fast"}},
        {"spec": {"volumeMode": "Block"}},
        {"status": {"phase": "Bound"}},
        {"metadata": {"annotations": {}}},
        {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "another"}}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_other_claims_are_left_alone(changes: dict[str, Any]) -> None:
    assert to_make([claim(**changes)], []) == []


@pytest.mark.parametrize("phase", ["Released", "Failed"])
def test_a_volume_whose_claim_is_gone_is_deleted(phase: str) -> None:
    assert to_delete([volume(phase)]) == ["pvc-uid-data-kafka-0"]


@pytest.mark.parametrize(
    "kept",
    [
        volume("Bound"),
        volume("Available"),
        volume("Released", spec={"persistentVolumeReclaimPolicy": "Retain"}),
        volume("Released", metadata={"annotations": {"pv.kubernetes.io/provisioned-by": "another"}}),
        volume("Released", metadata={"annotations": {}}),
    ],
)
def test_other_volumes_are_kept(kept: dict[str, Any]) -> None:
    assert to_delete([kept]) == []


def test_what_was_made_is_recognised_as_ours() -> None:
    assert volume_for(claim())["metadata"]["annotations"] == {"pv.kubernetes.io/provisioned-by": PROVISIONER}


class Cluster(Api):
    """The collections of an API server, in memory."""

    def __init__(self, **collections: list[dict[str, Any]]) -> None:
        self.collections = collections

    def list(self, where: str, query: Any = None, *, timeout_seconds: float | None = None) -> list[dict[str, Any]]:
        return list(self.collections[where.rpartition("/")[2]])

    def create(self, where: str, body: dict[str, Any], *, timeout_seconds: float | None = None) -> dict[str, Any]:
        self.collections[where.rpartition("/")[2]].append(body)
        return body

    def delete(
        self, where: str, query: Any = None, *, body: Any = None, timeout_seconds: float | None = None
    ) -> dict[str, Any]:
        found = self.collections[where.split("/")[-2]]
        found[:] = [one for one in found if one["metadata"]["name"] != where.rpartition("/")[2]]
        return {}


def test_a_folder_comes_before_its_volume_and_goes_with_it(tmp_path: Path) -> None:
    cluster = Cluster(persistentvolumes=[], persistentvolumeclaims=[claim()])
    provisioner = Provisioner(cluster, print, tmp_path)
    provisioner.one_pass()
    (made,) = cluster.collections["persistentvolumes"]
    folder = tmp_path / made["metadata"]["name"]
    assert folder.is_dir()
    (folder / "log").write_text("data", encoding="utf-8")
    provisioner.one_pass()
    assert (folder / "log").exists()
    cluster.collections["persistentvolumeclaims"].clear()
    made["status"] = {"phase": "Released"}
    provisioner.one_pass()
    assert cluster.collections["persistentvolumes"] == []
    assert not folder.exists()


def test_the_storage_class_is_served_by_this_provisioner() -> None:
    manifest = (Path(volumes.__file__).parent / "manifests" / "storage.yaml").read_text(encoding="utf-8")
    assert "name: $storage_class" in manifest
    assert "provisioner: $provisioner" in manifest
    assert "volumeBindingMode: WaitForFirstConsumer" in manifest
