"""murmur2 is Kafka's, bit for bit."""

import pytest
from flowagg_writer.murmur2 import CACHED_KEYS, murmur2, partition_of
from flowagg_writer.partitioner import partitioner


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_own_tests(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected


@pytest.mark.parametrize("partitions", [1, 6, 7, 1000])
def test_a_negative_hash_loses_its_sign_bit_as_in_java(partitions: int) -> None:
    assert partition_of(b"21", partitions) == (-973932308 & 0x7FFFFFFF) % partitions
    assert partition_of(b"abc", partitions) == 479470107 % partitions


def test_the_memory_of_hashes_is_bounded() -> None:
    for number in range(CACHED_KEYS + 10):
        murmur2(b"%d" % number)
    assert murmur2.cache_info().currsize == CACHED_KEYS


@pytest.mark.parametrize("partitions", [1, 6, 7, 1000])
def test_librdkafkas_partitioner_is_the_same(partitions: int) -> None:
    theirs = partitioner()
    assert theirs is not partition_of, "librdkafka's is used where it is to be had"
    for number in range(2000):
        key = f'["app-{number}","é{number % 7}","vpc",{number * number}]'.encode()
        assert theirs(key, partitions) == partition_of(key, partitions)
