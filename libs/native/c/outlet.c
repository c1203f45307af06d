/* Flows of POSTs, read and handed to librdkafka as records, without an object of Python's for each.
 *
 * A body that is spelled plainly becomes a parcel: keys and values as they go to Kafka, in one piece of memory that
 * librdkafka reads from until a record is acknowledged, for good or not. That is told by an interceptor, in threads of
 * librdkafka's; a parcel of which all is told waits on its tray until Python takes it.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "chunk.h"
#include "kafka.h"
#include "text.h"

#define MARGIN 96u /* of a record beside its names: three numbers, the rest of its JSON */
#define SHORTEST_FLOW 64u /* bytes: no flow has so few, the shortest has 78 */
#define AT_ONCE 512
#define ANY_PARTITION (-1)
#define UNKNOWN_OFFSET (-1)
#define SEAL UINT64_C(0x9d5c8f1e6b27a3d4)

typedef struct parcel parcel;

/* Before each value: whose it is. A record that Python has handed over has none. */
typedef struct {
    uint64_t seal;
    parcel *of;
    uint64_t number;
} tag;

typedef struct {
    uint32_t tag; /* where it is in the memory; the value behind it, the key behind that */
    uint32_t value_size;
    uint32_t key_size;
    bool told;
} entry;

typedef struct {
    pthread_mutex_t lock;
    parcel *first;
} tray;

struct parcel {
    tray *on;
    parcel *next;
    uint64_t count;
    uint64_t handed;
    uint64_t taken; /* by the client */
    entry *entries;
    uint8_t *memory;
    pthread_mutex_t lock; /* of what follows, and of what entries say is told */
    uint64_t left;        /* that are still to be told, and one more while records are handed over */
    int error;            /* the first that a record has met */
    bool lost;            /* the offset of one is not known */
    int32_t partitions;
    int64_t *last; /* by partition, the largest offset; -1 where there is none */
};

typedef struct {
    client *by;
    topic *to;
} outlet;

/* Bodies ------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at, *end;
} text;

static void skip_blanks(text *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\t' || *in->at == '\r')) {
        in->at++;
    }
}

static bool take(text *in, uint8_t wanted) {
    skip_blanks(in);
    if (in->at == in->end || *in->at != wanted) {
        return false;
    }
    in->at++;
    return true;
}

/* A string in plain ASCII without escapes. */
static bool take_string(text *in, const uint8_t **found, uint32_t *size) {
    if (!take(in, '"')) {
        return false;
    }
    const uint8_t *at = plain_characters(in->at, in->end);
    if (at == in->end || *at != '"') {
        return false;
    }
    *found = in->at;
    *size = (uint32_t)(at - in->at);
    in->at = at + 1;
    return true;
}

static bool take_natural(text *in, uint64_t *found) {
    skip_blanks(in);
    const uint8_t *at = natural(in->at, in->end, found);
    if (at == NULL) {
        return false;
    }
    in->at = at;
    return true; /* a fraction, an exponent or another digit is no end of a member: refused there */
}

enum { SRC_APP, DEST_APP, VPC_ID, HOUR, BYTES_TX, BYTES_RX, FIELDS };

static int field_of(const uint8_t *name, uint32_t size) {
    static const struct {
        const char *name;
        uint32_t size;
    } fields[FIELDS] = {{"src_app", 7}, {"dest_app", 8}, {"vpc_id", 6}, {"hour", 4}, {"bytes_tx", 8}, {"bytes_rx", 8}};
    for (int field = 0; field < FIELDS; field++) {
        if (fields[field].size == size && memcmp(fields[field].name, name, size) == 0) {
            return field;
        }
    }
    return -1;
}

typedef struct {
    const uint8_t *names[3];
    uint32_t sizes[3];
    uint64_t numbers[3];
} flow;

static bool take_flow(text *in, flow *found) {
    unsigned seen = 0;
    if (!take(in, '{')) {
        return false;
    }
    for (int members = 0; members < FIELDS; members++) {
        const uint8_t *name;
        uint32_t size;
        if ((members > 0 && !take(in, ',')) || !take_string(in, &name, &size) || !take(in, ':')) {
            return false;
        }
        int field = field_of(name, size);
        if (field < 0 || (seen & (1u << field)) != 0) {
            return false;
        }
        seen |= 1u << field;
        if (field < 3) {
            if (!take_string(in, &found->names[field], &found->sizes[field]) || found->sizes[field] == 0 ||
                found->sizes[field] > MAX_NAME) {
                return false;
            }
        } else if (!take_natural(in, &found->numbers[field - 3])) {
            return false;
        }
    }
    return take(in, '}');
}

static uint8_t *put_number(uint8_t *at, uint64_t number) {
    uint8_t digits[20], *end = digits + sizeof digits, *first = end;
    do {
        *--first = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    return put(at, first, (uint64_t)(end - first));
}

static void write_record(parcel *into, uint64_t number, uint64_t *used, const flow *of) {
    *used = (*used + 7) & ~UINT64_C(7);
    uint8_t *at = into->memory + *used;
    entry *each = &into->entries[number];
    each->tag = (uint32_t)*used;
    at = put(at, &(tag){SEAL, into, number}, sizeof(tag));
    uint8_t *value = at;
    at = PUT(at, "{\"bytes_tx\":");
    at = put_number(at, of->numbers[1]);
    at = PUT(at, ",\"bytes_rx\":");
    at = put_number(at, of->numbers[2]);
    at = PUT(at, "}");
    each->value_size = (uint32_t)(at - value);
    uint8_t *key = at;
    at = PUT(at, "[\"");
    at = put(at, of->names[0], of->sizes[0]);
    at = PUT(at, "\",\"");
    at = put(at, of->names[1], of->sizes[1]);
    at = PUT(at, "\",\"");
    at = put(at, of->names[2], of->sizes[2]);
    at = PUT(at, "\",");
    at = put_number(at, of->numbers[0]);
    at = PUT(at, "]");
    each->key_size = (uint32_t)(at - key);
    each->told = false;
    *used = (uint64_t)(at - into->memory);
}

API void flowagg_parcel_free(parcel *freed) {
    if (freed != NULL) {
        pthread_mutex_destroy(&freed->lock);
        free(freed->last);
        free(freed->entries);
        free(freed->memory);
        free(freed);
    }
}

/* The parcel of a body that is a JSON array of flows, spelled plainly: their six fields each, in any order, names in
 * ASCII without escapes. NULL for any other body, which is Python's to judge. */
API parcel *flowagg_parcel_of(const uint8_t *body, uint64_t size) {
    text in = {body, body + size};
    uint64_t most = 0;
    for (uint64_t place = 0; place < size; place++) {
        most += body[place] == '{';
    }
    most = most < size / SHORTEST_FLOW + 1 ? most : size / SHORTEST_FLOW + 1;
    /* Each name is in the body, too. */
    uint64_t room = size + most * (sizeof(tag) + 8 + MARGIN);
    if (room > UINT32_MAX || !take(&in, '[')) {
        return NULL;
    }
    parcel *made = must(calloc(1, sizeof *made));
    pthread_mutex_init(&made->lock, NULL);
    made->entries = malloc((most ? most : 1) * sizeof *made->entries);
    made->memory = malloc(room ? room : 1);
    if (made->entries == NULL || made->memory == NULL) {
        goto other; /* it is one request's memory, and no reason to end */
    }
    uint64_t used = 0;
    flow each;
    if (!take(&in, ']')) {
        do {
            if (made->count == most || !take_flow(&in, &each)) {
                goto other;
            }
            write_record(made, made->count++, &used, &each);
        } while (take(&in, ','));
        if (!take(&in, ']')) {
            goto other;
        }
    }
    skip_blanks(&in);
    if (in.at == in.end) {
        return made;
    }
other:
    flowagg_parcel_free(made);
    return NULL;
}

API uint64_t flowagg_parcel_count(const parcel *of) { return of->count; }

/* The record of one flow, as it goes to Kafka. */
API int flowagg_parcel_record(
    const parcel *of, uint64_t number, const uint8_t **key, uint64_t *key_size, const uint8_t **value, uint64_t *value_size) {
    if (number >= of->count) {
        return -1;
    }
    const entry *each = &of->entries[number];
    *value = of->memory + each->tag + sizeof(tag);
    *value_size = each->value_size;
    *key = *value + each->value_size;
    *key_size = each->key_size;
    return 0;
}

/* Trays -------------------------------------------------------------------------------------- */

API tray *flowagg_tray_new(void) {
    tray *made = must(calloc(1, sizeof *made));
    pthread_mutex_init(&made->lock, NULL);
    return made;
}

/* With the parcel's lock, which is let go. */
static void settle(parcel *of, uint64_t count) {
    of->left -= count;
    bool all = of->left == 0;
    pthread_mutex_unlock(&of->lock);
    if (all) {
        pthread_mutex_lock(&of->on->lock);
        of->next = of->on->first;
        of->on->first = of;
        pthread_mutex_unlock(&of->on->lock);
    }
}

/* A parcel of which all is told; NULL where there is none. It is not read by librdkafka any more. */
API parcel *flowagg_tray_take(tray *from) {
    pthread_mutex_lock(&from->lock);
    parcel *taken = from->first;
    if (taken != NULL) {
        from->first = taken->next;
    }
    pthread_mutex_unlock(&from->lock);
    return taken;
}

/* What became of a record; what is said of it first. */
static void tell(parcel *of, uint64_t number, int error, int32_t partition, int64_t offset) {
    pthread_mutex_lock(&of->lock);
    if (of->entries[number].told) {
        pthread_mutex_unlock(&of->lock);
        return;
    }
    of->entries[number].told = true;
    if (error != 0) {
        of->error = of->error != 0 ? of->error : error;
    } else if (offset < 0 || partition < 0) {
        of->lost = true;
    } else {
        if (partition >= of->partitions) { /* the topic has got more of them */
            of->last = must(realloc(of->last, ((uint64_t)partition + 1) * sizeof *of->last));
            while (of->partitions <= partition) {
                of->last[of->partitions++] = UNKNOWN_OFFSET;
            }
        }
        if (of->last[partition] < offset) {
            of->last[partition] = offset;
        }
    }
    settle(of, 1);
}

/* By partition, the offset that a record would be said to have if librdkafka counted on from one that it does not know. */
typedef struct {
    pthread_mutex_t lock;
    int32_t partitions;
    int64_t *counted_on;
} reached;

void *outlet_reached(void) {
    reached *made = must(calloc(1, sizeof *made));
    pthread_mutex_init(&made->lock, NULL);
    return made;
}

/* An offset as it was told, or UNKNOWN_OFFSET. Where the broker says of a retry that it was a repeat, and does not know any
 * more where the records are, it answers with -1, and librdkafka counts up from there, record by record: 0, 1, 2, ... would
 * be taken for their offsets, and a position be too low. */
static int64_t believed(reached *by, int32_t partition, int64_t offset) {
    if (partition < 0) {
        return UNKNOWN_OFFSET;
    }
    pthread_mutex_lock(&by->lock);
    if (partition >= by->partitions) {
        by->counted_on = must(realloc(by->counted_on, ((uint64_t)partition + 1) * sizeof *by->counted_on));
        while (by->partitions <= partition) {
            by->counted_on[by->partitions++] = INT64_MIN;
        }
    }
    bool unknown = offset < 0 || offset == by->counted_on[partition];
    by->counted_on[partition] = unknown ? offset + 1 : INT64_MIN;
    pthread_mutex_unlock(&by->lock);
    return unknown ? UNKNOWN_OFFSET : offset;
}

int outlet_acknowledged(client *by, message *acknowledged, void *opaque) {
    (void)by;
    int64_t offset = UNKNOWN_OFFSET;
    if (acknowledged->error == 0) {
        offset = believed(opaque, acknowledged->partition, acknowledged->offset);
    }
    if (acknowledged->private_ != NULL || acknowledged->payload == NULL) {
        return 0; /* of Python's: it has a report of its own */
    }
    tag found;
    memcpy(&found, (const uint8_t *)acknowledged->payload - sizeof found, sizeof found);
    if (found.seal == SEAL && found.number < found.of->count) {
        tell(found.of, found.number, acknowledged->error, acknowledged->partition, offset);
    }
    return 0;
}

/* Outlets ------------------------------------------------------------------------------------ */

/* Of the producer that this thread has made last with the plugin, to a topic; NULL where there is none. */
API outlet *flowagg_outlet_open(const char *topic_name) {
    client *by = newest_client();
    topic *to = by == NULL ? NULL : kafka.topic_new(by, topic_name, NULL);
    if (to == NULL) {
        return NULL;
    }
    outlet *made = must(calloc(1, sizeof *made));
    *made = (outlet){by, to};
    return made;
}

/* To be called before the producer is closed. */
API void flowagg_outlet_close(outlet *closed) {
    kafka.topic_destroy(closed->to);
    free(closed);
}

/* Says where the parcel goes once all is told. Before the first is handed over. */
API void flowagg_parcel_address(parcel *sent, tray *on) {
    sent->on = on;
    sent->left = sent->count + 1;
}

/* Hands up to `most` further records to the client; how many are not handed over yet. -1: the client took one no more,
 * and is asked for none behind it; error says why. */
API int64_t flowagg_parcel_hand_over(parcel *sent, outlet *by, uint64_t most) {
    message messages[AT_ONCE];
    while (most > 0 && sent->handed < sent->count) {
        uint64_t count = sent->count - sent->handed;
        count = count < most ? count : most;
        count = count < AT_ONCE ? count : AT_ONCE;
        for (uint64_t place = 0; place < count; place++) {
            const entry *each = &sent->entries[sent->handed + place];
            uint8_t *value = sent->memory + each->tag + sizeof(tag);
            messages[place] = (message){
                .payload = value,
                .size = each->value_size,
                .key = value + each->value_size,
                .key_size = each->key_size,
            };
        }
        int good = kafka.produce_batch(by->to, ANY_PARTITION, 0, messages, (int)count);
        for (uint64_t place = 0; good < (int)count && place < count; place++) {
            if (messages[place].error != 0) {
                tell(sent, sent->handed + place, messages[place].error, -1, -1);
            }
        }
        sent->handed += count;
        sent->taken += good > 0 ? (uint64_t)good : 0;
        most -= count;
        if (good < (int)count) {
            return -1;
        }
    }
    return (int64_t)(sent->count - sent->handed);
}

/* Nothing more is handed over. error: why, where that is not all. */
API void flowagg_parcel_close(parcel *sent, int error) {
    uint64_t rest = sent->count - sent->handed;
    pthread_mutex_lock(&sent->lock);
    if (rest > 0) {
        sent->error = sent->error != 0 ? sent->error : error;
        sent->handed = sent->count;
    }
    settle(sent, rest + 1);
}

typedef struct {
    uint64_t taken;
    int32_t all; /* is told */
    int32_t error;
    int32_t lost;
    int32_t partitions;
} parcel_view;

/* What has been told so far. last: gets the largest offset of each of the first `most` partitions, -1 where there is
 * none; view->partitions says how many there are. */
API void flowagg_parcel_told(parcel *of, parcel_view *view, int64_t *last, int32_t most) {
    pthread_mutex_lock(&of->lock);
    *view = (parcel_view){of->taken, of->left == 0, of->error, of->lost, of->partitions};
    for (int32_t partition = 0; partition < of->partitions && partition < most; partition++) {
        last[partition] = of->last[partition];
    }
    pthread_mutex_unlock(&of->lock);
}

API const char *flowagg_error_text(int error) { return kafka.err2str(error); }
