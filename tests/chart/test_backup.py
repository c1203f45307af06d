"""The CronJob of exports: the command that it runs, and that it reaches Kafka and Redis as the operator's pods do."""

from typing import Any

import pytest
from flowagg_operator.pods import Platform, job_environment
from flowagg_operator.spec import owner_of, read_spec
from flowagg_operator.workloads import deployment

from tests.chart.charts import HelmRefused, Pod, objects, one, pods, render, template

NAMES = {"production": "flow-aggregator", "external": "flows"}
BUNDLED = ["--set", "backup.enabled=true,backup.destination.existingClaim=backups"]


def backup(text: str) -> Pod:
    (pod,) = (pod for pod in pods(text) if pod.owner.startswith("CronJob/"))
    return pod


def variables(pod: Pod) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in pod.spec["containers"][0]["env"]}


def custom_resource(text: str) -> dict[str, Any]:
    (found,) = (found for found in objects(text) if found["kind"] == "FlowAggregator")
    found["metadata"]["uid"] = "0"
    return found


def texts() -> list[str]:
    own = ["--set", "redis.enabled=false,redis.external.url=rediss://redis.example.com:6380/0",
           "--set", "redis.external.tls.verifyHostname=false,redis.external.sentinelUsername=someone"]  # fmt: skip
    return [render("production"), render("external"), template("helm", *BUNDLED), template("helm", *BUNDLED, *own)]


@pytest.mark.parametrize("place", range(4), ids=["production", "external", "bundled", "one redis"])
def test_it_has_the_connections_that_the_operator_gives_to_jobs(place: int) -> None:
    text = texts()[place]
    spec = read_spec(custom_resource(text)["spec"])
    found = variables(backup(text))
    expected = {one_["name"]: one_["value"] for one_ in job_environment(spec)}
    assert {name: found.get(name) for name in expected} == expected
    assert found.keys() - expected.keys() <= {"FLOWAGG_VIEW", "AWS_REGION"}


@pytest.mark.parametrize("place", range(4), ids=["production", "external", "bundled", "one redis"])
def test_it_has_the_secrets_that_the_operator_mounts_into_consumers(place: int) -> None:
    text = texts()[place]
    resource = custom_resource(text)
    platform = Platform(images={"consumer": "consumer"})
    made = deployment(owner_of(resource), read_spec(resource["spec"]), "consumer", platform, "", [])
    template_ = made["spec"]["template"]["spec"]
    pod = backup(text)
    own = {"tmp", "backups"}

    def by_name(found: list[dict[str, Any]]) -> dict[str, Any]:
        return {volume["name"]: volume for volume in found if volume["name"] not in own}

    assert by_name(pod.spec["volumes"]) == by_name(template_["volumes"])
    mounts = pod.spec["containers"][0]["volumeMounts"]
    assert by_name(mounts) == by_name(template_["containers"][0]["volumeMounts"])


def test_it_exports_to_the_volume_or_to_the_store() -> None:
    pod = backup(render("external"))
    assert pod.spec["containers"][0]["args"] == [
        "views", "export", "default", "--to", "/backups/", "--keep", "48", "--source", "replica",
    ]  # fmt: skip
    assert {"name": "backups", "persistentVolumeClaim": {"claimName": "flow-backups"}} in pod.spec["volumes"]
    pod = backup(render("production"))
    assert pod.spec["containers"][0]["args"] == [
        "views", "export", "default", "--to", "s3://flows/backups/", "--endpoint", "https://s3.example.com",
        "--keep", "96", "--source", "auto", "--rate", "200000",
    ]  # fmt: skip
    assert pod.spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "backup-keys"}}]
    assert "backups" not in {volume["name"] for volume in pod.spec["volumes"]}


def test_all_exports_are_kept_where_keep_is_0_and_another_view_is_taken_where_it_is_named() -> None:
    more = [
        "--set",
        "backup.keep=0,backup.view=b",
        "--set-json",
        'flowAggregator.views=[{"name":"default"},{"name":"b"}]',
    ]
    words = backup(template("helm", *BUNDLED, *more)).spec["containers"][0]["args"]
    assert words == ["views", "export", "b", "--to", "/backups/", "--source", "auto"]


def test_it_is_not_there_unless_it_is_asked_for() -> None:
    assert [found for found in objects(render("default")) if found["kind"] == "CronJob"] == []


def test_it_may_have_a_service_account_of_a_cloud() -> None:
    pod = backup(template("helm", *BUNDLED, "--set", "backup.serviceAccountName=writes"))
    assert (pod.spec["serviceAccountName"], pod.spec["automountServiceAccountToken"]) == ("writes", False)


@pytest.mark.parametrize("name", NAMES)
def test_one_export_does_not_run_into_the_next(name: str) -> None:
    spec = one(render(name), "CronJob", f"{NAMES[name]}-backup")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 3600
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ("backup.enabled=true", "exactly one"),
        ("backup.enabled=true,backup.destination.existingClaim=a,backup.destination.url=s3://b", "exactly one"),
        ("backup.enabled=true,backup.destination.existingClaim=a,backup.destination.endpoint=http://b", "s3://"),
        ("backup.enabled=true,backup.destination.existingClaim=a,backup.view=other", "backup.view"),
        ("backup.destination.url=ftp://host/", "url"),
        ("backup.schedule=often", "schedule"),
    ],
)
def test_what_cannot_be_is_refused(values: str, text: str) -> None:
    with pytest.raises(HelmRefused, match=text):
        template("helm", "--set", values)
