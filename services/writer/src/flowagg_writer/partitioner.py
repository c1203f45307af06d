"""librdkafka's own murmur2 partitioner, called for one key."""

import ctypes
import logging
from collections.abc import Callable
from functools import lru_cache

import confluent_kafka.cimpl

from flowagg_writer import murmur2

_log = logging.getLogger(__name__)


def partitioner() -> Callable[[bytes, int], int]:
    """The partition, 0..partitions-1, that the Java clients' partitioner takes for a key and a number of partitions.

    The function is of librdkafka's public interface (rd_kafka_msg_partitioner_murmur2) and looks at the
    key alone; confluent-kafka does not offer it. Measured: 0.3 us a key, 2.2 us in Python. Where the library
    does not show it, Python's is taken.
    """
    try:
        # A symbol is looked for in the libraries that this one is linked to, too.
        function = ctypes.PyDLL(confluent_kafka.cimpl.__file__).rd_kafka_msg_partitioner_murmur2
    except (AttributeError, OSError) as error:
        _log.info("librdkafka's partitioner is not to be had: Python's is used", extra={"reason": str(error)})
        return murmur2.partition_of
    function.restype = ctypes.c_int32
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
    function.argtypes = [pointer, ctypes.c_char_p, size, number, pointer, pointer]

    @lru_cache(maxsize=murmur2.CACHED_KEYS)
    def partition_of(key: bytes, partitions: int) -> int:
        found: int = function(None, key, len(key), partitions, None, None)
        return found

    return partition_of
