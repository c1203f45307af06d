"""ETag and If-None-Match (RFC 9110, 8.8.3 and 13.1.2)."""

import re
from collections.abc import Iterable

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def etag(tag: str) -> str:
    """The header's value: weak, since the same rows may be encoded in another way on the wire."""
    return f'W/"{tag}"'


class Held:
    """The answers that a client holds, by its If-None-Match headers; what is no tag there is passed over."""

    def __init__(self, headers: Iterable[str] = ()) -> None:
        text = ",".join(headers)
        self._any = text.strip() == "*"
        self._tags = frozenset(_TAG.findall(text))

    def holds(self, tag: str) -> bool:
        """Whether the client holds the answer of that tag, by the weak comparison; `*` is every answer."""
        return self._any or tag in self._tags
