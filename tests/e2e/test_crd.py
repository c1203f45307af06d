"""The CustomResourceDefinition on a real API server: what it fills in, what it refuses and how it says so."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

import pytest
from flowagg.kubernetes import Api
from flowagg_operator import crd

from tests.e2e.kube import Kube, KubectlFailed, Object
from tests.e2e.target import Target

NAMESPACE: Final = "flow-aggregator-crd"
KIND: Final = "flowaggregators.flowaggregator.io"


def resource(**changes: Any) -> Object:
    """A FlowAggregator with the least that it needs. changes: parts of its spec, name: its name."""
    name = changes.pop("name", "main")
    spec = {"kafka": {"bootstrapServers": "kafka:9092"}, "redis": {"url": "redis://redis:6379"}}
    return {
        "apiVersion": "flowaggregator.io/v1alpha1",
        "kind": "FlowAggregator",
        "metadata": {"name": name},
        "spec": merged(spec, changes),
    }


def merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        result = deepcopy(one)
        for key, value in other.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result.get(key), value)
        return result
    return other


@pytest.fixture(scope="module")
def space(target: Target) -> Iterator[Kube]:
    """A namespace that no operator watches."""
    crd.apply(Api.from_kubeconfig(target.kubeconfig))
    kube = Kube(target.program("kubectl"), target.kubeconfig, NAMESPACE)
    kube.run("wait", "--for=condition=Established", f"customresourcedefinition/{KIND}", "--timeout=30s")
    kube.delete("namespace", NAMESPACE, wait=True)  # of a session that was killed
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield kube
    kube.delete("namespace", NAMESPACE, wait=True)


def made(space: Kube, source: Object) -> Object:
    """What the API server would make of it."""
    text = space.run("create", "--dry-run=server", "--output=json", "--filename=-", text=json.dumps(source))
    found: Object = json.loads(text)
    return found


def test_the_least_is_enough_and_the_rest_is_filled_in(space: Kube) -> None:
    spec = made(space, resource())["spec"]
    assert spec == {
        "kafka": {
            "bootstrapServers": "kafka:9092",
            "topic": {"name": "flows", "partitions": 6, "replicationFactor": 1, "keyedPartitions": 6},
        },
        "redis": {"url": "redis://redis:6379", "masterName": "main"},
        "writer": {"replicas": 2, "mode": "ActivePassive"},
        "reader": {"replicas": 2, "mode": "ActivePassive", "view": "default"},
        "consumer": {
            "replicas": 1,
            "autoscaling": {
                "enabled": True,
                "min": 1,
                "dryRun": False,
                "targetUtilization": 0.6,
                "scaleUpUtilization": 0.95,
                "catchUpSeconds": 120,
                "lagSeconds": 30,
                "rateSeconds": 60,
                "scaleUpIntervalSeconds": 30,
                "settleSeconds": 60,
                "scaleDownWindowSeconds": 1800,
                "stalledSeconds": 60,
                "ineffectiveHoldSeconds": 900,
                "manualHoldSeconds": 900,
            },
        },
        "election": {"leaseSeconds": 3, "renewSeconds": 1, "attemptSeconds": 0.6},
        "views": [{"name": "default", "source": "Auto", "deletionPolicy": "Retain"}],
    }


SECRET = {"name": "s"}


def autoscaling(**changes: Any) -> dict[str, Any]:
    return {"consumer": {"autoscaling": changes}}


GOOD: dict[str, dict[str, Any]] = {
    "sentinels": {"redis": {"url": None, "sentinels": ["a-0.a:26379", "[::1]:26379"]}},
    "a url with TLS": {"redis": {"url": "rediss://redis:6380/1", "tls": {"caSecretRef": SECRET}}},
    "sentinels with TLS": {
        "redis": {"url": None, "sentinels": ["a:1"], "tls": {"enabled": True, "caSecretRef": SECRET}}
    },
    "several brokers": {"kafka": {"bootstrapServers": "a:9092,[::1]:9092,b.c:9092"}},
    "hours for ever": {"views": [{"name": "default", "retention": {"hours": None}}]},
    "three views": {"views": [{"name": "default"}, {"name": "b"}, {"name": "c", "cloneFrom": "b", "replicas": 0}]},
    "a paused consumer": {"consumer": {"replicas": 0}},
    "consumers that are scaled by hand": autoscaling(enabled=False),
    "consumers within bounds": autoscaling(min=2, max=12),
    "a number of consumers that stays": autoscaling(min=3, max=3),
    "utilizations close by each other": autoscaling(targetUtilization=0.94),
    "an active-active writer": {"writer": {"mode": "ActiveActive", "replicas": 5}},
    "a setting": {"writer": {"env": [{"name": "FLOWAGG_LOG_LEVEL", "value": "debug"}]}},
    "a slow cluster": {"election": {"leaseSeconds": 15, "renewSeconds": 2, "attemptSeconds": 2}},
    "a pod's parts": {
        "consumer": {
            "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
        }
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_one_is_taken(space: Kube, name: str) -> None:
    made(space, resource(**GOOD[name]))


def env(name: str) -> dict[str, Any]:
    return {"writer": {"env": [{"name": name, "value": "1"}]}}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no brokers": ({"kafka": {"bootstrapServers": None}}, "spec.kafka.bootstrapServers: Required value"),
    "a broker without a port": ({"kafka": {"bootstrapServers": "kafka"}}, "spec.kafka.bootstrapServers"),
    "fewer partitions than keyed ones": (
        {"kafka": {"topic": {"partitions": 3}}},
        "keyedPartitions (6 unless given) must be at most partitions: set both",
    ),
    "no partitions": ({"kafka": {"topic": {"partitions": 0}}}, "greater than or equal to 1"),
    "compaction": ({"kafka": {"topic": {"config": {"cleanup.policy": "compact"}}}}, "compaction removes flows"),
    "the producers' clocks": (
        {"kafka": {"topic": {"config": {"message.timestamp.type": "CreateTime"}}}},
        "must be LogAppendTime",
    ),
    "a topic's name": ({"kafka": {"topic": {"name": "a b"}}}, "spec.kafka.topic.name"),
    "no Redis": ({"redis": {"url": None}}, "give exactly one of redis.sentinels and redis.url"),
    "two Redises": ({"redis": {"sentinels": ["a:1"]}}, "give exactly one of redis.sentinels and redis.url"),
    "a password in the url": ({"redis": {"url": "redis://user:secret@redis:6379"}}, "spec.redis.url"),
    "a sentinel without a port": ({"redis": {"url": None, "sentinels": ["a"]}}, "spec.redis.sentinels"),
    "TLS asked for twice, once": ({"redis": {"tls": {"enabled": True}}}, "write rediss:// in the url"),
    "sentinel TLS without sentinels": ({"redis": {"tls": {"sentinel": True}}}, "no effect with redis.url"),
    "certificates without TLS": ({"redis": {"tls": {"caSecretRef": SECRET}}}, "have no effect"),
    "an unknown mode": ({"writer": {"mode": "ActiveSomehow"}}, 'supported values: "ActivePassive", "ActiveActive"'),
    "no writer": ({"writer": {"replicas": 0}}, "greater than or equal to 1"),
    "more consumers at least than at most": (autoscaling(min=3, max=2), "max must be at least min (1 unless given)"),
    "no consumer at least": (autoscaling(min=0), "greater than or equal to 1"),
    "a target at which more are started": (
        autoscaling(targetUtilization=0.95),
        "targetUtilization (0.6 unless given) must be less than scaleUpUtilization (0.95 unless given): else each "
        "scale-up calls for the next",
    ),
    "a start of more below the target": (
        autoscaling(scaleUpUtilization=0.5),
        "targetUtilization (0.6 unless given) must be less than scaleUpUtilization (0.95 unless given)",
    ),
    "a foreign variable": (env("PATH"), "FLOWAGG_"),
    "the operator's own port": (env("FLOWAGG_PORT"), "env may not hold what the operator sets itself"),
    "a password as a variable": (env("FLOWAGG_REDIS_PASSWORD"), "env may not hold what the operator sets itself"),
    "an election as a variable": (env("FLOWAGG_ELECTION_LEASE"), "env may not hold what the operator sets itself"),
    "late renewals": (
        {"election": {"leaseSeconds": 3, "renewSeconds": 2}},
        "must each be at most half of leaseSeconds",
    ),
    "no view": ({"views": []}, "spec.views"),
    "views past the bound": ({"views": [{"name": "default"}, *({"name": f"v{n}"} for n in range(16))]}, "spec.views"),
    "a view twice": ({"views": [{"name": "default"}, {"name": "default"}]}, "Duplicate value"),
    "a view that is cloned from itself": (
        {"views": [{"name": "default"}, {"name": "b", "cloneFrom": "b"}]},
        "a view cannot be cloned from itself",
    ),
    "a view that is cloned from nobody": (
        {"views": [{"name": "default"}, {"name": "b", "cloneFrom": "c"}]},
        "cloneFrom must be the name of one of views",
    ),
    "a clone from the log": (
        {"views": [{"name": "default"}, {"name": "b", "cloneFrom": "default", "source": "Log"}]},
        "cloneFrom has no effect with source Log",
    ),
    "replicas of the view whose consumers are scaled": (
        {"views": [{"name": "default", "replicas": 2}]},
        "set spec.consumer.replicas instead",
    ),
    "a view that nobody keeps": ({"reader": {"view": "other"}}, "reader.view must be the name of one of views"),
    "hours that are none": ({"views": [{"name": "default", "retention": {"hours": 0}}]}, "greater than or equal to 1"),
    "a name with a dot": ({"name": "a.b"}, "must be at most 49 lower-case letters"),
    "a long name": ({"name": "a" * 50}, "must be at most 49 lower-case letters"),
    "a field that is none": ({"consumer": {"replica": 3}}, 'unknown field "spec.consumer.replica"'),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_one_is_refused_with_a_readable_message(space: Kube, name: str) -> None:
    changes, said = BAD[name]
    with pytest.raises(KubectlFailed) as refusal:
        made(space, resource(**deepcopy(changes)))
    assert said in str(refusal.value)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another topic": ({"kafka": {"topic": {"name": "others"}}}, "the topic's name cannot change"),
    "fewer partitions": ({"kafka": {"topic": {"partitions": 11}}}, "partitions can only grow"),
    "other keyed partitions": ({"kafka": {"topic": {"keyedPartitions": 5}}}, "keyedPartitions cannot change"),
    "a new view at the front": (
        {"views": [{"name": "new"}, {"name": "default"}]},
        "the first view must be one that was there before",
    ),
    "no topic at all": ({"kafka": {"topic": None}}, "partitions can only grow"),
}


@pytest.fixture(scope="module")
def there(space: Kube) -> str:
    """The name of one that is there."""
    topic = {"partitions": 12, "keyedPartitions": 6}
    space.apply(resource(name="there", kafka={"topic": topic}))
    return "there"


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_would_count_wrongly_is_refused(space: Kube, there: str, name: str) -> None:
    changes, said = CHANGES[name]
    with pytest.raises(KubectlFailed) as refusal:
        space.merge(KIND, there, {"spec": changes})
    assert said in str(refusal.value)


def test_partitions_can_grow(space: Kube, there: str) -> None:
    space.merge(KIND, there, {"spec": {"kafka": {"topic": {"partitions": 13}}}})
    assert space.get(KIND, there)["spec"]["kafka"]["topic"]["partitions"] == 13


def test_kubectl_scale_sets_the_number_of_consumers(space: Kube, there: str) -> None:
    space.run("scale", f"{KIND}/{there}", "--replicas=4")
    assert space.get(KIND, there)["spec"]["consumer"]["replicas"] == 4


def test_kubectl_get_reads_well(space: Kube, there: str) -> None:
    status = {
        "observedGeneration": 1,
        "readyReplicas": 3,
        "lag": 42,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "ConsumerNotReady",
                "message": "consumer: 3 of 4 pods are ready",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    space.run("patch", KIND, there, "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")
    head, row = space.run("get", "fa", there).splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "DESIRED", "CONSUMERS", "LAG", "AGE"]
    assert row.split()[:6] == ["there", "False", "ConsumerNotReady", "4", "3", "42"]


def test_the_definition_that_is_there_is_brought_up_to_date(target: Target, space: Kube) -> None:
    api = Api.from_kubeconfig(target.kubeconfig)
    column = {"name": "Old", "type": "string", "jsonPath": ".spec.old"}
    found = space.get("customresourcedefinition", KIND)
    columns = [*found["spec"]["versions"][0]["additionalPrinterColumns"], column]
    patch = [{"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns", "value": columns}]
    space.run("patch", "customresourcedefinition", KIND, "--type=json", f"--patch={json.dumps(patch)}")
    assert crd.apply(api) == f"updated {KIND}"
    after = space.get("customresourcedefinition", KIND)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert column not in after
    assert crd.apply(api) == f"{KIND} is up to date"
