"""Redis as the operator sees it: whether there is a master that can be written to, and how far its views are.

Every call is bounded; what goes wrong is a verdict, never an exception.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.sentinel
from flowagg.redis_client import connect
from flowagg.settings import RedisSettings
from flowagg.view import DamagedView, Meta, decode_meta, meta_key, partitions_key

from flowagg_operator.conditions import Verdict
from flowagg_operator.health import RedisHealth, redis_health
from flowagg_operator.views import gaps

_NEARLY_FULL: Final = 0.9
_AUTHENTICATION: Final = ("WRONGPASS", "NOAUTH", "NOPERM", "invalid username-password", "Authentication required")


@dataclass(frozen=True, slots=True)
class ViewMetas:
    """A view as Redis has it. begun: how many partitions its list names. metas: partition -> its meta. damaged: what of
    it cannot be read, by its key; empty: nothing."""

    begun: int
    metas: Mapping[int, Meta]
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class RedisLook:
    """What a look found. views: by name, each read after the one before. None, as health: no master answered."""

    verdict: Verdict
    views: Mapping[str, ViewMetas] | None = None
    health: RedisHealth | None = None


def look(settings: RedisSettings, views: Sequence[str] = ()) -> RedisLook:
    """A look at the master, on a connection of its own: it may have moved since the last one.

    views: names, which are read in this order.
    """
    try:
        with connect(settings, "operator") as client:
            info = {**_info(client, "replication"), **_info(client, "memory")}
            found = {name: _view(client, name) for name in views}
    except redis.RedisError as error:
        return RedisLook(_failed(settings, error))
    verdict = judge(info, settings.redis_master_name if settings.redis_sentinels else settings.redis_url)
    # A replica, or a master that was replaced, shows the views as they were.
    if verdict.reason == "NoMaster":
        return RedisLook(verdict)
    return RedisLook(verdict, found, redis_health(info))


def _view(client: redis.Redis, name: str) -> ViewMetas:
    """The view's partitions and their metas. Raises RedisError."""
    listed = partitions_key(name)
    try:
        members: Any = client.smembers(listed)
    except redis.ResponseError as error:
        if not _of_another_type(error):
            raise
        return ViewMetas(0, {}, f"{listed}: {error}")
    try:
        numbers = sorted(map(int, members))
    except ValueError as error:
        return ViewMetas(len(members), {}, f"{listed} names what is no partition ({error})")
    with client.pipeline(transaction=False) as pipeline:
        for number in numbers:
            pipeline.hgetall(meta_key(name, number))
        replies = pipeline.execute(raise_on_error=False) if numbers else []
    return read_metas(name, dict(zip(numbers, replies, strict=True)))


def read_metas(name: str, replies: Mapping[int, Any]) -> ViewMetas:
    """A view by what HGETALL answered for each partition that it lists, errors among it. Raises RedisError."""
    metas: dict[int, Meta] = {}
    damaged = ""
    for number, reply in replies.items():
        key = meta_key(name, number)
        if isinstance(reply, redis.RedisError) and not _of_another_type(reply):
            raise reply
        if isinstance(reply, redis.RedisError):
            damaged = damaged or f"{key}: {reply}"
            continue
        try:
            meta = decode_meta(reply)
            if meta is not None:
                gaps(meta)
                metas[number] = meta
        except DamagedView as error:
            damaged = damaged or f"{key}: {error}"
        except ValueError as error:
            damaged = damaged or f"{key}: the ranges in lost make no sense ({error})"
    return ViewMetas(len(replies), metas, damaged)


def _of_another_type(error: redis.RedisError) -> bool:
    return isinstance(error, redis.ResponseError) and str(error).startswith("WRONGTYPE")


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
