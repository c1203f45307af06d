"""Addresses, folders and configuration of the cluster for tests."""

import ipaddress
import json
import re
import string
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from flowagg_cluster import cluster, configuration, credentials, layout
from flowagg_cluster.layout import Layout, default_layout, direct
from flowagg_cluster.volumes import PROVISIONER

MANIFESTS = sorted((Path(cluster.__file__).parent / "manifests").glob("*.yaml"))
HERE = Layout(Path("/state"), Path("/images"))


def test_all_addresses_are_in_the_one_network() -> None:
    network = ipaddress.ip_network(layout.NETWORK)
    for name in ("HOST_IP", "NODE_IP", "POD_CIDR", "SERVICE_CIDR", "API_SERVICE_IP", "DNS_IP"):
        assert ipaddress.ip_network(getattr(layout, name)).subnet_of(network), name  # type: ignore[arg-type]


def test_pods_services_and_the_link_do_not_overlap() -> None:
    link = ipaddress.ip_interface(f"{layout.HOST_IP}/{layout.LINK_BITS}").network
    ranges = [link, ipaddress.ip_network(layout.POD_CIDR), ipaddress.ip_network(layout.SERVICE_CIDR)]
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))
    assert ipaddress.ip_address(layout.NODE_IP) in link
    assert ipaddress.ip_address(layout.DNS_IP) in ranges[2]


def test_the_api_servers_own_service_has_the_first_address() -> None:
    first = next(iter(ipaddress.ip_network(layout.SERVICE_CIDR).hosts()))
    assert ipaddress.ip_address(layout.API_SERVICE_IP) == first


def test_folders_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_layout().kubeconfig == Path("/s/flow-aggregator/cluster/kubeconfig")
    assert default_layout().images == Path("/c/flow-aggregator/cluster-images")


def test_the_lock_outlives_the_state() -> None:
    assert HERE.state not in HERE.lock.parents
    assert HERE.lock.parent == HERE.state.parent


def test_two_clusters_never_share_a_cgroup() -> None:
    assert HERE.cgroup != Layout(Path("/other"), HERE.images).cgroup
    assert re.fullmatch(r"[a-z0-9-]+", HERE.cgroup)
    assert json.loads(configuration.kubelet(HERE))["cgroupRoot"] == f"/{HERE.cgroup}"


def test_no_proxy_stands_between_a_machine_and_its_cluster() -> None:
    given = {"HTTPS_PROXY": "x", "http_proxy": "x", "NO_PROXY": "x", "PATH": "/bin"}
    assert direct(given) == {"PATH": "/bin"}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_complete_yaml(manifest: Path) -> None:
    text = string.Template(manifest.read_text(encoding="utf-8")).substitute(configuration.values())
    for found in yaml.safe_load_all(text):
        assert {"apiVersion", "kind", "metadata"} <= found.keys()


def test_the_storage_class_is_the_default_and_waits_for_the_pod() -> None:
    (manifest,) = (path for path in MANIFESTS if path.stem == "storage")
    found = yaml.safe_load(string.Template(manifest.read_text(encoding="utf-8")).substitute(configuration.values()))
    assert found["metadata"]["name"] == "standard"
    assert found["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert found["provisioner"] == PROVISIONER
    assert found["volumeBindingMode"] == "WaitForFirstConsumer"


def test_the_cluster_never_pulls_its_own_images() -> None:
    for manifest in MANIFESTS:
        text = manifest.read_text(encoding="utf-8")
        assert text.count("image: ") == text.count("imagePullPolicy: Never")


def test_the_kubelet_collects_no_image() -> None:
    assert json.loads(configuration.kubelet(HERE))["imageGCHighThresholdPercent"] == 100


def test_a_kubeconfig_says_where_who_and_whom_to_trust() -> None:
    client = credentials.Client("admin", "kubernetes-admin", "system:masters")
    found = json.loads(credentials.kubeconfig(client, "secret", "certificate"))
    assert found["clusters"][0]["cluster"]["server"] == layout.API_URL
    assert found["users"] == [{"name": "admin", "user": {"token": "secret"}}]
    assert found["current-context"] == found["contexts"][0]["name"]


def test_tokens_are_as_the_api_server_reads_them() -> None:
    clients = {credentials.Client("a", "system:a", "g"): "t1", credentials.Client("b", "system:b"): "t2"}
    assert credentials.tokens_file(clients) == 't1,system:a,a,"g"\nt2,system:b,b,""\n'
