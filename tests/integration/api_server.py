"""A real Kubernetes API server: etcd and kube-apiserver as plain processes; no node, no controllers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from flowagg.kubernetes import Api, KubernetesError, path
from flowagg_cluster.tools import ETCD, KUBERNETES, program
from flowagg_stack.certificates import Authority
from flowagg_stack.ports import answers, free_ports
from flowagg_stack.processes import Child, Processes, wait_until

NEEDS_API_SERVER = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not (ETCD.is_built and KUBERNETES.is_built), reason="needs etcd and kube-apiserver: make e2e-build"
    ),
]
_ADMINISTRATOR = "admin"


@dataclass(frozen=True)
class ApiServer:
    """A real API server. administrator: may do all; directory: where its CA is, as ca.crt."""

    child: Child
    port: int
    administrator: Api
    directory: Path


@contextmanager
def running(directory: Path, *users: str) -> Iterator[ApiServer]:
    """Start one, and end it. users: further lines of its file of tokens."""
    authority = Authority(directory)
    server, account = authority.issue("kube-apiserver"), authority.issue("service-account")
    tokens = [f'{_ADMINISTRATOR},admin,admin,"system:masters"', *users]
    (directory / "tokens.csv").write_text("".join(f"{line}\n" for line in tokens), encoding="utf-8")
    (directory / "ca.crt").write_bytes(server.ca.read_bytes())
    clients, peers, port = free_ports(3)
    etcd = (
        *(str(program("etcd")), f"--data-dir={directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=error"),
        *(f"--listen-client-urls=http://127.0.0.1:{clients}", f"--advertise-client-urls=http://127.0.0.1:{clients}"),
        *(f"--listen-peer-urls=http://127.0.0.1:{peers}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
    )
    kubernetes = (
        *(str(program("kube-apiserver")), f"--etcd-servers=http://127.0.0.1:{clients}", f"--secure-port={port}"),
        *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"),
        *(f"--tls-cert-file={server.certificate}", f"--tls-private-key-file={server.key}"),
        *(f"--token-auth-file={directory / 'tokens.csv'}", "--authorization-mode=RBAC"),
        *("--service-account-issuer=https://kubernetes", f"--service-account-key-file={account.certificate}"),
        *(f"--service-account-signing-key-file={account.key}", "--service-cluster-ip-range=10.96.0.0/16"),
    )
    with Processes(directory, stop_seconds=3) as processes:
        child = processes.start("etcd", etcd)
        wait_until(lambda: answers(clients), "etcd answers", 20, [child])
        child = processes.start("kube-apiserver", kubernetes)
        api = Api(f"https://127.0.0.1:{port}", token=_ADMINISTRATOR, ca_file=directory / "ca.crt", timeout_seconds=5)

        def is_ready() -> bool:
            try:
                api.get(path("rbac.authorization.k8s.io/v1", "clusterroles", name="cluster-admin"))
            except KubernetesError:
                return False
            return True

        wait_until(is_ready, "the API server answers", 60, [child], pause=0.2)
        yield ApiServer(child, port, api, directory)
