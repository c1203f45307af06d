"""Whether an object is as it was applied, and what others added."""

from typing import Any

import pytest
from flowagg_operator.drift import additions, applied_digest, holds, stamped


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 2}, False),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, False),
        ({"a": {}}, {}, True),
        ({"a": []}, {}, True),
        ({"a": [1]}, {"a": []}, False),
        ({"a": [{"n": 1}]}, {"a": [{"n": 1, "default": 2}]}, True),
        ({"a": [{"n": 1}]}, {"a": [{"n": 1}, {"n": 2}]}, False),
        ({"a": 1}, {"a": "1"}, True),  # a quantity
        ({"a": False}, {}, False),
        ({"a": False}, {"a": 0}, False),
        ({"a": True}, {"a": True}, True),
        ({"a": "abc"}, {"a": ["a", "b", "c"]}, False),
    ],
)
def test_what_is_there_may_hold_more_than_what_is_wanted_but_not_less(wanted: Any, found: Any, expected: bool) -> None:
    assert holds(wanted, found) is expected


def test_another_manifest_has_another_digest_whatever_the_order_of_its_keys() -> None:
    one = stamped({"metadata": {"name": "a", "labels": {"x": "1", "y": "2"}}, "spec": {"n": 1}})
    same = stamped({"spec": {"n": 1}, "metadata": {"labels": {"y": "2", "x": "1"}, "name": "a"}})
    other = stamped({"metadata": {"name": "a", "labels": {"x": "1", "y": "2"}}, "spec": {}})
    assert applied_digest(one) == applied_digest(same) != applied_digest(other) != ""
    assert applied_digest({"metadata": {}}) == ""


def managed(ours: dict[str, Any], theirs: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    them: dict[str, Any] = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": theirs}}
    if subresource:
        them["subresource"] = subresource
    us = {"manager": "flow-aggregator-operator", "operation": "Apply", "fieldsV1": {"f:spec": ours}}
    return {"metadata": {"managedFields": [us, them]}}


CONTAINERS = [{"name": "writer", "env": [{"name": "A", "value": "1"}]}]
OURS: dict[str, Any] = {
    "f:replicas": {},
    "f:template": {
        "f:spec": {
            "f:containers": {
                'k:{"name":"writer"}': {".": {}, "f:name": {}, "f:env": {'k:{"name":"A"}': {".": {}, "f:value": {}}}}
            }
        }
    },
}
WANTED = {"spec": {"replicas": 2, "template": {"spec": {"containers": CONTAINERS}}}}


@pytest.mark.parametrize(
    ("theirs", "patch"),
    [
        ({}, {}),
        ({"f:replicas": {}}, {}),  # both own it: it has our value
        ({"f:paused": {}}, {"spec": {"paused": None}}),
        ({"f:selector": {"f:app": {}}}, {"spec": {"selector": None}}),
        (
            {"f:template": {"f:spec": {"f:hostNetwork": {}, "f:nodeSelector": {"f:disk": {}}}}},
            {"spec": {"template": {"spec": {"hostNetwork": None, "nodeSelector": None}}}},
        ),
        (
            {"f:template": {"f:spec": {"f:containers": {'k:{"name":"spy"}': {".": {}, "f:image": {}}}}}},
            {"spec": {"template": {"spec": {"containers": CONTAINERS}}}},
        ),
        (
            {
                "f:template": {
                    "f:spec": {
                        "f:containers": {'k:{"name":"writer"}': {"f:env": {'k:{"name":"B"}': {".": {}, "f:value": {}}}}}
                    }
                }
            },
            {"spec": {"template": {"spec": {"containers": CONTAINERS}}}},
        ),
        (
            {"f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}},
            {},
        ),
    ],
    ids=["none", "shared", "paused", "selector", "pod", "sidecar", "variable", "restart"],
)
def test_what_others_added_to_the_spec_is_taken_away(theirs: dict[str, Any], patch: dict[str, Any]) -> None:
    assert additions(WANTED, managed(OURS, theirs)) == patch


def test_what_a_subresource_wrote_is_left() -> None:
    assert additions(WANTED, managed(OURS, {"f:replicas2": {}}, subresource="status")) == {}
