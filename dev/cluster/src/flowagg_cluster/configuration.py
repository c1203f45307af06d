"""What the components read at their start, as text. No I/O but in write."""

import json
from collections.abc import Sequence
from typing import Any, Final

from flowagg_cluster.layout import CLUSTER_DOMAIN, DNS_IP, NODE_IP, NODE_NAME, POD_CIDR, Layout
from flowagg_cluster.packages import CNI_PLUGINS
from flowagg_cluster.tools import COREDNS, PAUSE, TRAEFIK
from flowagg_cluster.volumes import PROVISIONER, STORAGE_CLASS

CRI_PLUGIN: Final = "io.containerd.grpc.v1.cri"
_UNUSED_PLUGINS: Final = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
)
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"

KERNEL_SETTINGS: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Settings of /proc/sys that the kubelet insists on, and that are the whole machine's. In the node's view plain files
with these values stand in their place, so that the machine's own stay as they are."""


def containerd(pause_image: str, disabled: Sequence[str] = ()) -> str:
    """containerd's configuration (version 2, of containerd 1.6 and 1.7). disabled: names of further plugins."""
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = {json.dumps([*_UNUSED_PLUGINS, *disabled])}

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  # Lowering a process's oom_score_adj is refused in some sandboxes.
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "/run/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni() -> str:
    """The pods' network: each has a link of its own, and the node routes; no bridge, so none of its traps."""
    network = {
        "cniVersion": "1.0.0",
        "name": "flowagg",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    return _json(network)


def kubelet(layout: Layout) -> str:
    """KubeletConfiguration. https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_IP,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(layout.pki / "ca.pem")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(layout.pki / "kubelet.pem"),
            "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [DNS_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(layout.configuration / "resolv.conf"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{layout.cgroup}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            # Images are brought in by hand: none may be collected, and a disk that others fill evicts no pod.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "registerWithTaints": [],
        }
    )


def node() -> str:
    """The Node object, made before the kubelet starts: it looks for it at once, and the next time seconds later."""
    return _json({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME}})


def kube_proxy(layout: Layout) -> str:
    """KubeProxyConfiguration: nftables; the machine's conntrack settings are left alone."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": NODE_IP,
            "clientConnection": {"kubeconfig": str(layout.configuration / "kube-proxy.kubeconfig")},
            "clusterCIDR": POD_CIDR,
            "mode": "nftables",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
    )


def values() -> dict[str, str]:
    """What the manifests' $names stand for."""
    return {
        "dns_ip": DNS_IP,
        "node_ip": NODE_IP,
        "domain": CLUSTER_DOMAIN,
        "coredns_image": COREDNS.image,
        "traefik_image": TRAEFIK.image,
        "storage_class": STORAGE_CLASS,
        "provisioner": PROVISIONER,
    }


def write(layout: Layout) -> None:
    """Write all of them."""
    texts = {
        "containerd.toml": containerd(PAUSE.image),
        "containerd-without-cri.toml": containerd(PAUSE.image, (CRI_PLUGIN,)),
        "node.json": node(),
        "cni.conflist": cni(),
        "kubelet.json": kubelet(layout),
        "kube-proxy.json": kube_proxy(layout),
        "resolv.conf": "",
    }
    for name, text in texts.items():
        (layout.configuration / name).write_text(text, encoding="utf-8")
    for name, value in KERNEL_SETTINGS.items():
        (layout.configuration / name.replace("/", ".")).write_text(f"{value}\n", encoding="utf-8")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2)
