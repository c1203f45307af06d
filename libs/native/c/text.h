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

/* As natural, of which the number itself is not wanted. */
static inline const uint8_t *natural_text(const uint8_t *at, const uint8_t *end) {
    const uint8_t *first = at;
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    if (at - first > 15) {
        uint64_t number;
        return natural(first, at, &number) == at ? at : NULL;
    }
    return at == first || (*first == '0' && at - first > 1) ? NULL : at;
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* The top bits of bytes that are less than a value of at most 128. Above the first of them, others may be marked, too. */
static inline uint64_t less_than(uint64_t bytes, uint8_t value) {
    return (bytes - EACH_BYTE(value)) & ~bytes & EACH_BYTE(0x80u);
}

static inline uint64_t equal_to(uint64_t bytes, uint8_t value) { return less_than(bytes ^ EACH_BYTE(value), 1); }

/* Past characters that stand in a JSON string as they are, in plain ASCII: at its end, or at what is not plain. */
static inline const uint8_t *plain_characters(const uint8_t *at, const uint8_t *end) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (end - at >= 8) { /* the first that is not plain is the lowest one that is marked */
        uint64_t bytes;
        memcpy(&bytes, at, 8);
        uint64_t odd = (bytes & EACH_BYTE(0x80u)) | less_than(bytes, 0x20) | equal_to(bytes, '"') |
                       equal_to(bytes, '\\') | equal_to(bytes, 0x7f);
        if (odd != 0) {
            return at + __builtin_ctzll(odd) / 8;
        }
        at += 8;
    }
#endif
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
