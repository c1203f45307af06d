/* Records of the log, many at a time, in memory that Python's objects do not reach. */
#ifndef FLOWAGG_CHUNK_H
#define FLOWAGG_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

/* How far a record's value has been read. */
enum { UNREAD = 0, COUNTS = 1, ODD = 2 };

typedef struct {
    const uint8_t *key; /* NULL: none */
    const uint8_t *value;
    uint32_t key_size;
    uint32_t value_size;
    uint64_t bytes_tx;
    uint64_t bytes_rx;
    uint32_t state;
} record;

/* Consecutive records of one partition and one leader epoch: places start..stop-1 of a chunk. */
typedef struct {
    int32_t partition;
    int32_t leader_epoch; /* -1: unknown */
    uint64_t start;
    uint64_t stop;
    int32_t broker; /* that the first of them came from */
} run;

/* What Kafka's client says that is no record. */
typedef struct {
    int32_t partition; /* -1: of none */
    int32_t error;
    int64_t offset;
    const char *text;
} event;

typedef struct chunk {
    uint64_t count;
    uint64_t run_count;
    uint64_t event_count;
    record *records;
    int64_t *offsets;
    int64_t *timestamps; /* NULL: the messages are asked */
    run *runs;
    event *events;
    uint64_t capacity;
    void **messages; /* of Kafka's client, in the order of the records, then of the events; NULL where there are none */
    uint64_t message_count;
    struct home *home; /* of these messages */
    uint8_t *scratch;
    uint64_t scratch_capacity;
} chunk;

/* A chunk with room. Never NULL. */
chunk *chunk_with_room(uint64_t capacity);

/* Memory, or the end of the process: nothing is half folded. */
void *must(void *memory);

#endif
