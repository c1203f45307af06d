"""What a caller may see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Access:
    """visible: tells by vpc_id which rows are shown, None: all of them.

    scope: names that choice; callers of one scope share tags and cached bodies, so two that may see
    different rows must have different ones.
    """

    visible: Callable[[str], bool] | None = None
    scope: str = ""


EVERYTHING: Final = Access()
