"""Redis as the operator sees it: whether there is a master that can be written to.

Every call is bounded; what goes wrong is a verdict, never an exception.
"""

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.sentinel
from flowagg.redis_client import connect
from flowagg.settings import RedisSettings

from flowagg_operator.conditions import Verdict

_NEARLY_FULL: Final = 0.9
_AUTHENTICATION: Final = ("WRONGPASS", "NOAUTH", "NOPERM", "invalid username-password", "Authentication required")


def look(settings: RedisSettings) -> Verdict:
    """A look at the master, on a connection of its own: it may have moved since the last one."""
    try:
        with connect(settings, "operator") as client:
            found = {**_info(client, "replication"), **_info(client, "memory")}
    except redis.RedisError as error:
        return _failed(settings, error)
    return judge(found, settings.redis_master_name if settings.redis_sentinels else settings.redis_url)


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    found: Any = client.info(section)
    return dict(found)


def judge(info: Mapping[str, Any], name: str) -> Verdict:
    """What its own account of itself means (INFO replication and memory). Pure."""
    if info.get("role") != "master":
        text = f"{name} is a {info.get('role')}: it cannot be written to. Name the master, or its sentinels"
        return Verdict("False", "NoMaster", text)
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used >= limit:
        text = (
            f"Redis is full: {_mib(used)} of maxmemory {_mib(limit)} are used, so nothing is applied (and nothing "
            "lost: the log keeps it). Raise maxmemory, or keep fewer hours (views[].retention.hours)"
        )
        return Verdict("False", "RedisFull", text)
    policy = info.get("maxmemory_policy", "noeviction")
    if limit and policy != "noeviction":
        text = f"maxmemory-policy is {policy}: Redis would drop totals when it is full. Set it to noeviction"
        return Verdict("False", "RedisMisconfigured", text)
    text = f"the master {name} answers, {_mib(used)} used"
    if limit:
        text += f" of {_mib(limit)}"
        if used >= _NEARLY_FULL * limit:
            text += ": it is nearly full; raise maxmemory, or keep fewer hours (views[].retention.hours)"
    return Verdict("True", "MasterReady", text)


def _failed(settings: RedisSettings, error: redis.RedisError) -> Verdict:
    text = str(error).rstrip(". ")
    if isinstance(error, redis.AuthenticationError) or any(word in text for word in _AUTHENTICATION):
        return Verdict(
            "False",
            "AuthenticationFailed",
            f"{text}: look at the Secrets of spec.redis.authSecretRef and sentinelAuthSecretRef, and at the usernames",
        )
    if isinstance(error, redis.sentinel.MasterNotFoundError):
        advice = "see that Redis and its sentinels run, and that spec.redis.sentinels and masterName name them"
        return Verdict("False", "NoMaster", f"{text}: {advice}")
    where = settings.redis_master_name if settings.redis_sentinels else settings.redis_url
    advice = "see that it runs, and that spec.redis names it"
    return Verdict("False", "Unreachable", f"Redis {where} does not answer ({text}): {advice}")


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
