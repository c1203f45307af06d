"""Redis clients: bounded waits and no hidden retries (a retry of our own re-reads the position first)."""

from typing import Any

from redis.backoff import NoBackoff

from flowagg.settings import RedisSettings


def client_options(settings: RedisSettings, service: str) -> dict[str, Any]:
    """Options that redis.Redis.from_url and redis.asyncio.Redis.from_url share; add `retry`."""
    return {
        "username": settings.redis_username,
        "password": settings.redis_password.get_secret_value() or None,
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "client_name": f"flowagg-{service}",
        "protocol": 2,
    }


NO_BACKOFF = NoBackoff()
