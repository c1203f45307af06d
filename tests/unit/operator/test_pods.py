"""The pods, Deployments, Services and rights that a spec means."""

from pathlib import Path
from typing import Any

import pytest
from flowagg.settings import Settings
from flowagg_consumer.settings import ConsumerSettings
from flowagg_operator.elections import endpoint_slice, role, slice_names
from flowagg_operator.pods import Platform, digest_of, grace_seconds, pod_template, secrets_read_once
from flowagg_operator.services import pods_service, service
from flowagg_operator.spec import COMPONENTS, SERVERS, Owner, SecretRef, Spec, read_spec
from flowagg_operator.workloads import deployment, disruption_budget, service_account
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.settings import WriterSettings

OWNER = Owner(name="main", namespace="flows", uid="u-1")
PLATFORM = Platform(images={"writer": "w:1", "reader": "r:1", "consumer": "c:1"}, image_pull_policy="IfNotPresent")
LEAST: dict[str, Any] = {"kafka": {"bootstrapServers": "kafka:9092"}, "redis": {"url": "redis://redis:6379"}}
FULL: dict[str, Any] = {
    "kafka": {
        "bootstrapServers": "a:9092,b:9092",
        "topic": {"name": "log", "partitions": 12, "keyedPartitions": 4},
        "configSecretRef": {"name": "kafka-client", "key": "client.properties"},
    },
    "redis": {
        "sentinels": ["s-0:26379", "s-1:26379"],
        "masterName": "m",
        "username": "flows",
        "authSecretRef": {"name": "redis-auth", "key": "password"},
        "sentinelUsername": "look",
        "sentinelAuthSecretRef": {"name": "sentinel-auth", "key": "password"},
        "tls": {
            "enabled": True,
            "sentinel": True,
            "verifyHostname": False,
            "caSecretRef": {"name": "redis-ca", "key": "ca.crt"},
            "clientSecretRef": {"name": "redis-client"},
        },
    },
    "access": {"tokensSecretRef": {"name": "tokens", "key": "tokens.json"}},
    "views": [{"name": "v2", "retention": {"hours": 48}}],
    "reader": {"view": "v2", "mode": "ActiveActive"},
    "election": {"leaseSeconds": 15, "renewSeconds": 2, "attemptSeconds": 1.5},
}
SETTINGS: dict[str, type[Settings]] = {
    "writer": WriterSettings,
    "reader": ReaderSettings,
    "consumer": ConsumerSettings,
}


def template(spec: Spec, component: str, slices: list[str] | None = None, digest: str = "") -> dict[str, Any]:
    return pod_template(OWNER, spec, component, PLATFORM, digest, slices or [])


def variables(spec: Spec, component: str, slices: list[str] | None = None) -> dict[str, str]:
    container = template(spec, component, slices)["spec"]["containers"][0]
    return {one["name"]: one.get("value", f"<{one.get('valueFrom')}>") for one in container["env"]}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("source", [LEAST, FULL], ids=["least", "full"])
@pytest.mark.parametrize("elected", [False, True], ids=["alone", "elected"])
def test_a_service_knows_every_setting_that_it_is_given(
    component: str, source: dict[str, Any], elected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slices = ["main-writer"] if elected and component in SERVERS else []
    known = {f"FLOWAGG_{name.upper()}" for name in SETTINGS[component].model_fields}
    known |= {f"{name}_FILE" for name in known}
    assert set(variables(read_spec(source), component, slices)) - known == set()


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_a_service_is_given_is_valid(component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = {**FULL, "redis": {key: value for key, value in FULL["redis"].items() if key != "tls"}}
    for name, value in variables(read_spec(source), component).items():
        if value.startswith("/etc/flowagg/"):
            file = tmp_path / Path(value).name
            file.write_text("{}" if value.endswith(".json") else "")
            value = str(file)  # noqa: PLW2901 - where it is in a pod
        monkeypatch.setenv(name, value)
    settings = SETTINGS[component].read()
    assert settings.port == 8080


@pytest.mark.parametrize(
    ("component", "name", "value"),
    [
        ("writer", "FLOWAGG_KEYED_PARTITIONS", "4"),
        ("writer", "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:9092"),
        ("writer", "FLOWAGG_KAFKA_TOPIC", "log"),
        ("writer", "FLOWAGG_KAFKA_PROPERTIES_FILE", "/etc/flowagg/kafka/client.properties"),
        ("writer", "FLOWAGG_TOKENS_FILE", "/etc/flowagg/access/tokens.json"),
        ("reader", "FLOWAGG_VIEW", "v2"),
        ("reader", "FLOWAGG_REDIS_SENTINELS", "s-0:26379,s-1:26379"),
        ("reader", "FLOWAGG_REDIS_MASTER_NAME", "m"),
        ("reader", "FLOWAGG_REDIS_PASSWORD_FILE", "/etc/flowagg/redis/password"),
        ("reader", "FLOWAGG_SENTINEL_PASSWORD_FILE", "/etc/flowagg/sentinel/password"),
        ("reader", "FLOWAGG_REDIS_CA_FILE", "/etc/flowagg/redis-ca/ca.crt"),
        ("reader", "FLOWAGG_REDIS_KEY_FILE", "/etc/flowagg/redis-client/tls.key"),
        ("reader", "FLOWAGG_REDIS_TLS_VERIFY_HOSTNAME", "false"),
        ("consumer", "FLOWAGG_RETENTION_HOURS", "48"),
        ("consumer", "FLOWAGG_DEAD_LETTER_TOPIC", "log.dead-letters"),
        ("consumer", "FLOWAGG_VIEW", "v2"),
    ],
)
def test_a_part_of_the_spec_is_a_setting(component: str, name: str, value: str) -> None:
    assert variables(read_spec(FULL), component)[name] == value


def test_the_writer_is_given_nothing_of_redis() -> None:
    assert not [name for name in variables(read_spec(FULL), "writer") if "REDIS" in name or "SENTINEL" in name]


def test_settings_of_the_spec_come_last_so_that_they_win() -> None:
    spec = read_spec({**LEAST, "writer": {"env": [{"name": "FLOWAGG_LINGER_MS", "value": "9"}]}})
    assert template(spec, "writer")["spec"]["containers"][0]["env"][-1] == {"name": "FLOWAGG_LINGER_MS", "value": "9"}


def test_no_variable_is_given_twice() -> None:
    env = [{"name": "FLOWAGG_DRAIN_SECONDS", "value": "1"}]
    spec = read_spec({**LEAST, "reader": {"mode": "ActiveActive", "env": env}})
    names = [one["name"] for one in template(spec, "reader")["spec"]["containers"][0]["env"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("component", COMPONENTS)
def test_pods_pass_restricted_pod_security(component: str) -> None:
    pod = template(read_spec(FULL), component)["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert all(set(volume) == {"name", "secret"} for volume in pod["volumes"])


@pytest.mark.parametrize("component", COMPONENTS)
def test_foreign_services_leave_no_variables_in_pods(component: str) -> None:
    assert template(read_spec(LEAST), component)["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("component", "slices", "mounted"),
    [("writer", ["main-writer"], True), ("writer", [], False), ("consumer", [], False)],
)
def test_a_token_is_mounted_for_the_election_alone(component: str, slices: list[str], mounted: bool) -> None:
    assert template(read_spec(LEAST), component, slices)["spec"]["automountServiceAccountToken"] is mounted
    assert service_account(OWNER, component)["automountServiceAccountToken"] is False


def test_the_election_knows_its_pod_by_the_downward_api() -> None:
    env = {
        one["name"]: one for one in template(read_spec(FULL), "writer", ["main-writer"])["spec"]["containers"][0]["env"]
    }
    assert env["FLOWAGG_ELECTION_LEASE"]["value"] == "main-writer"
    assert env["FLOWAGG_ELECTION_LEASE_SECONDS"]["value"] == "15"
    assert env["FLOWAGG_ELECTION_ATTEMPT_SECONDS"]["value"] == "1.5"
    fields = {name: one["valueFrom"]["fieldRef"]["fieldPath"] for name, one in env.items() if "valueFrom" in one}
    assert fields == {
        "FLOWAGG_ELECTION_NAMESPACE": "metadata.namespace",
        "FLOWAGG_POD_NAME": "metadata.name",
        "FLOWAGG_POD_UID": "metadata.uid",
        "FLOWAGG_POD_IPS": "status.podIPs",
        "FLOWAGG_NODE_NAME": "spec.nodeName",
    }


@pytest.mark.parametrize(
    ("component", "env", "elected", "seconds"),
    [
        ("writer", {}, True, 10 + 2 + 20 + 10),
        ("writer", {"FLOWAGG_ELECTION_HANDOVER_SECONDS": "30"}, True, 30 + 2 + 20 + 10),
        ("writer", {}, False, 5 + 20 + 10),
        ("writer", {"FLOWAGG_DRAIN_SECONDS": "7", "FLOWAGG_SHUTDOWN_SECONDS": "60"}, False, 7 + 60 + 10),
        ("writer", {"FLOWAGG_SHUTDOWN_SECONDS": "soon"}, False, 5 + 20 + 10),
        ("consumer", {}, False, 20 + 10),
        ("consumer", {"FLOWAGG_SHUTDOWN_SECONDS": "120"}, False, 120 + 10),
    ],
)
def test_a_pod_gets_the_time_that_it_needs_to_end(
    component: str, env: dict[str, str], elected: bool, seconds: int
) -> None:
    given = [{"name": name, "value": value} for name, value in env.items()]
    spec = read_spec({**LEAST, component: {"env": given}})
    part = spec.consumer if component == "consumer" else spec.server(component)
    assert grace_seconds(part, elected=elected) == seconds


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_pod_goes_before_a_new_one_is_ready(component: str) -> None:
    made = deployment(OWNER, read_spec(LEAST), component, PLATFORM, "", [])
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert disruption_budget(OWNER, component)["spec"]["maxUnavailable"] == 1


def test_the_deployments_replicas_are_those_of_the_spec() -> None:
    spec = read_spec({**LEAST, "consumer": {"replicas": 4}})
    assert deployment(OWNER, spec, "consumer", PLATFORM, "", [])["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    ("source", "image", "policy"),
    [
        ({}, "w:1", "IfNotPresent"),
        ({"writer": {"image": "mine:2"}, "imagePullPolicy": "Always"}, "mine:2", "Always"),
    ],
)
def test_an_image_of_the_spec_wins_over_the_operators(source: dict[str, Any], image: str, policy: str) -> None:
    container = template(read_spec({**LEAST, **source}), "writer")["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == (image, policy)


def test_pods_are_spread_over_nodes_and_zones_unless_the_spec_says_otherwise() -> None:
    keys = [one["topologyKey"] for one in template(read_spec(LEAST), "reader")["spec"]["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    own = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    spec = read_spec({**LEAST, "reader": {"topologySpreadConstraints": [own]}})
    (constraint,) = template(spec, "reader")["spec"]["topologySpreadConstraints"]
    assert constraint == {"labelSelector": {"matchLabels": OWNER.selector("reader")}, **own}


def test_where_pods_may_run_is_handed_through() -> None:
    placing = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"team": "net"},
        "resources": {"requests": {"cpu": "100m"}},
    }
    made = template(read_spec({**LEAST, "consumer": placing}), "consumer")
    assert made["metadata"]["annotations"] == {"team": "net"}
    assert {key: made["spec"][key] for key in ("nodeSelector", "tolerations", "affinity")} == {
        key: placing[key] for key in ("nodeSelector", "tolerations", "affinity")
    }
    assert made["spec"]["containers"][0]["resources"] == placing["resources"]


def test_another_secret_rolls_the_pods_but_tokens_are_read_again_without() -> None:
    spec = read_spec(FULL)
    assert [ref.name for ref in secrets_read_once(spec, "writer")] == ["kafka-client"]
    assert [ref.name for ref in secrets_read_once(spec, "consumer")] == [
        "kafka-client",
        "redis-auth",
        "sentinel-auth",
        "redis-ca",
        "redis-client",
    ]
    refs = [SecretRef(name="redis-auth", key="password")]
    one, two = {"redis-auth": {"password": b"a", "other": b"x"}}, {"redis-auth": {"password": b"a", "other": b"y"}}
    assert digest_of(one, refs) == digest_of(two, refs)
    assert digest_of(one, refs) != digest_of({"redis-auth": {"password": b"b"}}, refs)
    assert template(spec, "writer", digest="d1") != template(spec, "writer", digest="d2")


def test_a_passive_service_has_no_selector_and_an_active_one_selects_the_components_pods() -> None:
    assert "selector" not in service(OWNER, "writer", selects=False)["spec"]
    assert service(OWNER, "writer", selects=True)["spec"]["selector"] == OWNER.selector("writer")
    assert service(OWNER, "writer", selects=True)["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    ]


def test_metrics_are_reached_through_a_headless_service_of_all_pods() -> None:
    made = pods_service(OWNER, "consumer")
    assert made["metadata"]["name"] == "main-consumer-pods"
    assert (made["spec"]["clusterIP"], made["spec"]["publishNotReadyAddresses"]) == ("None", True)


@pytest.mark.parametrize(
    ("families", "names"),
    [
        (["IPv4"], ["main-writer"]),
        (["IPv6"], ["main-writer"]),
        (["IPv4", "IPv6"], ["main-writer", "main-writer-ipv6"]),
        (["IPv6", "IPv4"], ["main-writer", "main-writer-ipv4"]),
    ],
)
def test_there_is_a_slice_for_each_ip_family(families: list[str], names: list[str]) -> None:
    assert slice_names(OWNER, "writer", families) == names


def test_a_slice_is_applied_without_endpoints_and_goes_with_its_service() -> None:
    made = endpoint_slice(OWNER, "writer", "s-1", "main-writer", "IPv4")
    assert "endpoints" not in made
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Service", "name": "main-writer", "uid": "s-1"}
    ]
    assert made["metadata"]["labels"]["kubernetes.io/service-name"] == "main-writer"
    assert made["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "flow-aggregator"


def test_pods_may_touch_their_own_lease_and_slices_alone() -> None:
    rules = role(OWNER, "writer", ["main-writer"])["rules"]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in rules] == [
        (["leases"], ["main-writer"], ["get", "watch", "update"]),
        (["endpointslices"], ["main-writer"], ["get", "watch", "update"]),
    ]


def test_everything_goes_with_the_flow_aggregator_without_a_finalizer() -> None:
    reference = deployment(OWNER, read_spec(LEAST), "writer", PLATFORM, "", [])["metadata"]["ownerReferences"]
    assert reference == [
        {
            "apiVersion": "flowaggregator.io/v1alpha1",
            "kind": "FlowAggregator",
            "name": "main",
            "uid": "u-1",
            "controller": True,
        }
    ]
