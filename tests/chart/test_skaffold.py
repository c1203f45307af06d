"""skaffold.yaml: it has the form that Skaffold's schema says, and fits the images and the chart."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # a part of openapi-schema-validator
import pytest
import yaml

from tests.chart.charts import CHART, one, pods, template

ROOT: Final = Path(__file__).parents[2]
SCHEMA: Final = Path(__file__).parent / "skaffold" / "v4beta11.json"
SERVICES: Final = {"writer", "reader", "consumer", "operator", "cli"}


@pytest.fixture(scope="module")
def skaffold() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _value(template_text: str) -> str:
    """What Skaffold makes of a template: util.SanitizeHelmTemplateValue in its sources names the variables."""
    images = {re.sub(r"[./:-]", "_", name): name for name in (f"flow-aggregator/{service}" for service in SERVICES)}
    found = re.fullmatch(r"\{\{\.IMAGE_FULLY_QUALIFIED_(\w+)\}\}", template_text)
    assert found is not None
    return f"{images[found[1]]}:0123abc"


def test_the_schema_is_as_it_came() -> None:
    digest = hashlib.sha256(SCHEMA.read_bytes()).hexdigest()
    assert digest in (SCHEMA.parent / "README.md").read_text(encoding="utf-8")


def test_skaffold_takes_the_file(skaffold: dict[str, Any], schema: Any) -> None:
    assert skaffold["apiVersion"] == f"skaffold/{SCHEMA.stem}"
    jsonschema.Draft7Validator(schema).validate(skaffold)


def test_the_schema_refuses_what_skaffold_does_not_know(skaffold: dict[str, Any], schema: Any) -> None:
    wrong = json.loads(json.dumps(skaffold))
    wrong["build"]["artifacts"][0]["docker"]["buildArg"] = {}
    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


def test_it_stays_valid_with_the_patches_of_its_profiles(skaffold: dict[str, Any], schema: Any) -> None:
    for patch in (patch for profile in skaffold["profiles"] for patch in profile.get("patches", [])):
        patched: Any = json.loads(json.dumps(skaffold))
        *parents, last = patch["path"].strip("/").split("/")
        place = patched
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        assert patch["op"] == "add"
        place[last] = patch["value"]
        jsonschema.Draft7Validator(schema).validate(patched)


def test_it_builds_the_image_of_each_service_from_the_one_dockerfile(skaffold: dict[str, Any]) -> None:
    built = {artifact["image"]: artifact["docker"] for artifact in skaffold["build"]["artifacts"]}
    assert built == {
        f"flow-aggregator/{service}": {"dockerfile": "Dockerfile", "buildArgs": {"SERVICE": service}}
        for service in SERVICES
    }
    assert (ROOT / "Dockerfile").is_file()


def test_the_chart_takes_its_values_and_runs_the_images_that_were_built(skaffold: dict[str, Any]) -> None:
    (release,) = skaffold["deploy"]["helm"]["releases"]
    assert ROOT / release["chartPath"] == CHART
    values = {key: _value(text) for key, text in release["setValueTemplates"].items()}
    extra = {k: v for p in skaffold["profiles"] for patch in p.get("patches", []) for k, v in patch["value"].items()}
    text = template("helm", *(word for key, value in (values | extra).items() for word in ("--set", f"{key}={value}")))
    spec = one(text, "FlowAggregator", "flow-aggregator")["spec"]
    images = {component: spec[component]["image"] for component in ("writer", "reader", "consumer")}
    images["operator"] = next(
        pod.spec["containers"][0]["image"] for pod in pods(text) if pod.owner.endswith("-operator")
    )
    images["cli"] = next(
        variable["value"]
        for pod in pods(text)
        if pod.owner.endswith("-operator")
        for variable in pod.spec["containers"][0]["env"]
        if variable["name"] == "FLOWAGG_CLI_IMAGE"
    )
    assert images == {service: f"flow-aggregator/{service}:0123abc" for service in SERVICES}


def test_it_forwards_the_gateway_of_the_release_that_it_makes(skaffold: dict[str, Any]) -> None:
    (release,) = skaffold["deploy"]["helm"]["releases"]
    (forward,) = skaffold["portForward"]
    assert forward["namespace"] == release["namespace"]
    service = one(template("helm", "--namespace", release["namespace"]), "Service", forward["resourceName"])
    assert [port["port"] for port in service["spec"]["ports"]] == [forward["port"]]
