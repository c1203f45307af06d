"""Who is who in the cluster: certificates of its servers, and a token with a kubeconfig for each client."""

import json
import secrets
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowagg_stack.certificates import Authority

from flowagg_cluster.layout import API_SERVICE_IP, API_URL, CLUSTER_DOMAIN, NODE_IP, NODE_NAME, Layout


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the API server: the name of its kubeconfig, its user and its group."""

    name: str
    user: str
    group: str = ""


ADMINISTRATOR: Final = Client("admin", "kubernetes-admin", "system:masters")
CLIENTS: Final = (
    ADMINISTRATOR,
    Client("kube-controller-manager", "system:kube-controller-manager"),
    Client("kube-scheduler", "system:kube-scheduler"),
    Client("kube-proxy", "system:kube-proxy"),
    Client("kubelet", f"system:node:{NODE_NAME}", "system:nodes"),
)
_API_NAMES: Final = (
    NODE_IP,
    API_SERVICE_IP,
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
)


def issue(layout: Layout) -> None:
    """Make certificates, tokens and kubeconfigs anew."""
    authority = Authority(layout.pki)
    authority.issue("kube-apiserver", _API_NAMES)
    authority.issue("kubelet", (NODE_IP, NODE_NAME))
    for name in ("kubelet-client", "front-proxy-client", "service-account"):
        authority.issue(name)
    ca = (layout.pki / "ca.pem").read_text(encoding="utf-8")
    tokens = {client: secrets.token_urlsafe(24) for client in CLIENTS}
    _write_secret(layout.pki / "tokens.csv", tokens_file(tokens))
    for client, token in tokens.items():
        path = layout.kubeconfig if client is ADMINISTRATOR else layout.configuration / f"{client.name}.kubeconfig"
        _write_secret(path, kubeconfig(client, token, ca))


def tokens_file(tokens: dict[Client, str]) -> str:
    """kube-apiserver's --token-auth-file: token,user,uid,"groups" a line."""
    return "".join(f'{token},{client.user},{client.name},"{client.group}"\n' for client, token in tokens.items())


def kubeconfig(client: Client, token: str, ca: str) -> str:
    """A kubeconfig, in JSON (which is YAML)."""
    name = "flowagg"
    cluster = {"server": API_URL, "certificate-authority-data": _base64(ca)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": client.name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": client.name}}],
        },
        indent=2,
    )


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
