"""values.yaml and values.schema.json: what is taken, what is refused and in which words, and that all is described."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flowagg_operator import crd
from flowagg_stack.chart_values import ValueUndescribed, chart_values, chart_values_page

from tests.chart.charts import CHART, HELMS, HelmRefused, run, template

GOOD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a name": {"fullnameOverride": "flows"},
    "a digest": {"operator": {"image": "registry.example.com:5000/operator@sha256:" + "0" * 64}},
    "a number of CPUs": {"gateway": {"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}},
    "half a CPU": {"gateway": {"resources": {"limits": {"cpu": 0.5}}}},
    "three brokers": {"kafka": {"replicas": 3}},
    "brokers by IPv6": {"kafka": {"enabled": False, "external": {"bootstrapServers": "[::1]:9092"}}},
    "a Redis at one address": {"redis": {"enabled": False, "external": {"url": "rediss://redis.example.com:6380/2"}}},
    "no consumers at first": {"flowAggregator": {"consumer": {"initialReplicas": 0}}},
    "consumers that the operator scales within bounds": {
        "flowAggregator": {"consumer": {"autoscaling": {"min": 2, "max": 2, "dryRun": True}}}
    },
    "consumers that nobody but the user scales": {"flowAggregator": {"consumer": {"autoscaling": {"enabled": False}}}},
    "no bound of one's own": {"flowAggregator": {"consumer": {"autoscaling": {"max": None}}}},
    "a further field of autoscaling": {
        "flowAggregator": {"consumer": {"autoscaling": {"catchUpSeconds": 600, "scaleUpUtilization": 1}}}
    },
    "the names of kafka_exporter": {"operator": {"kafkaExporterMetrics": True}},
    "a retention": {"flowAggregator": {"views": [{"name": "default", "retention": {"hours": 48}}]}},
    "a retention of none": {"flowAggregator": {"views": [{"name": "default", "retention": {"hours": None}}]}},
    "two views": {
        "flowAggregator": {
            "views": [
                {"name": "default"},
                {"name": "b", "source": "Clone", "cloneFrom": "default", "deletionPolicy": "Delete", "replicas": 2},
            ],
            "reader": {"view": "b"},
        }
    },
    "a wildcard host": {"ingress": {"enabled": True, "hosts": ["*.example.com"]}},
    "globals of a chart above": {"global": {"anything": 1}},
    "a setting that is a number": {"redis": {"config": {"hz": 20}}},
    "a changed alert": {"monitoring": {"rules": {"enabled": True, "alerts": {}}}},
}

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an unknown value": ({"replicas": 3}, ("replicas", "not allowed")),
    "an unknown value inside": ({"kafka": {"replica": 3}}, ("kafka", "replica", "not allowed")),
    "two brokers": ({"kafka": {"replicas": 2}}, ("kafka", "replicas", "1")),
    "a string for a number": ({"gateway": {"replicas": "2"}}, ("gateway", "replicas", "integer")),
    "no writers": ({"flowAggregator": {"writer": {"replicas": 0}}}, ("writer", "replicas", "1")),
    "an unknown mode": ({"flowAggregator": {"writer": {"mode": "activeActive"}}}, ("writer", "mode", "ActiveActive")),
    "the tag latest": ({"image": {"tag": "latest"}}, ("image", "tag")),
    "a pull policy": ({"image": {"pullPolicy": "Sometimes"}}, ("pullPolicy", "IfNotPresent")),
    "no views": ({"flowAggregator": {"views": []}}, ("views", "1")),
    "a reader of no view": ({"flowAggregator": {"reader": {"view": "b"}}}, ("reader.view", "views")),
    "an unknown source of a view": (
        {"flowAggregator": {"views": [{"name": "default", "source": "Backup"}]}}, ("views", "source", "Clone"),
    ),
    "consumer.replicas": ({"flowAggregator": {"consumer": {"replicas": 2}}}, ("consumer", "replicas", "not allowed")),
    "an unknown field of autoscaling": (
        {"flowAggregator": {"consumer": {"autoscaling": {"minReplicas": 2}}}},
        ("autoscaling", "minReplicas", "not allowed"),
    ),
    "autoscaling to none": (
        {"flowAggregator": {"consumer": {"autoscaling": {"min": 0}}}}, ("consumer", "autoscaling", "min", "1"),
    ),
    "a maximum below the minimum": (
        {"flowAggregator": {"consumer": {"autoscaling": {"min": 3, "max": 2}}}},
        ("flowAggregator.consumer.autoscaling.max is 2, but min is 3",),
    ),
    "all of the capacity as target": (
        {"flowAggregator": {"consumer": {"autoscaling": {"targetUtilization": 1}}}}, ("targetUtilization", "0.95"),
    ),
    "half a second": (
        {"flowAggregator": {"consumer": {"autoscaling": {"rateSeconds": 0.5}}}}, ("rateSeconds", "integer"),
    ),
    "yes for true": ({"operator": {"kafkaExporterMetrics": "yes"}}, ("kafkaExporterMetrics", "boolean")),
    "a quantity": ({"kafka": {"persistence": {"size": "10 GB"}}}, ("persistence", "size", "pattern")),
    "a foreign setting": ({"operator": {"env": [{"name": "PATH", "value": "/"}]}}, ("env", "name", "FLOWAGG_")),
    "a setting without a value": ({"operator": {"env": [{"name": "FLOWAGG_X"}]}}, ("env", "value")),
    "a Redis URL with a password": (
        {"redis": {"enabled": False, "external": {"url": "redis://:secret@redis:6379"}}}, ("url", "pattern"),
    ),
    "a name that is too long": ({"fullnameOverride": "a" * 41}, ("fullnameOverride", "40")),
    "a name with capitals": ({"fullnameOverride": "Flows"}, ("fullnameOverride", "pattern")),
    "an interval": ({"monitoring": {"podMonitor": {"interval": "15"}}}, ("interval", "pattern")),
    "a Kafka of nobody": ({"kafka": {"enabled": False}}, ("kafka.external.bootstrapServers must name your own Kafka",)),
    "two Kafkas": (
        {"kafka": {"external": {"bootstrapServers": "kafka:9092"}}}, ("kafka.enabled is true: set it to false",),
    ),
    "a Redis of nobody": (
        {"redis": {"enabled": False}}, ("exactly one of redis.external.sentinels and redis.external.url",),
    ),
    "two Redis of one's own": (
        {"redis": {"enabled": False, "external": {"url": "redis://r", "sentinels": ["s:26379"]}}},
        ("exactly one of redis.external.sentinels and redis.external.url",),
    ),
    "a bundled and another Redis": (
        {"redis": {"external": {"url": "redis://redis"}}}, ("redis.enabled is true: set it to false",),
    ),
    "more copies than brokers": (
        {"flowAggregator": {"topic": {"replicationFactor": 3}}}, ("there are only 1 brokers (kafka.replicas)",),
    ),
    "more keyed partitions than partitions": (
        {"flowAggregator": {"topic": {"partitions": 3}}}, ("keyedPartitions must be at most",),
    ),
    "a route without a Gateway": ({"httpRoute": {"enabled": True}}, ("httpRoute.parentRefs must name at least one",)),
    "a test's token without tokens": (
        {"tests": {"tokenSecretRef": {"name": "token"}}}, ("tests.tokenSecretRef is set",),
    ),
    "a view that nobody keeps": (
        {"flowAggregator": {"reader": {"view": "other"}}}, ("flowAggregator.reader.view must be the name",),
    ),
    "a heap above the limit": ({"kafka": {"heapMiB": 1536}}, ("kafka.heapMiB", "kafka.resources.limits.memory")),
    "more data than the limit": ({"redis": {"maxMemoryMiB": 1280}}, ("redis.maxMemoryMiB", "redis.resources.limits")),
}  # fmt: skip


def _rendered(helm: str, directory: Path, values: dict[str, Any]) -> str:
    path = directory / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return template(helm, "--values", str(path))


@pytest.mark.parametrize("name", GOOD)
def test_good_values_are_taken(tmp_path: Path, name: str) -> None:
    assert "kind: FlowAggregator" in _rendered("helm", tmp_path, GOOD[name])


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_in_words_that_help(tmp_path: Path, helm: str, name: str) -> None:
    values, words = BAD[name]
    with pytest.raises(HelmRefused) as refused:
        _rendered(helm, tmp_path, values)
    message = str(refused.value)
    assert [word for word in words if word not in message] == [], message


def test_a_release_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(HelmRefused, match=r'"x{30}-flow-aggregator" has more than 40 characters.*set fullnameOverride'):
        run("helm", "template", "x" * 30, str(CHART))


def test_the_schema_and_the_defaults_know_the_same_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    del schema["properties"]["global"]

    def differ(described: dict[str, Any], given: Any, path: str) -> list[str]:
        described = schema["$defs"][described["$ref"].rpartition("/")[2]] if "$ref" in described else described
        if "properties" not in described or path.endswith(("resources", "affinity")):
            return []
        known = described["properties"]
        if path.endswith(".autoscaling"):  # the defaults of its further fields are the definition's
            return [f"{path}.{key}" for key in sorted(given.keys() - known.keys())]
        inside = [
            word for key in known.keys() & given.keys() for word in differ(known[key], given[key], f"{path}.{key}")
        ]
        return [*(f"{path}.{key}" for key in sorted(known.keys() ^ given.keys())), *inside]

    assert differ(schema, values, "") == []


def test_the_schema_knows_the_fields_of_autoscaling_with_the_bounds_of_the_definition() -> None:
    def autoscaling(found: Any, *path: str) -> dict[str, dict[str, Any]]:
        for key in path:
            found = found["properties"][key]
        inside: dict[str, dict[str, Any]] = found["properties"]
        return inside

    def bounds(parts: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
        def kind(part: dict[str, Any]) -> Any:
            return part["type"][0] if isinstance(part["type"], list) else part["type"]

        return {name: (kind(part), part.get("minimum"), part.get("maximum")) for name, part in parts.items()}

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    definition = crd.load()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    values = autoscaling(schema, "flowAggregator", "consumer", "autoscaling")
    fields = autoscaling(definition, "spec", "consumer", "autoscaling")
    assert bounds(values) == bounds(fields)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    given = defaults["flowAggregator"]["consumer"]["autoscaling"]
    assert given == {name: fields[name].get("default") for name in given}


def test_the_schema_is_closed_at_every_object_that_lists_its_values() -> None:
    def objects(found: Any) -> list[dict[str, Any]]:
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else []
        own = [found] if isinstance(found, dict) and "properties" in found and found.get("type") == "object" else []
        return [*own, *(o for value in inner for o in objects(value))]

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert [found for found in objects(schema) if found.get("additionalProperties") is not False] == []


def test_each_value_is_described() -> None:
    page = chart_values_page()
    assert "| `kafka.replicas` | `1` | Brokers: 1, or 3" in page
    with pytest.raises(ValueUndescribed, match=r"kafka\.replicas needs a comment"):
        chart_values("kafka:\n  # just a remark\n  replicas: 1\n")


def test_a_description_spans_lines_and_covers_what_is_below() -> None:
    (found,) = chart_values("a:\n  # -- First,\n  # second.\n  b: {c: 1, d: [x]}\n")
    assert (found.path, found.default, found.meaning) == ("a.b", "{c: 1, d: [x]}", "First, second.")
