"""What somebody deletes or edits is put back."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.kube import Object
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

REPAIR_SECONDS = 60.0
DELETED = [
    ("deployment", "consumer"),
    ("deployment", "writer"),
    ("service", "writer-pods"),
    ("poddisruptionbudget", "reader"),
    ("role", "writer"),
    ("rolebinding", "reader"),
    ("serviceaccount", "consumer"),
    ("lease", "writer"),
    ("endpointslice", "writer"),
]


def test_what_is_deleted_comes_back(release: Release, load: Callable[..., Traffic]) -> None:
    before = {(kind, name): _identity(release, kind, name) for kind, name in DELETED}
    with load() as traffic:
        traffic.wait_flowing()
        for kind, name in DELETED:
            release.kube.delete(kind, f"{release.fullname}-{name}")

            def is_back(kind: str = kind, name: str = name) -> bool:
                return _identity(release, kind, name) not in {None, before[kind, name]}

            release.wait(is_back, f"a new {kind} {name}", REPAIR_SECONDS)
        release.wait_healthy()
        traffic.wait_flowing()


def test_a_deleted_service_comes_back_and_is_served(release: Release, load: Callable[..., Traffic]) -> None:
    with load() as traffic:
        traffic.wait_flowing()
        release.kube.delete("service", f"{release.fullname}-reader")
        release.wait(lambda: _identity(release, "service", "reader") is not None, "a new Service", REPAIR_SECONDS)
        release.wait_healthy()
        traffic.wait_flowing()
    assert [one for one in traffic.record.failures() if one.method == "POST"] == []


def _env(deployment: Object) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]["env"]


EDITS: dict[str, tuple[str, str, Callable[[Object], Any], list[str]]] = {
    "an env": ("deployment", "consumer", _env, ["set", "env", "deployment/{}", "FLOWAGG_REDIS_TIMEOUT_SECONDS=77"]),
    "replicas": (
        "deployment",
        "writer",
        lambda one: one["spec"]["replicas"],
        ["scale", "deployment/{}", "--replicas=3"],
    ),
    "a port": (
        "service",
        "writer",
        lambda one: [(port["name"], port["port"], port["targetPort"]) for port in one["spec"]["ports"]],
        ["patch", "service", "{}", "--type=json", '--patch=[{"op":"replace","path":"/spec/ports/0/port","value":81}]'],
    ),
    "a rule": (
        "role",
        "writer",
        lambda one: one["rules"],
        ["patch", "role", "{}", "--type=json", '--patch=[{"op":"replace","path":"/rules","value":[]}]'],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_edited_is_put_right(release: Release, name: str) -> None:
    kind, component, look, command = EDITS[name]
    full = f"{release.fullname}-{component}"
    before = look(release.kube.get(kind, full))
    release.kube.run(*(word.format(full) if "{}" in word else word for word in command))
    release.wait(lambda: look(release.kube.get(kind, full)) == before, f"{name} as before", REPAIR_SECONDS)


def _identity(release: Release, kind: str, name: str) -> str | None:
    found = release.kube.find(kind, f"{release.fullname}-{name}")
    return None if found is None else str(found["metadata"]["uid"])
