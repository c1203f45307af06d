"""Kafka's murmur2: which partition a key belongs to.

Equal to `org.apache.kafka.common.utils.Utils.murmur2` and the Java clients' default partitioner
(librdkafka's `murmur2`), whichever client asks.
"""

import struct
from functools import lru_cache
from typing import Final

CACHED_KEYS: Final = 16_384
"""Flow keys whose hash is kept: some 4 MB, 55 MB if all of them are as long as a flow key may be."""

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


@lru_cache(maxsize=CACHED_KEYS)
def murmur2(data: bytes) -> int:
    """The hash of a key as Java has it: a signed 32-bit integer."""
    h = (_SEED ^ len(data)) & _MASK
    words = len(data) // 4
    for word in struct.unpack_from(f"<{words}I", data):
        k = word * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    tail = data[4 * words :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - (h >> 31 << 32)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, 0..partitions-1, that the Java clients' partitioner takes for a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
