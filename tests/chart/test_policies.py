"""Rules that every object of the chart keeps, whatever the values are."""

import base64
import re
from typing import Any

import pytest

from tests.chart.charts import CHART, Pod, objects, one, pods, render, run, template, value_files

PODS = [(name, pod) for name in value_files() for pod in pods(render(name))]


def each_pod(function: Any) -> Any:
    return pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=[f"{name}-{pod.owner}" for name, pod in PODS])(
        function
    )


def test_there_are_pods_to_look_at() -> None:
    assert {pod.owner for pod in pods(render("default"))} == {
        "Deployment/flow-aggregator-gateway", "Deployment/flow-aggregator-operator", "Job/flow-aggregator-crd-upgrade",
        "Pod/flow-aggregator-test", "StatefulSet/flow-aggregator-kafka", "StatefulSet/flow-aggregator-redis",
    }  # fmt: skip


@each_pod
def test_a_pod_meets_the_restricted_pod_security_standard(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert context["runAsUser"] > 0
    for container in pod.containers:
        own = container["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
        assert not own.get("privileged")
        assert [port for port in container.get("ports", []) if "hostPort" in port] == []
    assert not any(pod.spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    kinds = {kind for volume in pod.spec["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}


@each_pod
def test_a_pod_writes_to_its_volumes_alone_and_each_is_bounded(pod: Pod) -> None:
    assert [c["name"] for c in pod.containers if not c["securityContext"]["readOnlyRootFilesystem"]] == []
    assert [v["name"] for v in pod.spec["volumes"] if "emptyDir" in v and "sizeLimit" not in v["emptyDir"]] == []


@each_pod
def test_a_pod_has_no_variables_of_foreign_services(pod: Pod) -> None:
    assert pod.spec["enableServiceLinks"] is False


@each_pod
def test_a_pod_speaks_with_the_api_server_only_where_it_has_to(pod: Pod) -> None:
    needs = pod.owner.startswith(("Deployment/", "Job/")) and pod.owner.endswith(("operator", "crd-upgrade"))
    assert pod.spec["automountServiceAccountToken"] is needs
    assert ("serviceAccountName" in pod.spec) is needs


@each_pod
def test_a_container_says_what_it_needs_and_what_it_may_use(pod: Pod) -> None:
    for container in pod.containers:
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


@each_pod
def test_an_image_is_pinned(pod: Pod) -> None:
    for container in pod.containers:
        assert re.fullmatch(r".+(:(?!latest$)[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})", container["image"])


@each_pod
def test_a_container_that_stays_has_probes(pod: Pod) -> None:
    if pod.owner.startswith(("Job/", "CronJob/", "Pod/")):
        return
    for container in pod.spec["containers"]:
        assert {"readinessProbe", "livenessProbe"} <= container.keys()
        names = {port["name"] for port in container["ports"]}
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            ports = [probe[kind]["port"] for kind in ("httpGet", "tcpSocket") if kind in probe]
            assert set(ports) <= names
            assert probe.get("timeoutSeconds", 1) <= probe["periodSeconds"]


@each_pod
def test_a_pod_has_the_place_that_the_values_say(pod: Pod) -> None:
    (constraint,) = pod.spec["topologySpreadConstraints"]
    if "labelSelector" in constraint:
        assert constraint["labelSelector"]["matchLabels"].items() <= pod.labels.items()


def test_the_production_values_reach_their_pods() -> None:
    found = {pod.owner.rpartition("-")[2]: pod.spec for pod in pods(render("production"))}
    assert {spec["imagePullSecrets"][0]["name"] for spec in found.values()} == {"my-registry"}
    assert found["kafka"]["priorityClassName"] == "stateful"
    assert found["kafka"]["tolerations"] == [{"key": "stateful", "operator": "Exists", "effect": "NoSchedule"}]
    assert found["redis"]["affinity"] == {"nodeAffinity": {}}
    writer = one(render("production"), "FlowAggregator", "flow-aggregator")["spec"]["writer"]
    assert writer["nodeSelector"] == {"pool": "services"}


@pytest.mark.parametrize("name", value_files())
def test_no_secret_is_written_down(name: str) -> None:
    for found in objects(render(name)):
        if found["kind"] == "Secret":
            assert list(found["data"].values()) == ["MADE-UP"]
    for pod in pods(render(name)):
        for container in pod.containers:
            for variable in container.get("env", []):
                named = re.search(r"(PASSWORD|TOKEN|SECRET)(?!\w*_FILE$)", variable["name"])
                assert not named or "valueFrom" in variable


def test_a_password_is_made_up_anew_for_each_release() -> None:
    texts = [run("helm", "template", "x", str(CHART), "--show-only", "templates/redis.yaml") for _ in range(2)]
    first, second = (
        base64.b64decode(one(text, "Secret", "x-flow-aggregator-redis-auth")["data"]["password"]) for text in texts
    )
    assert first != second
    assert len(first) == len(second) == 32


@pytest.mark.parametrize("name", value_files())
def test_roles_bind_all_but_list_watch_and_create_to_names(name: str) -> None:
    generated = {"pods", "events", "endpointslices", "flowaggregators", "flowaggregators/status"}
    generated |= {"deployments", "poddisruptionbudgets", "jobs"}  # of views, which the FlowAggregator names
    for role in objects(render(name)):
        if role["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in role["rules"]:
            changes = "flowaggregators" in rule["resources"] and set(rule["verbs"]) - {"get", "list", "watch"}
            assert not changes or rule.get("resourceNames"), rule
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            if "resourceNames" not in rule and not set(rule["resources"]) <= generated:
                assert set(rule["verbs"]) <= {"list", "watch", "create"}, rule
            assert "secrets" not in rule["resources"] or (rule["verbs"] == ["get"] and rule["resourceNames"])


def test_the_operator_may_scale_its_own_flow_aggregator_and_see_who_else_scales() -> None:
    rules = one(render("external"), "Role", "flows-operator")["rules"]

    def allowed(resource: str) -> list[tuple[list[str], list[str]]]:
        return [(rule.get("resourceNames", []), rule["verbs"]) for rule in rules if resource in rule["resources"]]

    assert allowed("flowaggregators") == [([], ["get", "list", "watch"]), (["flows"], ["patch"])]
    assert allowed("flowaggregators/scale") == [(["flows"], ["get", "patch"])]
    assert allowed("horizontalpodautoscalers") == [([], ["list"])]


def test_the_operator_may_read_the_secrets_that_the_flow_aggregator_names_and_no_others() -> None:
    def allowed(name: str, operator: str) -> list[str]:
        rules = one(render(name), "Role", operator)["rules"]
        return [secret for rule in rules if rule["resources"] == ["secrets"] for secret in rule["resourceNames"]]

    assert allowed("default", "flow-aggregator-operator") == ["flow-aggregator-redis-auth"]
    assert allowed("production", "flow-aggregator-operator") == ["flow-tokens", "redis-password"]
    named = ["kafka-client", "redis-auth", "redis-ca", "redis-client", "sentinel-auth"]
    assert allowed("external", "flows-operator") == named


@pytest.mark.parametrize("name", value_files())
def test_each_pod_that_stays_takes_connections_only_from_those_that_need_it(name: str) -> None:
    policies = [found["spec"] for found in objects(render(name)) if found["kind"] == "NetworkPolicy"]
    assert all(policy["policyTypes"] == ["Ingress"] for policy in policies)
    selected = [policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for policy in policies]
    expected = {"writer", "reader", "consumer", "view-consumer", "view-job", "operator", "gateway"}
    if name != "external":
        expected |= {"kafka", "redis"}
    if name != "default":
        expected |= {"backup"}
    assert sorted(selected) == sorted(expected)
    ports = {str(p["port"]) for policy in policies for rule in policy.get("ingress", []) for p in rule["ports"]}
    assert ports <= {"http", "client", "controller", "redis", "sentinel"}
    for policy, component in zip(policies, selected, strict=True):
        if component != "gateway":
            assert all("from" in rule for rule in policy.get("ingress", []))


def test_the_consumers_are_left_to_those_who_scale_them() -> None:
    consumer = one(render("default"), "FlowAggregator", "flow-aggregator")["spec"]["consumer"]
    assert "replicas" not in consumer
    assert one(render("production"), "FlowAggregator", "flow-aggregator")["spec"]["consumer"]["replicas"] == 4


def test_autoscaling_has_the_values_that_are_set_and_leaves_the_rest_to_the_definition() -> None:
    def autoscaling(name: str, owner: str) -> Any:
        return one(render(name), "FlowAggregator", owner)["spec"]["consumer"]["autoscaling"]

    assert autoscaling("default", "flow-aggregator") == {"enabled": True, "min": 1, "dryRun": False}
    assert autoscaling("production", "flow-aggregator") == {
        "enabled": True, "min": 2, "max": 10, "dryRun": False,
        "catchUpSeconds": 60, "targetUtilization": 0.6, "manualHoldSeconds": 604800,
    }  # fmt: skip
    assert autoscaling("external", "flows")["enabled"] is False


@pytest.mark.parametrize(
    ("name", "owner", "set_to"), [("default", "flow-aggregator", []), ("production", "flow-aggregator", ["true"])]
)
def test_the_names_of_kafka_exporter_are_asked_for(name: str, owner: str, set_to: list[str]) -> None:
    (pod,) = (pod for pod in pods(render(name)) if pod.owner == f"Deployment/{owner}-operator")
    found = {variable["name"]: variable.get("value") for variable in pod.spec["containers"][0]["env"]}
    assert [found[key] for key in found if key == "FLOWAGG_KAFKA_EXPORTER_METRICS"] == set_to


def test_the_lease_is_left_to_the_operators() -> None:
    assert "spec" not in one(render("default"), "Lease", "flow-aggregator-operator")


@pytest.mark.parametrize("name", value_files())
def test_a_hook_leaves_nothing_of_its_rights_behind(name: str) -> None:
    hooks = [found for found in objects(render(name)) if "helm.sh/hook" in found["metadata"].get("annotations", {})]
    for found in hooks:
        policy = found["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
        assert "before-hook-creation" in policy
        if found["kind"] in {"ClusterRole", "ClusterRoleBinding", "ServiceAccount"}:
            assert {"hook-succeeded", "hook-failed"} <= set(policy)
    (role,) = (found for found in hooks if found["kind"] == "ClusterRole")
    (rule,) = role["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == (["flowaggregators.flowaggregator.io"], ["get", "patch"])


def test_the_crd_is_in_crds_and_nowhere_else() -> None:
    assert (CHART / "crds" / "flowaggregators.yaml").is_file()
    assert [found for found in objects(render("default")) if found["kind"] == "CustomResourceDefinition"] == []


def test_numbers_are_written_out() -> None:
    large = ["--set-json", 'kafka.log={"retentionBytes":10737418240000}', "--set", "gateway.maxBodyBytes=104857600",
             "--set", "kafka.heapMiB=1048576,kafka.resources.limits.memory=2048Gi",
             "--set", "tests.hour=9007199254740991",
             "--set", "redis.sentinel.failoverTimeoutMilliseconds=1000000"]  # fmt: skip
    text = template("helm", *large)
    assert re.findall(r"\d\.?\d*e\+\d+", text) == []
    for word in ("log.retention.bytes=10737418240000", "client_max_body_size 104857600;", "-Xmx1048576m",
                 '"9007199254740991"', '"1000000"'):  # fmt: skip
        assert word in text


def test_the_gateway_follows_the_limits_of_the_writer() -> None:
    def config(name: str) -> str:
        text: str = one(render(name), "ConfigMap", "flow-aggregator-gateway")["data"]["nginx.conf"]
        return text

    assert "client_max_body_size 8388608;" in config("default")
    assert "proxy_read_timeout 25s;" in config("default")
    assert "client_max_body_size 16777216;" in config("production")
    assert "proxy_read_timeout 40s;" in config("production")


def test_the_cluster_id_follows_from_namespace_and_name() -> None:
    def cluster_id(text: str) -> str:
        spec = one(text, "StatefulSet", "flow-aggregator-kafka")["spec"]["template"]["spec"]
        (found,) = (v["value"] for v in spec["initContainers"][0]["env"] if v["name"] == "CLUSTER_ID")
        return str(found)

    first = cluster_id(render("default"))
    assert re.fullmatch(r"[0-9a-f]{21}A", first)
    assert cluster_id(render("production")) == first
    assert cluster_id(template("helm", "--namespace", "elsewhere")) != first


def test_the_cr_reaches_the_bundled_kafka_and_redis() -> None:
    spec = one(render("production"), "FlowAggregator", "flow-aggregator")["spec"]
    kafka = [f"flow-aggregator-kafka-{n}.flow-aggregator-kafka.flows.svc:9092" for n in range(3)]
    assert spec["kafka"]["bootstrapServers"] == ",".join(kafka)
    assert spec["kafka"]["topic"]["replicationFactor"] == 3
    redis = [f"flow-aggregator-redis-{n}.flow-aggregator-redis.flows.svc:26379" for n in range(3)]
    assert spec["redis"]["sentinels"] == redis
    assert spec["access"] == {"tokensSecretRef": {"name": "flow-tokens", "key": "tokens.json"}}


def test_texts_that_yaml_takes_for_something_else_stay_texts() -> None:
    names = ["image.pullSecrets[0].name", "tokens.existingSecret", "kafka.external.configSecretRef.name",
             "redis.external.authSecretRef.name", "redis.external.sentinelAuthSecretRef.name",
             "redis.external.tls.caSecretRef.name", "redis.external.tls.clientSecretRef.name",
             "gateway.priorityClassName", "ingress.className", "tests.tokenSecretRef.name"]  # fmt: skip
    given = [word for name in names for word in ("--set-string", f"{name}=123")]
    given += [
        "--set-string",
        "flowAggregator.topic.name=1e3,flowAggregator.views[0].name=no,flowAggregator.reader.view=no",
    ]
    given += ["--set-string", "kafka.external.bootstrapServers=k:9092,redis.external.sentinels[0]=s:26379"]
    given += ["--set", "kafka.enabled=false,redis.enabled=false,ingress.enabled=true,redis.external.tls.enabled=true"]
    given += [
        "--set",
        "httpRoute.enabled=true,httpRoute.parentRefs[0].name=gateway",
        "--set-string",
        "fullnameOverride=on",
    ]
    text = run("helm", "template", "y", str(CHART), "--namespace", "123", *given)

    fields = {"name", "namespace", "key", "view", "image", "masterName", "secretName"}
    fields |= {"priorityClassName", "ingressClassName"}

    def texts(found: Any, path: str = "") -> list[str]:
        inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        wrong = [word for key, value in inside for word in texts(value, f"{path}.{key}")]
        last = path.rpartition(".")[2]
        if last in fields and not isinstance(found, str):
            return [*wrong, f"{path}: {found!r}"]
        return wrong

    everything = objects(text)
    assert [word for found in everything for word in texts(found, found["kind"])] == []
    labels = [value for found in everything for value in found["metadata"]["labels"].values()]
    assert {type(value) for value in labels} == {str}
    assert one(text, "FlowAggregator", "on")["spec"]["kafka"]["topic"]["name"] == "1e3"
