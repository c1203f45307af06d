"""PersistentVolumes as folders of the node: made for the claims of one StorageClass, deleted when the claims are gone.

An external provisioner in the sense of Kubernetes' PersistentVolume controller: a claim that waits for its first pod
names the node that the scheduler has chosen, and is bound to a volume whose claimRef names it.
https://kubernetes.io/docs/concepts/storage/storage-classes/#provisioner
"""

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from flowagg.kubernetes import Api, KubernetesError, Object, path

from flowagg_cluster.layout import NODE_NAME

STORAGE_CLASS: Final = "standard"
PROVISIONER: Final = "flowaggregator.io/node-folder"
FOLDERS: Final = Path("/var/lib/flowagg-volumes")
"""In the node's own /var/lib: they go with the cluster."""
_NODE_OF: Final = "volume.kubernetes.io/selected-node"
_MADE_BY: Final = "pv.kubernetes.io/provisioned-by"
_PASS_SECONDS: Final = 0.5
_VOLUMES: Final = path("v1", "persistentvolumes")
_CLAIMS: Final = path("v1", "persistentvolumeclaims")


def to_make(claims: Iterable[Object], volumes: Iterable[Object]) -> list[Object]:
    """The volumes that waiting claims lack, as objects."""
    present = {volume["metadata"]["name"] for volume in volumes}
    made = [volume_for(claim) for claim in claims if _waits(claim)]
    return [volume for volume in made if volume["metadata"]["name"] not in present]


def to_delete(volumes: Iterable[Object]) -> list[str]:
    """Names of the volumes of ours whose claims are gone and that nobody asked to retain."""
    return [
        volume["metadata"]["name"]
        for volume in volumes
        if volume["metadata"].get("annotations", {}).get(_MADE_BY) == PROVISIONER
        and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        and volume.get("status", {}).get("phase") in {"Released", "Failed"}
    ]


def volume_for(claim: Object) -> Object:
    """A volume for a claim: a folder of the node, of the size that is asked for (which nothing enforces)."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_MADE_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "local": {"path": str(FOLDERS / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _waits(claim: Object) -> bool:
    return (
        claim["spec"].get("storageClassName") == STORAGE_CLASS
        and claim["spec"].get("volumeMode", "Filesystem") == "Filesystem"
        and claim.get("status", {}).get("phase") == "Pending"
        and claim["metadata"].get("annotations", {}).get(_NODE_OF) == NODE_NAME
        and "deletionTimestamp" not in claim["metadata"]
    )


class Provisioner:
    """Does it, inside the node. folders: where the volumes are."""

    def __init__(self, api: Api, say: Callable[[str], None], folders: Path = FOLDERS) -> None:
        self._api = api
        self._say = say
        self._folders = folders

    def run(self) -> None:
        """Pass after pass, for ever; what fails is tried again in the next one."""
        trouble = None
        while True:
            try:
                self.one_pass()
                trouble = None
            except (KubernetesError, OSError) as error:
                if str(error) != trouble:  # the API server is away, mostly: say it once
                    trouble = str(error)
                    self._say(f"volumes: {trouble}")
            time.sleep(_PASS_SECONDS)

    def one_pass(self) -> None:
        """Make what is lacking and delete what is over. Raises KubernetesError or OSError."""
        volumes = self._api.list(_VOLUMES)
        for volume in to_make(self._api.list(_CLAIMS), volumes):
            # Root's, as on most real storage: a pod that is not root needs fsGroup.
            (self._folders / volume["metadata"]["name"]).mkdir(mode=0o755, parents=True, exist_ok=True)
            self._api.create(_VOLUMES, volume)
        for name in to_delete(volumes):
            # The folder first: once the volume is gone, nobody remembers it.
            if (self._folders / name).exists():
                shutil.rmtree(self._folders / name)
            self._api.delete(f"{_VOLUMES}/{name}")
