"""Every reason that the operator gives is in the reference, and the other way round."""

import re
from pathlib import Path
from typing import get_args

import flowagg_operator
from flowagg_operator.readiness import _REASONS as NOT_READY
from flowagg_operator.reasons import REASONS
from flowagg_operator.scaling_terms import WELL, Reason

SOURCES = sorted(Path(flowagg_operator.__file__).parent.glob("*.py"))
GIVEN = re.compile(r'Verdict\(\s*"(?:True|False|Unknown)",\s*(?:_REASONS\[component\] if \w+ else )?"(\w+)"')


def given() -> set[str]:
    written = {reason for path in SOURCES for reason in GIVEN.findall(path.read_text())}
    return written | set(NOT_READY.values()) | set(get_args(Reason)) - WELL


def test_every_reason_is_explained() -> None:
    explained = {reason for reasons in REASONS.values() for reason in reasons}
    assert given() - {"NotLookedYet"} == explained


def test_a_reason_is_one_word_that_the_api_server_takes() -> None:
    for reasons in REASONS.values():
        for reason, text in reasons.items():
            assert re.fullmatch("[A-Z][A-Za-z]+", reason)
            assert text.endswith(".")
