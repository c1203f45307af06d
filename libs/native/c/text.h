/* Text as FlowAggregator's services spell it: what is read of it, and how it is written. */
#ifndef FLOWAGG_TEXT_H
#define FLOWAGG_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_INTEGER ((UINT64_C(1) << 53) - 1) /* flow.py */
#define MAX_NAME 256                           /* characters; flow.py */

/* Past a whole number without leading zeros, at most MAX_INTEGER; NULL where there is none. */
static inline const uint8_t *natural(const uint8_t *at, const uint8_t *end, uint64_t *number) {
    const uint8_t *first = at;
    uint64_t found = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - first < 17) {
        found = found * 10 + (uint64_t)(*at++ - '0');
    }
    if (at == first || (*first == '0' && at - first > 1) || found > MAX_INTEGER) {
        return NULL;
    }
    *number = found;
    return at;
}

/* Past characters that stand in a JSON string as they are, in plain ASCII: at its end, or at what is not plain. */
static inline const uint8_t *plain_characters(const uint8_t *at, const uint8_t *end) {
    while (at < end && *at >= 0x20 && *at <= 0x7e && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}

static inline uint8_t *put(uint8_t *at, const void *bytes, uint64_t size) {
    memcpy(at, bytes, size);
    return at + size;
}

#define PUT(at, literal) put((at), (literal), sizeof(literal) - 1)

#endif
