/* Totals of one partition's flow keys: a hash table of entries, and what an open batch has changed of them.
 *
 * Open addressing over slots of 8 bytes (hash and number of the entry); an entry holds sums and key together. A record
 * costs what its two or three cache misses do, so records are looked up in blocks: all slots of a block are asked of
 * memory before the first is looked at, then all entries.
 */
#include <stdlib.h>
#include <string.h>

#include "chunk.h"
#include "text.h"

typedef unsigned __int128 u128; /* sums of 2^63 records of 2^53 bytes do not overflow it */

#define UNIT 16u /* entries are numbered in these */
#define BLOCK_UNITS_LOG 12u
#define BLOCK_UNITS (1u << BLOCK_UNITS_LOG)
#define LOOKED_UP 32u /* records in a block */
#define ALIAS UINT32_MAX

typedef struct {
    u128 bytes_tx; /* of an alias: the number of its entry */
    u128 bytes_rx;
    uint32_t batch; /* the last that touched it */
    uint32_t hour;  /* place in hours; ALIAS: another spelling of an entry's key */
    uint32_t hash;
    uint32_t key_size;
    uint8_t key[]; /* canonical, but for an alias */
} entry;

typedef struct {
    uint32_t hash;
    uint32_t entry; /* 0: empty */
} slot;

typedef struct {
    uint64_t hour;
    int64_t last_offset; /* of its records in the open batch */
    uint32_t batch;      /* the last that touched it */
    uint32_t touched;    /* entries, by the open batch */
    uint32_t missing;    /* those of them whose stored totals are to be read */
} hour;

typedef struct {
    uint32_t *items;
    uint64_t count, capacity;
} list;

typedef struct {
    uint64_t hour;
    int64_t last_offset;
    uint64_t touched;
    uint64_t missing;
    uint64_t size; /* of what pack has written for it */
} hour_view;

typedef struct {
    uint8_t *memory;
    uint64_t units, used; /* of UNIT bytes */
} block;

typedef struct {
    uint64_t seeds[2];
    uint64_t floor; /* hours below have expired */
    uint64_t entry_count;
    uint64_t entry_bytes;
    slot *slots;
    uint64_t slot_count, used_slots;
    block *blocks;
    uint64_t block_count, block_capacity;
    hour *hours;
    uint64_t hour_count, hour_capacity;
    uint32_t *hour_slots; /* place in hours + 1; 0: empty */
    uint64_t hour_slot_count;
    uint32_t batch;
    bool read_back; /* what is new may be stored already */
    list touched, missing, open_hours, order;
    uint8_t *text;
    uint64_t text_capacity;
    hour_view *views;
    uint64_t view_capacity;
} totals;

static void append(list *to, uint32_t item) {
    if (to->count == to->capacity) {
        to->capacity = to->capacity ? 2 * to->capacity : 256;
        to->items = must(realloc(to->items, to->capacity * sizeof *to->items));
    }
    to->items[to->count++] = item;
}

/* Hashes ------------------------------------------------------------------------------------- */

static inline uint64_t folded(uint64_t a, uint64_t b) {
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t word(const uint8_t *at) {
    uint64_t found;
    memcpy(&found, at, sizeof found);
    return found;
}

/* Multiply and fold, 16 bytes at a time, seeded: nobody can send keys that all fall into the same slots. */
static uint32_t hash_of(const totals *t, const uint8_t *key, uint64_t size) {
    uint64_t state = t->seeds[0] ^ size;
    uint8_t tail[16] = {0};
    const uint8_t *end = key + size;
    for (; end - key > 16; key += 16) {
        state = folded(word(key) ^ t->seeds[1], word(key + 8) ^ state);
    }
    memcpy(tail, key, (size_t)(end - key));
    state = folded(word(tail) ^ t->seeds[1], word(tail + 8) ^ state);
    state = folded(state, t->seeds[1] | 1);
    return (uint32_t)(state >> 32);
}

/* Entries ------------------------------------------------------------------------------------ */

static inline entry *entry_at(const totals *t, uint32_t number) {
    return (entry *)(t->blocks[number >> BLOCK_UNITS_LOG].memory + (uint64_t)(number & (BLOCK_UNITS - 1)) * UNIT);
}

static uint64_t units_of(uint64_t key_size) { return (sizeof(entry) + key_size + UNIT - 1) / UNIT; }

static block *add_block(totals *t, uint64_t units) {
    if (t->block_count == t->block_capacity) {
        t->block_capacity = t->block_capacity ? 2 * t->block_capacity : 16;
        t->blocks = must(realloc(t->blocks, t->block_capacity * sizeof *t->blocks));
    }
    if (t->block_count > UINT32_MAX >> BLOCK_UNITS_LOG) {
        abort(); /* 64 GiB */
    }
    block *made = &t->blocks[t->block_count++];
    *made = (block){must(aligned_alloc(UNIT, units * UNIT)), units, 0};
    if (t->block_count == 1) {
        made->used = 1; /* number 0 stands for no entry */
    }
    return made;
}

/* Room for an entry; its number. One that is larger than a block gets a block of its own, at whose start it is. */
static uint32_t new_entry(totals *t, uint64_t key_size) {
    uint64_t units = units_of(key_size);
    block *last = t->block_count ? &t->blocks[t->block_count - 1] : add_block(t, BLOCK_UNITS);
    if (last->used + units > last->units) {
        t->entry_bytes += (last->units - last->used) * UNIT; /* is left empty */
        last = add_block(t, units > BLOCK_UNITS ? units : BLOCK_UNITS);
    }
    uint32_t number = (uint32_t)((t->block_count - 1) << BLOCK_UNITS_LOG) | (uint32_t)last->used;
    last->used += units;
    t->entry_bytes += units * UNIT;
    return number;
}

static void put_slot(slot *slots, uint64_t count, slot put) {
    uint64_t at = put.hash & (count - 1);
    while (slots[at].entry != 0) {
        at = (at + 1) & (count - 1);
    }
    slots[at] = put;
}

static void add_slot(totals *t, uint32_t hash, uint32_t number) {
    if (10 * (t->used_slots + 1) > 6 * t->slot_count) {
        uint64_t count = t->slot_count ? 2 * t->slot_count : 256;
        slot *slots = must(calloc(count, sizeof *slots));
        for (uint64_t at = 0; at < t->slot_count; at++) {
            if (t->slots[at].entry != 0) {
                put_slot(slots, count, t->slots[at]);
            }
        }
        free(t->slots);
        t->slots = slots;
        t->slot_count = count;
    }
    put_slot(t->slots, t->slot_count, (slot){hash, number});
    t->used_slots++;
}

static uint32_t find(const totals *t, uint32_t hash, const uint8_t *key, uint64_t size) {
    if (t->slot_count == 0) {
        return 0;
    }
    for (uint64_t at = hash & (t->slot_count - 1); t->slots[at].entry != 0; at = (at + 1) & (t->slot_count - 1)) {
        if (t->slots[at].hash == hash) {
            const entry *found = entry_at(t, t->slots[at].entry);
            if (found->key_size == size && memcmp(found->key, key, size) == 0) {
                return t->slots[at].entry;
            }
        }
    }
    return 0;
}

/* Hours -------------------------------------------------------------------------------------- */

static uint64_t hour_slot(const totals *t, uint64_t number) {
    uint64_t at = folded(number ^ t->seeds[0], t->seeds[1] | 1) & (t->hour_slot_count - 1);
    while (t->hour_slots[at] != 0 && t->hours[t->hour_slots[at] - 1].hour != number) {
        at = (at + 1) & (t->hour_slot_count - 1);
    }
    return at;
}

static uint32_t hour_of(totals *t, uint64_t number) {
    if (2 * (t->hour_count + 1) > t->hour_slot_count) {
        t->hour_slot_count = t->hour_slot_count ? 2 * t->hour_slot_count : 64;
        free(t->hour_slots);
        t->hour_slots = must(calloc(t->hour_slot_count, sizeof *t->hour_slots));
        for (uint64_t place = 0; place < t->hour_count; place++) {
            t->hour_slots[hour_slot(t, t->hours[place].hour)] = (uint32_t)place + 1;
        }
    }
    uint64_t at = hour_slot(t, number);
    if (t->hour_slots[at] == 0) {
        if (t->hour_count == t->hour_capacity) {
            t->hour_capacity = t->hour_capacity ? 2 * t->hour_capacity : 32;
            t->hours = must(realloc(t->hours, t->hour_capacity * sizeof *t->hours));
        }
        t->hours[t->hour_count] = (hour){.hour = number};
        t->hour_slots[at] = (uint32_t)++t->hour_count;
    }
    return t->hour_slots[at] - 1;
}

/* Life --------------------------------------------------------------------------------------- */

API totals *flowagg_totals_new(uint64_t seed, uint64_t other_seed, uint64_t floor) {
    totals *made = must(calloc(1, sizeof *made));
    made->seeds[0] = seed;
    made->seeds[1] = other_seed;
    made->floor = floor;
    return made;
}

static void free_entries(totals *t) {
    for (uint64_t number = 0; number < t->block_count; number++) {
        free(t->blocks[number].memory);
    }
    free(t->blocks);
    free(t->slots);
    free(t->hours);
    free(t->hour_slots);
}

API void flowagg_totals_free(totals *freed) {
    if (freed == NULL) {
        return;
    }
    free_entries(freed);
    free(freed->touched.items);
    free(freed->missing.items);
    free(freed->open_hours.items);
    free(freed->order.items);
    free(freed->text);
    free(freed->views);
    free(freed);
}

/* Number of flow keys. */
API uint64_t flowagg_totals_count(const totals *t) { return t->entry_count; }

/* Memory of entries and slots, in bytes. */
API uint64_t flowagg_totals_bytes(const totals *t) {
    return t->entry_bytes + t->slot_count * sizeof *t->slots + t->hour_count * sizeof *t->hours;
}

/* What the open batch has touched, and how much of it is to be read first. */
API uint64_t flowagg_totals_touched(const totals *t) { return t->touched.count; }
API uint64_t flowagg_totals_missing(const totals *t) { return t->missing.count; }

/* A batch begins. read_back: entries that are new in it may have totals that are stored. */
API void flowagg_totals_open(totals *t, int read_back) {
    t->batch++;
    t->read_back = read_back != 0;
    t->touched.count = t->missing.count = t->open_hours.count = 0;
}

/* Folding ------------------------------------------------------------------------------------ */

static void touch(totals *t, entry *touched, uint32_t number) {
    if (touched->batch == t->batch) {
        return;
    }
    touched->batch = t->batch;
    append(&t->touched, number);
    hour *of = &t->hours[touched->hour];
    if (of->batch != t->batch) {
        of->batch = t->batch;
        of->touched = of->missing = 0;
        append(&t->open_hours, touched->hour);
    }
    of->touched++;
}

static void add(totals *t, uint32_t number, uint64_t bytes_tx, uint64_t bytes_rx, int64_t offset) {
    entry *to = entry_at(t, number);
    touch(t, to, number);
    to->bytes_tx += bytes_tx;
    to->bytes_rx += bytes_rx;
    t->hours[to->hour].last_offset = offset; /* they ascend */
}

static uint32_t keep_entry(totals *t, uint32_t hash, const uint8_t *key, uint64_t size, uint32_t hour_place) {
    uint32_t number = new_entry(t, size);
    entry *made = entry_at(t, number);
    memset(made, 0, sizeof *made);
    made->hash = hash;
    made->hour = hour_place;
    made->key_size = (uint32_t)size;
    memcpy(made->key, key, size);
    add_slot(t, hash, number);
    return number;
}

static uint32_t admit(totals *t, uint32_t hash, const uint8_t *key, uint64_t size, uint64_t number) {
    uint32_t made = keep_entry(t, hash, key, size, hour_of(t, number));
    t->entry_count++;
    if (t->read_back) {
        entry *new = entry_at(t, made);
        touch(t, new, made);
        t->hours[new->hour].missing++;
        append(&t->missing, made);
    }
    return made;
}

/* Whether a key is spelled as the writers spell it, in plain ASCII, and its hour; others are Python's to judge. */
static bool plain_key(const uint8_t *at, uint64_t size, uint64_t *hour_number) {
    const uint8_t *end = at + size;
    for (int name = 0; name < 3; name++) {
        if (end - at < 2 || at[0] != (name == 0 ? '[' : ',') || at[1] != '"') {
            return false;
        }
        const uint8_t *first = at += 2;
        at = plain_characters(at, end);
        if (at == end || *at != '"' || at == first || at - first > MAX_NAME) {
            return false;
        }
        at++;
    }
    if (end - at < 3 || *at++ != ',') {
        return false;
    }
    at = natural(at, end, hour_number);
    return at != NULL && end - at == 1 && *at == ']';
}

static uint32_t behind_alias(const totals *t, uint32_t number) {
    const entry *found = entry_at(t, number);
    return found->hour == ALIAS ? (uint32_t)found->bytes_tx : number;
}

/* Folds places start..stop-1, those for which counted (NULL: all) is not 0. odd: gets the places whose keys are neither
 * known nor plain, or expired; they are left out; how many. -1: a place that is none, or whose value nobody has read;
 * then nothing is folded. */
API int64_t flowagg_totals_fold(
    totals *t, const chunk *from, uint64_t start, uint64_t stop, const uint8_t *counted, uint32_t *odd) {
    if (start > stop || stop > from->count) {
        return -1;
    }
    for (uint64_t place = start; place < stop; place++) {
        if ((counted == NULL || counted[place - start]) && from->records[place].state != COUNTS) {
            return -1;
        }
    }
    int64_t odd_count = 0;
    uint32_t hashes[LOOKED_UP], numbers[LOOKED_UP];
    for (uint64_t first = start; first < stop; first += LOOKED_UP) {
        uint64_t count = stop - first < LOOKED_UP ? stop - first : LOOKED_UP;
        const record *records = &from->records[first];
        for (uint64_t each = 0; each < count; each++) {
            hashes[each] = records[each].key == NULL ? 0 : hash_of(t, records[each].key, records[each].key_size);
            if (t->slot_count != 0) {
                __builtin_prefetch(&t->slots[hashes[each] & (t->slot_count - 1)]);
            }
        }
        for (uint64_t each = 0; each < count; each++) {
            numbers[each] = 0;
            if (t->slot_count == 0) {
                continue;
            }
            uint64_t at = hashes[each] & (t->slot_count - 1);
            while (t->slots[at].entry != 0 && t->slots[at].hash != hashes[each]) {
                at = (at + 1) & (t->slot_count - 1);
            }
            numbers[each] = t->slots[at].entry;
            if (numbers[each] != 0) {
                const uint8_t *found = (const uint8_t *)entry_at(t, numbers[each]);
                __builtin_prefetch(found, 1);
                __builtin_prefetch(found + 64);
            }
        }
        for (uint64_t each = 0; each < count; each++) {
            const record *one = &records[each];
            uint64_t place = first + each, number_of_hour;
            if (counted != NULL && !counted[place - start]) {
                continue;
            }
            uint32_t number = numbers[each];
            if (one->key == NULL) {
                number = 0;
            } else if (number == 0 || entry_at(t, number)->key_size != one->key_size ||
                       memcmp(entry_at(t, number)->key, one->key, one->key_size) != 0) {
                number = find(t, hashes[each], one->key, one->key_size);
                if (number == 0 && plain_key(one->key, one->key_size, &number_of_hour) && number_of_hour >= t->floor) {
                    number = admit(t, hashes[each], one->key, one->key_size, number_of_hour);
                }
            }
            if (number == 0) {
                odd[odd_count++] = (uint32_t)place;
                continue;
            }
            add(t, behind_alias(t, number), one->bytes_tx, one->bytes_rx, from->offsets[place]);
        }
    }
    return odd_count;
}

/* Folds one place whose key Python has judged: canonical, of that hour. Places come in order, behind those of a fold. */
API int flowagg_totals_fold_as(
    totals *t, const chunk *from, uint64_t place, const uint8_t *canonical, uint64_t size, uint64_t number_of_hour) {
    if (place >= from->count || from->records[place].state != COUNTS || from->records[place].key == NULL) {
        return -1;
    }
    const record *one = &from->records[place];
    uint32_t hash = hash_of(t, canonical, size);
    uint32_t number = find(t, hash, canonical, size);
    if (number == 0) {
        number = admit(t, hash, canonical, size, number_of_hour);
    }
    if (one->key_size != size || memcmp(one->key, canonical, size) != 0) {
        uint32_t alias_hash = hash_of(t, one->key, one->key_size);
        if (find(t, alias_hash, one->key, one->key_size) == 0) {
            uint32_t alias = keep_entry(t, alias_hash, one->key, one->key_size, ALIAS);
            entry_at(t, alias)->bytes_tx = number;
        }
    }
    int64_t last = t->hours[entry_at(t, number)->hour].last_offset;
    bool later = t->hours[entry_at(t, number)->hour].batch != t->batch || from->offsets[place] > last;
    add(t, number, one->bytes_tx, one->bytes_rx, later ? from->offsets[place] : last);
    return 0;
}

/* What is read and written -------------------------------------------------------------------- */

static void reserve(totals *t, uint64_t size) {
    if (size > t->text_capacity) {
        t->text_capacity = size + size / 4;
        t->text = must(realloc(t->text, t->text_capacity));
    }
}

/* Decimal digits from the right end of a buffer; where they begin. */
static uint8_t *digits(u128 number, uint8_t *end) {
    while (number > UINT64_MAX) {
        uint64_t low = (uint64_t)(number % UINT64_C(10000000000000000000));
        number /= UINT64_C(10000000000000000000);
        for (int place = 0; place < 19; place++) {
            *--end = (uint8_t)('0' + low % 10);
            low /= 10;
        }
    }
    uint64_t left = (uint64_t)number;
    do {
        *--end = (uint8_t)('0' + left % 10);
        left /= 10;
    } while (left != 0);
    return end;
}

/* `$3\r\n`, before three bytes. */
static uint8_t *put_size(uint8_t *at, uint64_t size) {
    uint8_t text[24], *end = text + sizeof text, *first = digits(size, end);
    *at++ = '$';
    at = put(at, first, (uint64_t)(end - first));
    return put(at, "\r\n", 2);
}

#define MOST_OF_PAIR 160u /* beside the key: two numbers of up to 39 digits, sizes, line ends */

/* The key without its hour: the field of its hour's hash. */
static uint8_t *put_field(uint8_t *at, const entry *of) {
    uint64_t size = of->key_size;
    while (of->key[size - 1] != ',') {
        size--;
    }
    at = put_size(at, size);
    at = put(at, of->key, size - 1);
    return put(at, "]\r\n", 3);
}

static uint8_t *put_totals(uint8_t *at, const entry *of) {
    uint8_t text[80], *end = text + sizeof text;
    uint8_t *rx = digits(of->bytes_rx, end);
    *--rx = ' ';
    uint8_t *tx = digits(of->bytes_tx, rx);
    at = put_size(at, (uint64_t)(end - tx));
    at = put(at, tx, (uint64_t)(end - tx));
    return put(at, "\r\n", 2);
}

/* Entries of a list, hour by hour, into t->order, each hour's in the list's order. */
static void order_by_hour(totals *t, const list *from, bool missing) {
    if (t->order.capacity < from->count) {
        t->order.capacity = from->count;
        t->order.items = must(realloc(t->order.items, t->order.capacity * sizeof *t->order.items));
    }
    uint64_t *next = must(malloc((t->hour_count ? t->hour_count : 1) * sizeof *next));
    uint64_t at = 0;
    for (uint64_t place = 0; place < t->open_hours.count; place++) {
        uint32_t number = t->open_hours.items[place];
        next[number] = at;
        at += missing ? t->hours[number].missing : t->hours[number].touched;
    }
    for (uint64_t place = 0; place < from->count; place++) {
        t->order.items[next[entry_at(t, from->items[place])->hour]++] = from->items[place];
    }
    t->order.count = from->count;
    free(next);
}

/* The hours that the open batch has touched, in that order; how many. With what to write for each, as arguments of
 * Redis' protocol in one text: with missing, the fields whose totals are to be read; else fields and totals. */
API uint64_t flowagg_totals_pack(totals *t, int missing, const hour_view **views, const uint8_t **text) {
    if (t->open_hours.count > t->view_capacity) {
        t->view_capacity = 2 * t->open_hours.count;
        t->views = must(realloc(t->views, t->view_capacity * sizeof *t->views));
    }
    order_by_hour(t, missing ? &t->missing : &t->touched, missing != 0);
    uint64_t size = 0, next = 0;
    for (uint64_t place = 0; place < t->open_hours.count; place++) {
        const hour *of = &t->hours[t->open_hours.items[place]];
        hour_view *view = &t->views[place];
        *view = (hour_view){of->hour, of->last_offset, of->touched, of->missing, 0};
        uint64_t before = size;
        for (uint64_t left = missing ? view->missing : view->touched; left > 0; left--) {
            const entry *each = entry_at(t, t->order.items[next++]);
            reserve(t, size + each->key_size + MOST_OF_PAIR);
            uint8_t *at = put_field(t->text + size, each);
            if (!missing) {
                at = put_totals(at, each);
            }
            size = (uint64_t)(at - t->text);
        }
        view->size = size - before;
    }
    *views = t->views;
    *text = t->text;
    return t->open_hours.count;
}

/* Past a number of at most 38 digits, which 128 bits hold; NULL where there is none. */
static const uint8_t *stored_number(const uint8_t *at, const uint8_t *end, u128 *number) {
    const uint8_t *first = at;
    u128 found = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - first < 39) {
        found = found * 10 + (u128)(*at++ - '0');
    }
    *number = found;
    return at == first || at - first > 38 ? NULL : at;
}

/* Adds the stored totals of what is missing, in pack's order: text has a line `<tx> <rx>`, or an empty one, for each.
 * All or nothing: -1 where a line is another, or they are not as many. */
API int flowagg_totals_fill(totals *t, const uint8_t *text, uint64_t size) {
    order_by_hour(t, &t->missing, true);
    for (int adds = 0; adds < 2; adds++) {
        const uint8_t *at = text, *end = text + size;
        for (uint64_t place = 0; place < t->order.count; place++) {
            u128 bytes_tx = 0, bytes_rx = 0;
            if (place > 0 && (at == end || *at++ != '\n')) {
                return -1;
            }
            if (at != end && *at != '\n') {
                at = stored_number(at, end, &bytes_tx);
                if (at == NULL || at == end || *at++ != ' ' || (at = stored_number(at, end, &bytes_rx)) == NULL) {
                    return -1;
                }
            }
            if (adds) {
                entry *to = entry_at(t, t->order.items[place]);
                to->bytes_tx += bytes_tx;
                to->bytes_rx += bytes_rx;
            }
        }
        if (at != end) {
            return -1;
        }
    }
    t->missing.count = 0;
    for (uint64_t place = 0; place < t->open_hours.count; place++) {
        t->hours[t->open_hours.items[place]].missing = 0;
    }
    return 0;
}

/* Forgetting --------------------------------------------------------------------------------- */

/* Keeps the entries that batches from oldest_batch on have touched, of hours from the floor on. Not while one is open.
 * Other spellings go: they are judged again when they come. */
static void keep(totals *t, uint32_t oldest_batch) {
    totals old = *t;
    t->entry_count = t->entry_bytes = 0;
    t->slots = NULL, t->slot_count = t->used_slots = 0;
    t->blocks = NULL, t->block_count = t->block_capacity = 0;
    t->hours = NULL, t->hour_count = t->hour_capacity = 0;
    t->hour_slots = NULL, t->hour_slot_count = 0;
    t->touched.count = t->missing.count = t->open_hours.count = 0;
    for (uint64_t number = 0; number < old.block_count; number++) {
        block *from = &old.blocks[number];
        uint64_t unit = number == 0 ? 1 : 0;
        while (unit < from->used) {
            const entry *each = (const entry *)(from->memory + unit * UNIT);
            unit += units_of(each->key_size);
            if (each->hour != ALIAS && each->batch >= oldest_batch && old.hours[each->hour].hour >= t->floor) {
                uint32_t place = hour_of(t, old.hours[each->hour].hour);
                entry *kept = entry_at(t, keep_entry(t, each->hash, each->key, each->key_size, place));
                kept->bytes_tx = each->bytes_tx;
                kept->bytes_rx = each->bytes_rx;
                kept->batch = each->batch;
                t->entry_count++;
            }
        }
        free(from->memory); /* one after the other: both together need little more memory than one */
        from->memory = NULL;
    }
    free_entries(&old);
}

/* Hours below floor have expired. */
API void flowagg_totals_expire(totals *t, uint64_t floor) {
    t->floor = floor;
    keep(t, 0);
}

#define RANGES 4096u

/* Frees what was used least recently, down to so many bytes or less. */
API void flowagg_totals_forget(totals *t, uint64_t down_to) {
    uint32_t oldest = t->batch;
    uint64_t sizes[RANGES] = {0};
    for (uint64_t at = 0; at < t->slot_count; at++) {
        if (t->slots[at].entry != 0) {
            const entry *each = entry_at(t, t->slots[at].entry);
            if (each->hour != ALIAS && each->batch < oldest) {
                oldest = each->batch;
            }
        }
    }
    uint64_t width = ((uint64_t)t->batch - oldest) / RANGES + 1;
    for (uint64_t at = 0; at < t->slot_count; at++) {
        if (t->slots[at].entry != 0) {
            const entry *each = entry_at(t, t->slots[at].entry);
            if (each->hour != ALIAS) {
                /* with its slots: of 8 bytes, at least three tenths full */
                sizes[(each->batch - oldest) / width] += units_of(each->key_size) * UNIT + 27;
            }
        }
    }
    uint64_t kept = 0, range = RANGES;
    while (range > 0 && kept + sizes[range - 1] <= down_to) {
        kept += sizes[--range];
    }
    keep(t, range == RANGES ? t->batch + 1 : oldest + (uint32_t)(range * width));
}
