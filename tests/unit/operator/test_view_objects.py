"""The Deployments of further views, and the Jobs that clone and remove views."""

import re
from typing import Any

import pytest
from flowagg.view import VIEW_NAME
from flowagg_cli.settings import OF_CONSUMERS, ViewSettings
from flowagg_operator.pods import Platform
from flowagg_operator.pods_look import PodClient, key_of
from flowagg_operator.resources import Address, Serving, others
from flowagg_operator.routing import Plan
from flowagg_operator.spec import Owner, Spec, View, read_spec
from flowagg_operator.view_objects import (
    consumer_name,
    is_about,
    job_names,
    job_state,
    view_budget,
    view_consumers,
    view_job,
    view_of,
)
from flowagg_operator.workloads import deployment, disruption_budget

OWNER = Owner(name="main", namespace="flows", uid="u-1")
PLATFORM = Platform(images={"writer": "w:1", "reader": "r:1", "consumer": "c:1", "cli": "f:1"}, job_seconds=900)
SOURCE: dict[str, Any] = {
    "kafka": {
        "bootstrapServers": "kafka:9092",
        "configSecretRef": {"name": "kafka-client", "key": "client.properties"},
    },
    "redis": {"url": "redis://redis:6379", "authSecretRef": {"name": "redis-auth", "key": "password"}},
    "reader": {"view": "a"},
    "consumer": {
        "replicas": 3,
        "env": [
            {"name": "FLOWAGG_BATCH_RECORDS", "value": "9"},
            {"name": "FLOWAGG_REDIS_TIMEOUT_SECONDS", "value": "4"},
        ],
        "resources": {"requests": {"cpu": "1"}},
        "nodeSelector": {"disk": "fast"},
    },
    "views": [
        {"name": "a", "retention": {"hours": 48}},
        {"name": "b", "retention": {"hours": 2160}},
        {"name": "c", "replicas": 1},
    ],
}
SPEC = read_spec(SOURCE)
ADDRESSES = {f"main-{component}": Address("s-1", ("IPv4",)) for component in ("writer", "reader")}
DIGESTS = {"writer": "", "reader": "", "consumer": ""}
A, B, C = SPEC.views


def env_of(made: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in made["spec"]["template"]["spec"]["containers"][0]["env"]}


def made(view: View) -> dict[str, Any]:
    return view_consumers(OWNER, SPEC, view, PLATFORM, "digest")


def test_each_view_has_its_own_name_retention_and_number_of_consumers() -> None:
    first = deployment(OWNER, SPEC, "consumer", PLATFORM, "digest", [])
    found = [first, made(B), made(C)]
    assert [one["metadata"]["name"] for one in found] == ["main-consumer", "main-consumer-b", "main-consumer-c"]
    assert [one["spec"]["replicas"] for one in found] == [3, 3, 1]
    assert [env_of(one)["FLOWAGG_VIEW"] for one in found] == ["a", "b", "c"]
    assert [env_of(one).get("FLOWAGG_RETENTION_HOURS") for one in found] == ["48", "2160", None]


def test_a_further_views_pods_are_made_as_the_first_ones_are() -> None:
    first, further = deployment(OWNER, SPEC, "consumer", PLATFORM, "digest", []), made(B)

    def common(one: dict[str, Any]) -> dict[str, Any]:
        pod = dict(one["spec"]["template"]["spec"])
        (container,) = pod.pop("containers")
        del pod["topologySpreadConstraints"]
        return pod | {name: value for name, value in container.items() if name != "env"}

    assert common(first) == common(further)
    assert first["spec"]["strategy"] == further["spec"]["strategy"]
    assert (
        first["spec"]["template"]["metadata"]["annotations"] == further["spec"]["template"]["metadata"]["annotations"]
    )


@pytest.mark.parametrize("one", [A, B, C])
@pytest.mark.parametrize("other", [A, B, C])
def test_no_selector_matches_the_pods_of_another_view(one: View, other: View) -> None:
    def of(view: View) -> tuple[dict[str, Any], dict[str, Any]]:
        if view is A:
            return deployment(OWNER, SPEC, "consumer", PLATFORM, "", []), disruption_budget(OWNER, "consumer")
        return made(view), view_budget(OWNER, view.name)

    labels = of(one)[0]["spec"]["template"]["metadata"]["labels"]
    for selecting in of(other):
        selector = selecting["spec"]["selector"]["matchLabels"]
        assert (selector.items() <= labels.items()) is (one is other)
    for constraint in of(other)[0]["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert (constraint["labelSelector"]["matchLabels"].items() <= labels.items()) is (one is other)


def test_the_readers_read_what_they_are_told_and_not_what_the_spec_wishes_for() -> None:
    plan = Plan(selects=True, elects=False, equipped=False)
    made = others(
        OWNER, SPEC, PLATFORM, {"writer": plan, "reader": plan}, ADDRESSES, DIGESTS, Serving("old", True, (B,))
    )
    found = {one["metadata"]["name"]: one for one in made if one["kind"] == "Deployment"}
    assert found.keys() == {"main-writer", "main-reader", "main-consumer", "main-consumer-b"}
    assert env_of(found["main-reader"])["FLOWAGG_VIEW"] == "old"
    budgets = {one["metadata"]["name"] for one in made if one["kind"] == "PodDisruptionBudget"}
    assert budgets == found.keys()


def test_consumers_of_a_view_that_is_not_whole_are_not_made() -> None:
    plan = Plan(selects=True, elects=False, equipped=False)
    made = others(OWNER, SPEC, PLATFORM, {"writer": plan, "reader": plan}, ADDRESSES, DIGESTS, Serving("old", False))
    names = {one["metadata"]["name"] for one in made if one["kind"] == "Deployment"}
    assert names == {"main-writer", "main-reader"}


def job(kind: Any = "clone", spec: Spec = SPEC) -> dict[str, Any]:
    return view_job(OWNER, spec, kind, "b", "a" if kind == "clone" else "", PLATFORM)


def test_a_job_runs_the_command_where_consumers_would_run() -> None:
    made = job()
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], container["args"]) == ("f:1", ["views", "clone", "a", "b"])
    assert (pod["restartPolicy"], pod["nodeSelector"]) == ("Never", {"disk": "fast"})
    assert made["spec"]["activeDeadlineSeconds"] == 900
    assert {mount["name"] for mount in container["volumeMounts"]} == {"kafka", "redis"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not {"ports", "readinessProbe", "livenessProbe", "startupProbe"} & container.keys()
    (again,) = job("remove")["spec"]["template"]["spec"]["containers"]
    assert again["args"] == ["views", "remove", "b", "--yes"]


def test_the_command_knows_every_setting_that_its_job_is_given() -> None:
    known = {f"FLOWAGG_{name.upper()}" for name in ViewSettings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    given = env_of(job())
    assert set(given) <= known
    assert given["FLOWAGG_REDIS_PASSWORD_FILE"] == "/etc/flowagg/redis/password"
    assert given["FLOWAGG_REDIS_TIMEOUT_SECONDS"] == "4"
    assert "FLOWAGG_BATCH_RECORDS" not in given
    assert "batch_records" in OF_CONSUMERS


def test_the_pods_of_a_job_are_no_consumers_and_tell_which_views_they_are_about() -> None:
    pod = job()["spec"]["template"]
    assert not OWNER.selector("consumer").items() <= pod["metadata"]["labels"].items()
    assert [is_about(pod, view) for view in ("a", "b", "c")] == [True, True, False]
    assert [is_about(job("remove")["spec"]["template"], view) for view in ("a", "b")] == [False, True]


def test_the_view_of_a_pod_is_known_with_and_without_a_label() -> None:
    assert view_of(made(B)["spec"]["template"]) == "b"
    assert view_of(deployment(OWNER, SPEC, "consumer", PLATFORM, "", [])["spec"]["template"]) == "a"
    assert view_of(deployment(OWNER, SPEC, "reader", PLATFORM, "", [], "old")["spec"]["template"]) == "old"
    assert view_of(deployment(OWNER, SPEC, "writer", PLATFORM, "", [])["spec"]["template"]) == ""


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], "Active"),
        ([{"type": "Complete", "status": "False"}], "Active"),
        ([{"type": "FailureTarget", "status": "True"}], "Active"),
        ([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}], "Complete"),
        ([{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}], "Failed"),
    ],
)
def test_how_far_a_job_is(conditions: list[dict[str, str]], state: str) -> None:
    assert job_state({"status": {"conditions": conditions}}) == state
    assert job_state(None) == ""
    assert job_state({}) == "Active"


def test_long_names_are_cut_to_what_a_label_holds_and_stay_apart() -> None:
    owner = Owner(name="f" * 49, namespace="n", uid="u")
    views = ["v" * 63, "v" * 62 + "w", "v" * 40, "b"]
    assert all(re.match(VIEW_NAME, view) for view in views)
    names = {name for view in views for name in (consumer_name(owner, view), *job_names(owner, view).values())}
    assert len(names) == 3 * len(views)
    assert all(len(name) <= 63 and re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


def test_what_the_pods_of_a_further_view_complain_of_is_told_apart() -> None:
    def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": f"{name} crashes"}}
        status = {"phase": "Pending", "containerStatuses": [{"state": waiting}]}
        return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status}

    of_first = deployment(OWNER, SPEC, "consumer", PLATFORM, "", [])["spec"]["template"]["metadata"]["labels"]
    of_b, of_c = (made(view)["spec"]["template"]["metadata"]["labels"] for view in (B, C))
    client = PodClient(0.1)
    found = client.look([pod("first", of_first), pod("b-1", of_b), pod("c-1", of_c), pod("c-2", of_c)])
    client.close()
    named = {key: [one.text.split(":")[0] for one in troubles] for key, troubles in found.troubles.items() if troubles}
    assert named == {"consumer": ["pod first"], key_of("b"): ["pod b-1"], key_of("c"): ["pod c-1", "pod c-2"]}
    assert all(one.lasting for one in found.troubles[key_of("c")])
