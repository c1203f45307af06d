"""The CustomResourceDefinition: one source, its copy in the chart, and the operator's own reading of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flowagg_operator import crd
from flowagg_operator.spec import Autoscaling, Component, Spec, read_spec

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "operator" / "src" / "flowagg_operator" / "crd.yaml"
COPY = ROOT / "charts" / "flow-aggregator" / "crds" / "flowaggregators.yaml"


def schema() -> dict[str, Any]:
    found: dict[str, Any] = crd.load()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def spec_schema() -> dict[str, Any]:
    found: dict[str, Any] = schema()["properties"]["spec"]
    return found


def fields(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, below in part.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from fields(below, f"{path}.{name}")
    if isinstance(items := part.get("items"), dict):
        yield from fields(items, f"{path}[]")


def with_defaults(part: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: defaults are set from outside in."""
    if isinstance(value, dict):
        made = dict(value)
        for name, below in part.get("properties", {}).items():
            if name not in made and "default" in below:
                made[name] = below["default"]
            if name in made:
                made[name] = with_defaults(below, made[name])
        return made
    if isinstance(value, list):
        return [with_defaults(part.get("items", {}), item) for item in value]
    return value


LEAST = {"kafka": {"bootstrapServers": "kafka:9092"}, "redis": {"url": "redis://redis:6379"}}


def test_the_chart_holds_a_copy_of_the_definition() -> None:
    assert COPY.read_text() == SOURCE.read_text(), f"cp {SOURCE} {COPY}"


def test_the_operators_defaults_are_those_of_the_definition() -> None:
    assert read_spec(with_defaults(spec_schema(), LEAST)) == read_spec(LEAST)


def test_defaults_that_rules_judge_are_whole() -> None:
    # A default is judged as it is, before the defaults inside of it are set.
    for path, part in fields(spec_schema()):
        if "default" in part and "x-kubernetes-validations" in part and part["type"] == "object":
            assert part["default"] == with_defaults(part, {}), path


def test_every_field_is_described() -> None:
    undescribed = [path for path, part in fields(schema()) if path != ".metadata" and not part.get("description")]
    assert undescribed == []


def test_every_text_and_list_of_the_spec_is_bounded_where_a_rule_reads_it() -> None:
    env = spec_schema()["properties"]["writer"]["properties"]["env"]
    assert env["maxItems"] <= 64
    assert env["items"]["properties"]["name"]["maxLength"] <= 128


def test_components_have_the_same_fields() -> None:
    def pod_fields(component: str) -> dict[str, Any]:
        own = {"replicas", "mode", "view", "autoscaling"}
        parts = spec_schema()["properties"][component]["properties"]
        return {name: strip(part) for name, part in parts.items() if name not in own}

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: strip(value) for key, value in part.items() if key != "description"}
        return [strip(value) for value in part] if isinstance(part, list) else part

    assert pod_fields("writer") == pod_fields("reader") == pod_fields("consumer")
    names = {field.encode_name for field in msgspec.structs.fields(Component)} - {"replicas"}
    assert set(pod_fields("writer")) == names


@pytest.mark.parametrize("part", ["kafka", "redis", "writer", "reader", "consumer", "election", "access"])
def test_the_operator_reads_every_field_of_the_definition(part: str) -> None:
    known = {field.encode_name: field.type for field in msgspec.structs.fields(Spec)}[part]
    assert isinstance(known, type)
    assert issubclass(known, msgspec.Struct)
    names = {field.encode_name for field in msgspec.structs.fields(known)}
    missing = set(spec_schema()["properties"][part]["properties"]) - names
    assert missing == set()


def autoscaling() -> dict[str, Any]:
    found: dict[str, Any] = spec_schema()["properties"]["consumer"]["properties"]["autoscaling"]
    return found


def test_the_operator_reads_every_field_of_autoscaling() -> None:
    names = {field.encode_name for field in msgspec.structs.fields(Autoscaling)}
    assert names == autoscaling()["properties"].keys()


def test_part_of_autoscaling_can_be_given() -> None:
    given = {**LEAST, "consumer": {"autoscaling": {"max": 12, "targetUtilization": 0.5}}}
    read = read_spec(with_defaults(spec_schema(), given)).consumer.autoscaling
    assert read == Autoscaling(max=12, target_utilization=0.5)


def test_a_number_of_autoscaling_is_bounded_and_its_default_is_within() -> None:
    for name, part in autoscaling()["properties"].items():
        if part["type"] in ("integer", "number"):
            assert part["minimum"] <= part.get("default", part["minimum"]) <= part["maximum"], name


def test_the_status_holds_what_the_autoscaler_goes_by() -> None:
    status = schema()["properties"]["status"]["properties"]
    assert status["lastDecision"]["properties"].keys() == {"time", "from", "to", "reason", "message"}
    times = {name for name, part in status["autoscaling"]["properties"].items() if part.get("format") == "date-time"}
    assert times == {"manualSince", "manualUntil", "changedTime", "ineffectiveUntil"}


def test_the_scale_subresource_is_the_number_of_consumers() -> None:
    version = crd.load()["spec"]["versions"][0]
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.consumer.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_columns_read_well() -> None:
    columns = crd.load()["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Ready", "Reason", "Desired", "Consumers", "Lag", "Age"]
    wide = [column["name"] for column in columns if column.get("priority") == 1]
    assert wide == ["Lag-Seconds", "Scaling", "Arrivals", "Capacity", "Writer", "Reader"]
