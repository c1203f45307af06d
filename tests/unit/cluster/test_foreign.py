"""A cluster of the user's own, named by KUBECONFIG: used where it answers, never changed."""

from pathlib import Path
from typing import Any

import pytest
from flowagg_cluster import __main__ as command
from flowagg_cluster import foreign
from flowagg_cluster.foreign import ForeignCluster, describe
from flowagg_cluster.layout import Layout, default_layout
from flowagg_stack.provision import Missing

VIEW = {"current-context": "kind-kind", "clusters": [{"cluster": {"server": "https://127.0.0.1:6443"}}]}
VERSION = {"serverVersion": {"gitVersion": "v1.34.0"}}


def a_class(kind: str, name: str, **annotations: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "annotations": annotations}}


def test_kubeconfig_of_our_own_cluster_is_not_foreign(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", tmp_path / "images")
    assert foreign.named(layout, {}) is None
    assert foreign.named(layout, {"KUBECONFIG": ""}) is None
    assert foreign.named(layout, {"KUBECONFIG": str(layout.kubeconfig)}) is None
    assert foreign.named(layout, {"KUBECONFIG": "/home/me/.kube/config"}) == "/home/me/.kube/config"


def test_what_is_used_is_said() -> None:
    classes = [
        a_class("StorageClass", "slow"),
        a_class("StorageClass", "standard", **{"storageclass.kubernetes.io/is-default-class": "true"}),
        a_class("IngressClass", "nginx"),
    ]
    assert describe("/k", VIEW, VERSION, classes) == [
        "KUBECONFIG names a cluster of yours (/k): using that, starting none.",
        "Context kind-kind, https://127.0.0.1:6443, Kubernetes v1.34.0.",
        "Default StorageClass: standard.",
        "Ingress classes: nginx.",
    ]


def test_what_is_lacking_is_said() -> None:
    lines = describe("/k", VIEW, VERSION, [a_class("StorageClass", "slow")])
    assert any("no default StorageClass" in line for line in lines)
    assert any("no IngressClass" in line for line in lines)


@pytest.mark.parametrize("words", [["image"], ["image", "writer"], ["standins"]])
def test_images_get_to_a_foreign_cluster_in_its_own_way(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    with pytest.raises(SystemExit, match="0"):
        command.main(words)
    assert "kind load docker-image flow-aggregator/writer:dev" in capsys.readouterr().err


def test_down_leaves_a_foreign_cluster_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    with pytest.raises(SystemExit, match="0"):
        command.main(["down"])
    assert "left alone" in capsys.readouterr().err


def test_env_keeps_a_foreign_kubeconfig(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    with pytest.raises(SystemExit, match="0"):
        command.main(["env"])
    assert 'export KUBECONFIG="/home/me/.kube/config" PATH="' in capsys.readouterr().out
    monkeypatch.delenv("KUBECONFIG")
    with pytest.raises(SystemExit, match="0"):
        command.main(["env"])
    assert f'KUBECONFIG="{default_layout().kubeconfig}"' in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho no route to host >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ForeignCluster, match=r"(?s)no route to host.*unset KUBECONFIG"):
        foreign.look_at("/k", print)


def test_without_kubectl_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Missing, match="kubectl is needed"):
        foreign.look_at("/k", print)
