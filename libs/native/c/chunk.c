#include "chunk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "intake.h"
#include "text.h"

void *must(void *memory) {
    if (memory == NULL) {
        fputs("flowagg: out of memory\n", stderr);
        abort();
    }
    return memory;
}

chunk *chunk_with_room(uint64_t capacity) {
    chunk *made = must(calloc(1, sizeof *made));
    uint64_t room = capacity ? capacity : 1;
    made->capacity = room;
    made->records = must(malloc(room * sizeof *made->records));
    made->offsets = must(malloc(room * sizeof *made->offsets));
    made->runs = must(malloc(room * sizeof *made->runs));
    made->events = must(malloc(room * sizeof *made->events));
    return made;
}

/* A chunk of columns. The caller keeps the bytes of text, which holds each record's key and then its value, until the
 * chunk is freed. sizes: of these two, record by record; -1 where there is none. */
API chunk *flowagg_chunk_of(
    uint64_t count, const uint8_t *text, const int64_t *sizes, const int64_t *offsets, const int64_t *timestamps) {
    chunk *made = chunk_with_room(count);
    made->timestamps = must(malloc(made->capacity * sizeof *made->timestamps));
    for (uint64_t place = 0; place < count; place++) {
        int64_t key_size = sizes[2 * place], value_size = sizes[2 * place + 1];
        record *each = &made->records[place];
        memset(each, 0, sizeof *each);
        if (key_size >= 0) {
            each->key = text;
            each->key_size = (uint32_t)key_size;
            text += key_size;
        }
        if (value_size >= 0) {
            each->value = text;
            each->value_size = (uint32_t)value_size;
            text += value_size;
        }
        made->offsets[place] = offsets[place];
        made->timestamps[place] = timestamps[place];
    }
    made->count = count;
    return made;
}

/* Gives the messages back to Kafka's client. The chunk is empty then. */
API void flowagg_chunk_release(chunk *released) {
    for (uint64_t number = 0; number < released->run_count && released->message_count > 0; number++) {
        const run *each = &released->runs[number];
        home_bring(released->home, each->broker, released->messages + each->start, each->stop - each->start);
    }
    for (uint64_t place = released->count; place < released->message_count; place++) {
        intake_release(released->messages[place]);
    }
    if (released->message_count > 0) {
        released->message_count = released->count = released->run_count = released->event_count = 0;
    }
}

API void flowagg_chunk_free(chunk *freed) {
    if (freed == NULL) {
        return;
    }
    flowagg_chunk_release(freed);
    free(freed->messages);
    free(freed->records);
    free(freed->offsets);
    free(freed->timestamps);
    free(freed->runs);
    free(freed->events);
    free(freed->scratch);
    free(freed);
}

/* Log-append times of places start..stop-1, in milliseconds. */
API int flowagg_chunk_timestamps(const chunk *from, uint64_t start, uint64_t stop, int64_t *found) {
    if (start > stop || stop > from->count) {
        return -1;
    }
    for (uint64_t place = start; place < stop; place++) {
        found[place - start] =
            from->timestamps != NULL ? from->timestamps[place] : intake_timestamp(from->messages[place]);
    }
    return 0;
}

static const uint8_t *literal(const uint8_t *at, const uint8_t *end, const char *text, size_t size) {
    return (size_t)(end - at) >= size && memcmp(at, text, size) == 0 ? at + size : NULL;
}

#define LITERAL(at, end, text) literal((at), (end), (text), sizeof(text) - 1)

/* Whether a value is exactly what writers make of byte counts without a mark. */
static bool plain_value(record *each) {
    const uint8_t *at = each->value;
    if (at == NULL) {
        return false;
    }
    const uint8_t *end = at + each->value_size;
    return (at = LITERAL(at, end, "{\"bytes_tx\":")) && (at = natural(at, end, &each->bytes_tx)) &&
           (at = LITERAL(at, end, ",\"bytes_rx\":")) && (at = natural(at, end, &each->bytes_rx)) &&
           (at = LITERAL(at, end, "}")) && at == end;
}

/* Reads the values of places start..stop-1. odd: gets the places whose values are spelled otherwise; how many. */
API int64_t flowagg_chunk_read(chunk *of, uint64_t start, uint64_t stop, uint32_t *odd) {
    if (start > stop || stop > of->count) {
        return -1;
    }
    int64_t count = 0;
    for (uint64_t place = start; place < stop; place++) {
        record *each = &of->records[place];
        if (plain_value(each)) {
            each->state = COUNTS;
        } else {
            each->state = ODD;
            odd[count++] = (uint32_t)place;
        }
    }
    return count;
}

/* The byte counts of places whose values were read elsewhere. */
API int flowagg_chunk_set(
    chunk *of, uint64_t count, const uint32_t *places, const uint64_t *bytes_tx, const uint64_t *bytes_rx) {
    for (uint64_t number = 0; number < count; number++) {
        if (places[number] >= of->count || bytes_tx[number] > MAX_INTEGER || bytes_rx[number] > MAX_INTEGER) {
            return -1;
        }
        record *each = &of->records[places[number]];
        each->bytes_tx = bytes_tx[number];
        each->bytes_rx = bytes_rx[number];
        each->state = COUNTS;
    }
    return 0;
}

/* The values of places, joined by line ends, in memory that is the chunk's until the next call; how many bytes.
 * -1 for a place that is none; -2 where one has no value. */
API int64_t flowagg_chunk_join(chunk *of, uint64_t count, const uint32_t *places, const uint8_t **text) {
    uint64_t size = 0;
    for (uint64_t number = 0; number < count; number++) {
        if (places[number] >= of->count) {
            return -1;
        }
        if (of->records[places[number]].value == NULL) {
            return -2;
        }
        size += of->records[places[number]].value_size + (uint64_t)1;
    }
    if (size > of->scratch_capacity) {
        of->scratch = must(realloc(of->scratch, size));
        of->scratch_capacity = size;
    }
    uint8_t *at = of->scratch;
    for (uint64_t number = 0; number < count; number++) {
        const record *each = &of->records[places[number]];
        memcpy(at, each->value, each->value_size);
        at += each->value_size;
        *at++ = '\n';
    }
    *text = of->scratch;
    return size ? (int64_t)size - 1 : 0;
}
