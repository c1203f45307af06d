"""A FlowAggregator that cannot work is refused by the API server, with a message that says why."""

import re

import pytest

from tests.e2e.kube import KubectlFailed, Object
from tests.e2e.release import Release

BAD: dict[str, tuple[Object, str]] = {
    "an unknown mode": ({"writer": {"mode": "ActiveSomehow"}}, "ActivePassive"),
    "no brokers": ({"kafka": {"bootstrapServers": ""}}, "bootstrapServers"),
    "another topic": ({"kafka": {"topic": {"name": "others"}}}, "topic"),
    "both ways to Redis": ({"redis": {"url": "redis://elsewhere:6379/0"}}, "url"),
    "other keyed partitions": ({"kafka": {"topic": {"keyedPartitions": 5}}}, "keyedPartitions"),
    "fewer replicas than none": ({"consumer": {"replicas": -1}}, "replicas"),
    "no view": ({"views": []}, "views"),
    "an env that is no setting": ({"writer": {"env": [{"name": "PATH", "value": "/"}]}}, "FLOWAGG_"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_change_is_refused(release: Release, name: str) -> None:
    patch, said = BAD[name]
    before = release.custom_resource()["metadata"]["generation"]
    with pytest.raises(KubectlFailed) as refusal:
        release.patch(patch)
    print(refusal.value)
    assert re.search(said, str(refusal.value))
    assert release.custom_resource()["metadata"]["generation"] == before
