"""The reader's settings."""

from flowagg.settings import ElectionSettings, HttpSettings, KafkaSettings, RedisSettings
from pydantic import Field


class ReaderSettings(HttpSettings, KafkaSettings, RedisSettings, ElectionSettings):
    """What the reader reads from the environment."""

    fresh_wait_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Longest wait for the view to reach what a GET must reflect, in seconds.",
    )
    get_timeout_seconds: float = Field(
        15.0, ge=1, le=300, description="Longest time for a GET, in seconds; past it 503."
    )
    kafka_timeout_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Longest wait for the log's end offsets, in seconds; past it the answer is marked as not fresh.",
    )
    large_read_rows: int = Field(
        20_000,
        ge=1,
        description="Flow keys in an hour past which its read is a large one. Small reads never wait for a turn.",
    )
    max_large_reads: int = Field(
        4,
        ge=1,
        description="Large reads at a time: from Redis to rendered, and where the cache has no room for the body, "
        "to sent. Further ones wait.",
    )
    native: bool = Field(
        True,
        description="Whether the rows of an hour are sorted and written by compiled code; false: by Python, to the "
        "same bytes, with several times the CPU.",
    )
    stall_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Longest wait for a client to take the next 256 KiB of its answer, in seconds; past it the client "
        "is cut off. Less than the time for a GET, so that whoever waits for its turn outlasts it.",
    )
    body_cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Memory for rendered bodies, of all views together, in bytes; the least recently used go.",
    )
    table_cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Memory for tables of hours, by which queries are answered, of all views together, in bytes; the "
        "least recently used go. One of 200,000 flow keys takes about 8 MB.",
    )
    max_query_hours: int = Field(
        1000, ge=1, le=100_000, description="Hours that are kept among those that one query covers, at most."
    )
    max_query_rows: int = Field(
        2_000_000,
        ge=1,
        description="Flow keys in all hours that one query covers, at most. A query takes up to 50 bytes for each, as "
        "long as it is evaluated.",
    )
    max_views: int = Field(
        16,
        ge=1,
        le=1000,
        description="Views asked for by name, beside the reader's own, of which it remembers partitions and pace; the "
        "least recently read go. A view that is not remembered is read with one more round trip.",
    )
