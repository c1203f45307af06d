/* The rows of an hour, sorted and written as JSON, of what Redis holds of it.
 *
 * Rows come in runs, each sorted as it comes; runs are merged two by two, and written some thousands at a time, so that
 * other work gets its turn in between: adding and writing take a millisecond or two; the last merge, and the look for
 * repeats, go through all rows in one call. Numbers are copied as they are spelled. What is not spelled plainly, or stands there twice, is Python's to judge.
 */
#include <stdlib.h>
#include <string.h>

#include "chunk.h"
#include "text.h"

#define APART '\1' /* between names: below whatever they hold, so that rows sort as their names do, one after the other */

typedef struct {
    uint64_t beginning; /* of the names, eight bytes, as a number that sorts as they do */
    uint32_t at;        /* of the names in the text; their sizes follow from what stands between them */
    uint32_t names_size;
    uint32_t numbers_size; /* behind the names: `<bytes_tx> <bytes_rx>` */
} row;

typedef struct {
    uint64_t start, count;
} span;

typedef struct {
    uint8_t *text;
    uint64_t text_size, text_capacity;
    row *rows, *spare;
    uint64_t count, capacity;
    span *runs;
    uint64_t run_count, run_capacity;
    uint8_t *body;
    uint64_t body_capacity;
    uint64_t written; /* rows */
} rows;

API rows *flowagg_rows_new(void) { return must(calloc(1, sizeof(rows))); }

API void flowagg_rows_free(rows *freed) {
    if (freed != NULL) {
        free(freed->text);
        free(freed->rows);
        free(freed->spare);
        free(freed->runs);
        free(freed->body);
        free(freed);
    }
}

static int compared(const rows *of, const row *one, const row *other) {
    if (one->beginning != other->beginning) {
        return one->beginning < other->beginning ? -1 : 1;
    }
    uint32_t size = one->names_size < other->names_size ? one->names_size : other->names_size;
    int found = memcmp(of->text + one->at, of->text + other->at, size);
    return found != 0 ? found : (one->names_size > other->names_size) - (one->names_size < other->names_size);
}

/* Merges two runs that lie side by side, from `from` into `to`. */
static void merge(const rows *of, const row *from, row *to, uint64_t start, uint64_t middle, uint64_t end) {
    uint64_t left = start, right = middle, at = start;
    while (left < middle && right < end) {
        to[at++] = compared(of, &from[right], &from[left]) < 0 ? from[right++] : from[left++];
    }
    memcpy(to + at, from + left, (middle - left) * sizeof *to);
    at += middle - left;
    memcpy(to + at, from + right, (end - right) * sizeof *to);
}

static uint64_t least(uint64_t one, uint64_t other) { return one < other ? one : other; }

static void sort_run(rows *of, uint64_t start, uint64_t end) {
    row *from = of->rows, *to = of->spare;
    for (uint64_t width = 1; width < end - start; width *= 2) {
        for (uint64_t at = start; at < end; at += 2 * width) {
            merge(of, from, to, at, least(at + width, end), least(at + 2 * width, end));
        }
        row *merged = to;
        to = from;
        from = merged;
    }
    if (from != of->rows) {
        memcpy(of->rows + start, from + start, (end - start) * sizeof *from);
    }
}

static uint64_t beginning_of(const uint8_t *names, uint64_t size) {
    uint64_t found = 0;
    for (uint64_t place = 0; place < 8; place++) {
        found = found << 8 | (place < size ? names[place] : 0);
    }
    return found;
}

/* Past `["foo","bar","vpc-0"]`, whose names are copied; NULL where it is not that, in plain ASCII without escapes. */
static const uint8_t *take_field(const uint8_t *at, const uint8_t *end, uint8_t *names, uint64_t *size) {
    uint8_t *to = names;
    for (int name = 0; name < 3; name++) {
        if (end - at < 2 || at[0] != (name == 0 ? '[' : ',') || at[1] != '"') {
            return NULL;
        }
        at += 2;
        if (name > 0) {
            *to++ = APART;
        }
        while (at < end && *at >= 0x20 && *at <= 0x7e && *at != '"' && *at != '\\') {
            *to++ = *at++;
        }
        if (at == end || *at++ != '"') {
            return NULL;
        }
    }
    *size = (uint64_t)(to - names);
    return at < end && *at == ']' ? at + 1 : NULL;
}

/* Past `100 300`, numbers as they are written; NULL where it is not that. */
static const uint8_t *take_numbers(const uint8_t *at, const uint8_t *end) {
    for (int number = 0; number < 2; number++) {
        if (number > 0 && (at == end || *at++ != ' ')) {
            return NULL;
        }
        const uint8_t *first = at;
        while (at < end && *at >= '0' && *at <= '9') {
            at++;
        }
        if (at == first || (*first == '0' && at - first > 1)) {
            return NULL;
        }
    }
    return at;
}

/* Adds a run: lines of field, totals, field, totals, ..., `count` of both together. 0; or -1, with nothing added, where one
 * is not plain. */
API int flowagg_rows_add(rows *to, const uint8_t *lines, uint64_t size, uint64_t count) {
    if (count == 0 || count % 2 != 0 || to->text_size + size > UINT32_MAX) {
        return -1;
    }
    if (to->text_size + size > to->text_capacity) {
        to->text_capacity = 2 * (to->text_size + size);
        to->text = must(realloc(to->text, to->text_capacity));
    }
    if (to->count + count / 2 > to->capacity) {
        to->capacity = 2 * (to->count + count / 2);
        to->rows = must(realloc(to->rows, to->capacity * sizeof *to->rows));
        to->spare = must(realloc(to->spare, to->capacity * sizeof *to->spare));
    }
    const uint8_t *at = lines, *end = lines + size;
    uint64_t used = to->text_size, place = to->count;
    for (uint64_t left = count / 2; left > 0; left--) {
        uint64_t names_size;
        uint8_t *names = to->text + used;
        if ((at = take_field(at, end, names, &names_size)) == NULL || at == end || *at++ != '\n') {
            return -1;
        }
        const uint8_t *numbers = at;
        if ((at = take_numbers(at, end)) == NULL || (left > 1 && (at == end || *at++ != '\n'))) {
            return -1;
        }
        uint64_t numbers_size = (uint64_t)(at - numbers) - (left > 1);
        memcpy(names + names_size, numbers, numbers_size);
        to->rows[place++] =
            (row){beginning_of(names, names_size), (uint32_t)used, (uint32_t)names_size, (uint32_t)numbers_size};
        used += names_size + numbers_size;
    }
    if (at != end) {
        return -1;
    }
    if (to->run_count == to->run_capacity) {
        to->run_capacity = to->run_capacity ? 2 * to->run_capacity : 64;
        to->runs = must(realloc(to->runs, to->run_capacity * sizeof *to->runs));
    }
    sort_run(to, to->count, place);
    to->runs[to->run_count++] = (span){to->count, place - to->count};
    to->text_size = used;
    to->count = place;
    return 0;
}

/* Merges two runs that lie side by side, the smallest pair; how many runs are left. */
API uint64_t flowagg_rows_merge(rows *of) {
    if (of->run_count < 2) {
        return of->run_count;
    }
    uint64_t best = 0;
    for (uint64_t run = 1; run + 1 < of->run_count; run++) {
        if (of->runs[run].count + of->runs[run + 1].count < of->runs[best].count + of->runs[best + 1].count) {
            best = run;
        }
    }
    span *left = &of->runs[best], *right = left + 1;
    uint64_t end = right->start + right->count;
    merge(of, of->rows, of->spare, left->start, right->start, end);
    memcpy(of->rows + left->start, of->spare + left->start, (end - left->start) * sizeof *of->rows);
    left->count = end - left->start;
    memmove(right, right + 1, (of->run_count - best - 2) * sizeof *right);
    return --of->run_count;
}

/* Whether a flow key stands there twice, once the rows are one run. */
API int flowagg_rows_repeat(const rows *of) {
    for (uint64_t place = 1; place < of->count; place++) {
        if (compared(of, &of->rows[place - 1], &of->rows[place]) == 0) {
            return 1;
        }
    }
    return 0;
}

#define MARGIN 128u /* of a row beside its names and numbers; the hour apart */

/* The next rows as JSON, up to `most`, in memory that is theirs until the next call: `[{...},...`, later `,{...}`, and a
 * `]` behind the last. hour: its digits. How many bytes; 0 where none are left. */
API uint64_t flowagg_rows_write(rows *of, const char *hour, uint64_t most, const uint8_t **body) {
    uint64_t hour_size = strlen(hour), last = least(of->count, of->written + most), size = 2;
    for (uint64_t place = of->written; place < last; place++) {
        size += of->rows[place].names_size + of->rows[place].numbers_size + hour_size + MARGIN;
    }
    if (size > of->body_capacity) {
        free(of->body);
        of->body = must(malloc(size));
        of->body_capacity = size;
    }
    uint8_t *at = of->body;
    for (; of->written < last; of->written++) {
        const row *each = &of->rows[of->written];
        const uint8_t *names = of->text + each->at, *numbers = names + each->names_size;
        const uint8_t *dest = memchr(names, APART, each->names_size);
        const uint8_t *vpc = memchr(dest + 1, APART, (uint64_t)(numbers - dest - 1));
        const uint8_t *rx = memchr(numbers, ' ', each->numbers_size);
        at = put(at, of->written == 0 ? "[" : ",", 1);
        at = PUT(at, "{\"src_app\":\"");
        at = put(at, names, (uint64_t)(dest - names));
        at = PUT(at, "\",\"dest_app\":\"");
        at = put(at, dest + 1, (uint64_t)(vpc - dest - 1));
        at = PUT(at, "\",\"vpc_id\":\"");
        at = put(at, vpc + 1, (uint64_t)(numbers - vpc - 1));
        at = PUT(at, "\",\"hour\":");
        at = put(at, hour, hour_size);
        at = PUT(at, ",\"bytes_tx\":");
        at = put(at, numbers, (uint64_t)(rx - numbers));
        at = PUT(at, ",\"bytes_rx\":");
        at = put(at, rx + 1, each->numbers_size - (uint64_t)(rx - numbers) - 1);
        at = PUT(at, "}");
        if (of->written + 1 == of->count) {
            at = PUT(at, "]");
        }
    }
    *body = of->body;
    return (uint64_t)(at - of->body);
}
