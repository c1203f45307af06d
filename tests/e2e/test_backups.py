"""The CronJob's export, made now, and its restore under another name: the restored view's totals are the ledger's."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest

from tests.e2e.kube import Kube, Object
from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

CLAIM: Final = "e2e-backups"
RESTORED: Final = "restored"
_JOB_SECONDS: Final = 180
_VALUES: Final = {
    "backup": {
        "enabled": True,
        "schedule": "0 0 1 1 *",  # never by itself within a test
        "keep": 2,
        "retries": 0,
        "destination": {"existingClaim": CLAIM},
        "resources": {"requests": {"cpu": "5m", "memory": "64Mi"}},
    }
}


@pytest.fixture
def backups(release: Release) -> Iterator[Release]:
    """The release with a CronJob that exports to a volume."""
    release.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "256Mi"}}},
        }
    )
    release.upgrade(_VALUES)
    try:
        yield release
    finally:
        release.upgrade()
        release.kube.delete("jobs", *sorted(_made(release.kube)), wait=True)
        release.kube.delete("persistentvolumeclaim", CLAIM)


def _made(kube: Kube) -> set[str]:
    return {name for name in kube.names("jobs") if name.startswith("e2e-backup-")} or {"e2e-backup-none"}


def cron_job(release: Release) -> str:
    return f"{release.fullname}-backup"


def run_job(release: Release, name: str, words: Sequence[str]) -> str:
    """A Job of the CronJob's pods with other arguments; what it printed. Raises AssertionError where it fails."""
    template = release.kube.get("cronjob", cron_job(release))["spec"]["jobTemplate"]
    spec: Object = json.loads(json.dumps(template["spec"]))
    spec["template"]["spec"]["containers"][0]["args"] = ["views", *words]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    release.kube.apply(job)
    return ended(release, name)


def ended(release: Release, name: str) -> str:
    """Wait for a Job's end; what it printed. Raises AssertionError where it fails."""

    def finished() -> bool:
        conditions = release.kube.get("job", name).get("status", {}).get("conditions", [])
        return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)

    release.wait(finished, f"job {name} has ended", _JOB_SECONDS)
    said = release.kube.run("logs", f"job/{name}")
    assert release.kube.get("job", name)["status"].get("succeeded") == 1, said
    return said


def views_of(release: Release, name: str) -> dict[str, Any]:
    """The views, by name, as a Job of that name lists them."""
    said = run_job(release, name, ["list", "--json"])
    return {row["view"]: row for row in json.loads(said)["views"]}


def test_an_export_of_the_cronjob_is_restored_under_another_name_to_the_same_totals(
    backups: Release, load: Callable[..., Traffic]
) -> None:
    release, view = backups, backups.custom_resource()["spec"]["reader"]["view"]
    with load() as traffic:
        traffic.wait_flowing()
        # As a user does it by hand, while flows come in.
        release.kube.run("create", "job", f"--from=cronjob/{cron_job(release)}", "e2e-backup-export")
        said = ended(release, "e2e-backup-export")
        assert f"exported the view {view} to /backups/{view}-" in said
        assert "from the Redis replica" in said
        traffic.watch(5)
    # Refused over a view that is there; then under a name of its own, at positions that the log has left behind.
    told = json.loads(
        run_job(
            release, "e2e-backup-import", ["import", "--from", "/backups/", "--of", view, "--as", RESTORED, "--json"]
        )
    )
    assert told["view"] == RESTORED
    assert not told["incomplete"]
    assert sum(told["tail"].values()) > 0
    before = views_of(release, "e2e-backup-list-before")
    assert before[RESTORED]["state"] == "ready"
    assert before[RESTORED]["lag"] == sum(told["tail"].values())

    views = release.custom_resource()["spec"]["views"]
    added = {"name": RESTORED, "source": "Log", "deletionPolicy": "Delete"}
    with release.patched({"views": [*views, added]}):
        release.wait_healthy()
        release.wait(_caught_up(release), "the restored view's consumers have caught up", 120, pause_seconds=2)
        with release.patched({"reader": {"view": RESTORED}}):
            release.wait_healthy()
            traffic.verify()  # every hour, to the byte, now from the restored view
        release.wait_healthy()
        traffic.verify()
    release.wait(_gone(release), "the restored view is removed with its name", 180, pause_seconds=5)


def _caught_up(release: Release) -> Callable[[], bool]:
    numbers = iter(range(1000))
    return lambda: views_of(release, f"e2e-backup-list-{next(numbers)}")[RESTORED]["lag"] == 0


def _gone(release: Release) -> Callable[[], bool]:
    numbers = iter(range(1000))
    return lambda: RESTORED not in views_of(release, f"e2e-backup-gone-{next(numbers)}")


def test_only_so_many_exports_are_kept(backups: Release) -> None:
    told = [
        json.loads(
            run_job(
                backups,
                f"e2e-backup-keep-{number}",
                ["export", "default", "--to", "/backups/", "--keep", "2", "--json"],
            )
        )
        for number in range(3)
    ]
    assert [len(one["removed"]) for one in told][-1] >= 1
    assert len({one["to"] for one in told}) == 3
