"""The node's processes: their command lines and how each shows that it is up."""

import os
from dataclasses import dataclass, replace

from flowagg_cluster.configuration import CONTAINERD_SOCKET
from flowagg_cluster.layout import API_URL, NODE_IP, NODE_NAME, SERVICE_CIDR, Layout
from flowagg_cluster.tools import program

ETCD_URL = "http://127.0.0.1:2379"
"""On the node's own loopback, which nobody else has."""


@dataclass(frozen=True, slots=True)
class Component:
    """A process of the node.

    ready: a URL that must answer before the next one starts: unix:PATH and tcp://ADDRESS:PORT by accepting a
    connection, https:// by status 200. first: a command that must succeed before it is started the first time.
    """

    name: str
    command: tuple[str, ...]
    ready: str | None = None
    first: tuple[str, ...] = ()


def components(layout: Layout) -> tuple[Component, ...]:
    """All of them, in the order of their start. Raises Missing when a program is not built."""
    return (
        Component(
            "containerd",
            ("containerd", "--config", str(layout.configuration / "containerd.toml")),
            f"unix:{CONTAINERD_SOCKET}",
        ),
        _etcd(layout),
        _apiserver(layout),
        _kubernetes("kube-controller-manager", *_controller_manager(layout)),
        _kubernetes("kube-scheduler", *_client(layout, "kube-scheduler"), "--leader-elect=false"),
        _kubelet(layout),
        _kubernetes(
            "kube-proxy",
            f"--config={layout.configuration / 'kube-proxy.json'}",
            f"--hostname-override={NODE_NAME}",
        ),
    )


def environment() -> dict[str, str]:
    """The processes' environment: none of the user's but where programs are."""
    return {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"}


def _etcd(layout: Layout) -> Component:
    command = (
        str(program("etcd")),
        "--name=flowagg",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=flowagg=http://127.0.0.1:2380",
        # The data does not outlive the cluster; a slow disk must not slow the API server.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Component("etcd", command, "tcp://127.0.0.1:2379")


def _apiserver(layout: Layout) -> Component:
    pki = layout.pki
    component = _kubernetes(
        "kube-apiserver",
        f"--etcd-servers={ETCD_URL}",
        f"--advertise-address={NODE_IP}",
        "--secure-port=6443",
        f"--tls-cert-file={pki / 'kube-apiserver.pem'}",
        f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
        f"--client-ca-file={pki / 'ca.pem'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.pem'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.pem'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.pem'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        # Other API servers behind this one; without these flags the others log an error every few seconds.
        f"--requestheader-client-ca-file={pki / 'ca.pem'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.pem'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
    )
    return replace(component, ready=f"{API_URL}/readyz")


def _controller_manager(layout: Layout) -> tuple[str, ...]:
    return (
        *_client(layout, "kube-controller-manager"),
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={layout.pki / 'ca.pem'}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
    )


def _kubelet(layout: Layout) -> Component:
    component = _kubernetes(
        "kubelet",
        f"--config={layout.configuration / 'kubelet.json'}",
        f"--kubeconfig={layout.configuration / 'kubelet.kubeconfig'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
        "--root-dir=/var/lib/kubelet",
    )
    create = ("create", f"--filename={layout.configuration / 'node.json'}")
    return replace(component, first=(str(program("kubectl")), f"--kubeconfig={layout.kubeconfig}", *create))


def _client(layout: Layout, name: str) -> tuple[str, ...]:
    path = layout.configuration / f"{name}.kubeconfig"
    return (
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--bind-address=127.0.0.1",
    )


def _kubernetes(name: str, *flags: str) -> Component:
    return Component(name, (str(program(name)), *flags))
