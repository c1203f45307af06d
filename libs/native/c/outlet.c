/* Flows of POSTs, read and handed to librdkafka as records, without an object of Python's for each.
 *
 * A body that is spelled plainly becomes a parcel: keys and values as they go to Kafka, in one piece of memory that
 * librdkafka reads from until a record is acknowledged, for good or not. That is told by an interceptor, in threads of
 * librdkafka's; a parcel of which all is told waits on its tray until Python takes it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chunk.h"
#include "kafka.h"
#include "text.h"

#define MARGIN 96u /* of a record beside its names: three numbers, the rest of its JSON */
#define PIECE 16u  /* bytes: what is no longer is copied as so many, for less */
#define SHORTEST_FLOW 64u /* bytes: no flow has so few, the shortest has 78 */
#define AT_ONCE 512
#define ANY_PARTITION (-1)
#define UNKNOWN_PARTITION (-190) /* rd_kafka_resp_err_t */
#define UNKNOWN_OFFSET (-1)
#define TOKEN_BYTES 2048u
#define LONGEST_PLACE 33u /* bytes of a token for a partition: "2147483647":9223372036854775807, */
#define SEAL UINT64_C(0x9d5c8f1e6b27a3d4)

typedef struct parcel parcel;

/* Before each value: whose it is. A record that Python has handed over has none. */
typedef struct {
    uint64_t seal;
    parcel *of;
    atomic_bool told; /* what became of it: here, in the line of memory that is read for it anyway */
} tag;

typedef struct {
    uint32_t tag; /* where it is in the memory; the value behind it, the key behind that */
    uint32_t value_size;
    uint32_t key_size;
    int32_t partition; /* or ANY_PARTITION */
} entry;

typedef struct {
    pthread_mutex_t lock;
    parcel *first;
    int bell; /* is written to when something comes to lie here; -1: none */
} tray;

struct parcel {
    tray *on;
    parcel *next;
    uint64_t count;
    uint64_t handed;
    uint64_t taken; /* by the client */
    entry *entries;
    uint32_t *order; /* in which they are handed over: partition by partition; NULL: as they are */
    uint8_t *memory;
    /* What is told, by any thread: */
    atomic_uint_fast64_t left; /* that are still to be told, and one more while records are handed over */
    atomic_int error;          /* the first that a record has met */
    atomic_bool lost;          /* the offset of one is not known */
    int32_t partitions;        /* that were known when it was handed over */
    _Atomic int64_t *last;     /* by partition, the largest offset; -1 where there is none */
    pthread_mutex_t lock;      /* of the partitions that the topic has got since: */
    int32_t more_partitions;
    int64_t *more_last;
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

enum { SRC_APP, DEST_APP, VPC_ID, HOUR, BYTES_TX, BYTES_RX, FIELDS };

#define IS(literal) ((size_t)(in->end - in->at) >= sizeof(literal) - 1 && memcmp(in->at, (literal), sizeof(literal) - 1) == 0)
#define NAMED(literal, field) (IS(literal "\"") ? (in->at += sizeof(literal), (field)) : -1)

/* A member's name; -1 where it is none of a flow's. */
static int take_field(text *in) {
    if (!take(in, '"') || in->at == in->end) {
        return -1;
    }
    switch (*in->at) {
    case 's':
        return NAMED("src_app", SRC_APP);
    case 'd':
        return NAMED("dest_app", DEST_APP);
    case 'v':
        return NAMED("vpc_id", VPC_ID);
    case 'h':
        return NAMED("hour", HOUR);
    case 'b':
        return IS("bytes_t") ? NAMED("bytes_tx", BYTES_TX) : NAMED("bytes_rx", BYTES_RX);
    default:
        return -1;
    }
}

/* As they stand in the body: names without quotes, and numbers, which are spelled in the same way everywhere. */
typedef struct {
    const uint8_t *texts[FIELDS];
    uint32_t sizes[FIELDS];
} flow;

static bool take_flow(text *in, flow *found) {
    unsigned seen = 0;
    if (!take(in, '{')) {
        return false;
    }
    for (int members = 0; members < FIELDS; members++) {
        if (members > 0 && !take(in, ',')) {
            return false;
        }
        int field = take_field(in);
        if (field < 0 || (seen & (1u << field)) != 0 || !take(in, ':')) {
            return false;
        }
        seen |= 1u << field;
        const uint8_t **at = &found->texts[field];
        uint32_t *size = &found->sizes[field];
        if (field < HOUR) {
            if (!take_string(in, at, size) || *size == 0 || *size > MAX_NAME) {
                return false;
            }
        } else {
            skip_blanks(in);
            const uint8_t *end = natural_text(in->at, in->end);
            if (end == NULL) {
                return false;
            }
            *at = in->at;
            *size = (uint32_t)(end - in->at);
            in->at = end; /* a fraction, an exponent or another digit is no end of a member: refused there */
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

/* A field of the flow. end: of the body, which is not read behind it; the memory has room for a piece behind all. */
static inline uint8_t *put_field(uint8_t *at, const flow *of, int field, const uint8_t *end) {
    const uint8_t *bytes = of->texts[field];
    uint64_t size = of->sizes[field];
    if (size <= PIECE && (uint64_t)(end - bytes) >= PIECE) {
        memcpy(at, bytes, PIECE);
        return at + size;
    }
    return put(at, bytes, size);
}

static void write_record(parcel *into, uint64_t number, uint64_t *used, const flow *of, const uint8_t *end) {
    *used = (*used + 7) & ~UINT64_C(7);
    uint8_t *at = into->memory + *used;
    entry *each = &into->entries[number];
    each->tag = (uint32_t)*used;
    at = put(at, &(tag){SEAL, into, false}, sizeof(tag));
    uint8_t *value = at;
    at = PUT(at, "{\"bytes_tx\":");
    at = put_field(at, of, BYTES_TX, end);
    at = PUT(at, ",\"bytes_rx\":");
    at = put_field(at, of, BYTES_RX, end);
    at = PUT(at, "}");
    each->value_size = (uint32_t)(at - value);
    uint8_t *key = at;
    at = PUT(at, "[\"");
    at = put_field(at, of, SRC_APP, end);
    at = PUT(at, "\",\"");
    at = put_field(at, of, DEST_APP, end);
    at = PUT(at, "\",\"");
    at = put_field(at, of, VPC_ID, end);
    at = PUT(at, "\",");
    at = put_field(at, of, HOUR, end);
    at = PUT(at, "]");
    each->key_size = (uint32_t)(at - key);
    each->partition = ANY_PARTITION;
    *used = (uint64_t)(at - into->memory);
}

API void flowagg_parcel_free(parcel *freed) {
    if (freed != NULL) {
        pthread_mutex_destroy(&freed->lock);
        free((void *)freed->last);
        free(freed->more_last);
        free(freed->order);
        free(freed->entries);
        free(freed->memory);
        free(freed);
    }
}

/* The parcel of a body that is a JSON array of flows, spelled plainly: their six fields each, in any order, names in
 * ASCII without escapes. NULL for any other body, which is Python's to judge. count: gets the number of flows. */
API parcel *flowagg_parcel_of(const uint8_t *body, uint64_t size, uint64_t *count) {
    text in = {body, body + size};
    uint64_t most = 0;
    for (uint64_t place = 0; place < size; place++) {
        most += body[place] == '{';
    }
    most = most < size / SHORTEST_FLOW + 1 ? most : size / SHORTEST_FLOW + 1;
    /* Each name is in the body, too. */
    uint64_t room = size + most * (sizeof(tag) + 8 + MARGIN) + PIECE;
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
            write_record(made, made->count++, &used, &each, in.end);
        } while (take(&in, ','));
        if (!take(&in, ']')) {
            goto other;
        }
    }
    skip_blanks(&in);
    if (in.at == in.end) {
        *count = made->count;
        return made;
    }
other:
    flowagg_parcel_free(made);
    return NULL;
}

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
    made->bell = -1;
    return made;
}

/* bell: an eventfd, or the end of a pipe, that never blocks; -1: none any more. */
API void flowagg_tray_ring(tray *on, int bell) {
    pthread_mutex_lock(&on->lock);
    on->bell = bell;
    pthread_mutex_unlock(&on->lock);
}

static void settle(parcel *of, uint64_t count) {
    tray *on = of->on; /* once all is told, it may be gone at once */
    if (atomic_fetch_sub_explicit(&of->left, count, memory_order_acq_rel) == count) {
        pthread_mutex_lock(&on->lock);
        of->next = on->first;
        on->first = of;
        if (of->next == NULL && on->bell >= 0) {
            uint64_t one = 1;
            /* It fails where it has rung so often already that there is no room. */
            ssize_t rung = write(on->bell, &one, sizeof one);
            (void)rung;
        }
        pthread_mutex_unlock(&on->lock);
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

static void fail(parcel *of, int error) {
    int none = 0;
    atomic_compare_exchange_strong(&of->error, &none, error);
}

/* The topic has got more partitions than were known. */
static void reach_more(parcel *of, int32_t partition, int64_t offset) {
    int32_t place = partition - of->partitions;
    pthread_mutex_lock(&of->lock);
    if (place >= of->more_partitions) {
        of->more_last = must(realloc(of->more_last, ((uint64_t)place + 1) * sizeof *of->more_last));
        while (of->more_partitions <= place) {
            of->more_last[of->more_partitions++] = UNKNOWN_OFFSET;
        }
    }
    if (of->more_last[place] < offset) {
        of->more_last[place] = offset;
    }
    pthread_mutex_unlock(&of->lock);
}

/* What became of a record; what is said of it first. By any thread. */
static void tell(tag *on, int error, int32_t partition, int64_t offset) {
    parcel *of = on->of;
    if (atomic_exchange_explicit(&on->told, true, memory_order_relaxed)) {
        return;
    }
    if (error != 0) {
        fail(of, error);
    } else if (offset < 0 || partition < 0) {
        atomic_store_explicit(&of->lost, true, memory_order_relaxed);
    } else if (partition >= of->partitions) {
        reach_more(of, partition, offset);
    } else {
        int64_t before = atomic_load_explicit(&of->last[partition], memory_order_relaxed);
        while (before < offset && !atomic_compare_exchange_weak_explicit(
                                      &of->last[partition], &before, offset, memory_order_relaxed, memory_order_relaxed)) {
        }
    }
    settle(of, 1);
}

/* What this thread was told last, where that was no offset: the one that librdkafka would count on to. It tells of a batch
 * record by record, without a pause. */
static _Thread_local struct {
    bool counts;
    int32_t partition;
    int64_t next;
} unknown_from;

/* An offset as it was told, or UNKNOWN_OFFSET. Where the broker says of a retry that it was a repeat, and does not know any
 * more where the records are, it answers with -1, and librdkafka counts up from there, record by record: 0, 1, 2, ... would
 * be taken for their offsets, and a position be too low. */
static int64_t believed(int32_t partition, int64_t offset) {
    bool counted = unknown_from.counts && unknown_from.partition == partition && unknown_from.next == offset;
    if (partition < 0 || (offset >= 0 && !counted)) {
        unknown_from.counts = false;
        return partition < 0 ? UNKNOWN_OFFSET : offset;
    }
    unknown_from.counts = true;
    unknown_from.partition = partition;
    unknown_from.next = offset + 1;
    return UNKNOWN_OFFSET;
}

int outlet_acknowledged(client *by, message *acknowledged, void *opaque) {
    (void)by, (void)opaque;
    int64_t offset = UNKNOWN_OFFSET;
    if (acknowledged->error == 0) {
        offset = believed(acknowledged->partition, acknowledged->offset);
    }
    if (acknowledged->private_ != NULL || acknowledged->payload == NULL) {
        return 0; /* of Python's: it has a report of its own */
    }
    tag *on = (tag *)acknowledged->payload - 1;
    if (on->seal == SEAL) {
        tell(on, acknowledged->error, acknowledged->partition, offset);
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

/* Puts the records in order, partition by partition: librdkafka looks a partition up once a call then, and takes fewer
 * locks. The partition is the one that its partitioner takes for keys. */
static void put_in_order(parcel *sent) {
    for (uint64_t number = 0; number < sent->count; number++) {
        entry *each = &sent->entries[number];
        const uint8_t *key = sent->memory + each->tag + sizeof(tag) + each->value_size;
        each->partition = kafka.msg_partitioner_murmur2(NULL, key, each->key_size, sent->partitions, NULL, NULL);
    }
    if (sent->count < 2) {
        return;
    }
    uint64_t *starts = must(calloc((uint64_t)sent->partitions + 1, sizeof *starts));
    for (uint64_t number = 0; number < sent->count; number++) {
        starts[sent->entries[number].partition + 1]++;
    }
    for (int32_t partition = 0; partition < sent->partitions; partition++) {
        starts[partition + 1] += starts[partition];
    }
    sent->order = must(malloc(sent->count * sizeof *sent->order));
    for (uint64_t number = 0; number < sent->count; number++) {
        sent->order[starts[sent->entries[number].partition]++] = (uint32_t)number;
    }
    free(starts);
}

/* Says where the parcel goes once all is told. Before the first is handed over, once. partitions: that the topic has as far
 * as is known; 0: that is for librdkafka to say. */
API void flowagg_parcel_address(parcel *sent, tray *on, int32_t partitions) {
    sent->on = on;
    sent->partitions = partitions > 0 ? partitions : 0;
    sent->last = must(malloc(((uint64_t)sent->partitions + 1) * sizeof *sent->last));
    for (int32_t partition = 0; partition < sent->partitions; partition++) {
        atomic_init(&sent->last[partition], UNKNOWN_OFFSET);
    }
    if (sent->partitions > 0) {
        put_in_order(sent);
    }
    atomic_store(&sent->left, sent->count + 1);
}

static uint64_t next_number(const parcel *sent, uint64_t place) { return sent->order != NULL ? sent->order[place] : place; }

/* Hands up to `most` further records over; how many of them are of one partition, and in messages. */
static int next_messages(const parcel *sent, uint64_t most, message *messages, int32_t *partition) {
    int count = 0;
    *partition = sent->entries[next_number(sent, sent->handed)].partition;
    for (uint64_t place = sent->handed; place < sent->count && (uint64_t)count < most && count < AT_ONCE; place++) {
        const entry *each = &sent->entries[next_number(sent, place)];
        if (each->partition != *partition) {
            break;
        }
        uint8_t *value = sent->memory + each->tag + sizeof(tag);
        messages[count++] = (message){
            .payload = value,
            .size = each->value_size,
            .key = value + each->value_size,
            .key_size = each->key_size,
        };
    }
    return count;
}

/* Hands up to `most` further records to the client; how many are not handed over yet. -1: the client took one no more,
 * and is asked for none behind it; error says why. */
API int64_t flowagg_parcel_hand_over(parcel *sent, outlet *by, uint64_t most) {
    message messages[AT_ONCE];
    while (most > 0 && sent->handed < sent->count) {
        int32_t partition;
        int count = next_messages(sent, most, messages, &partition);
        int good = kafka.produce_batch(by->to, partition, 0, messages, count);
        if (good == 0 && partition != ANY_PARTITION && messages[0].error == UNKNOWN_PARTITION) {
            /* The client has not heard of it, or not heard that it has gone: it knows best where it would send a key. */
            for (int place = 0; place < count; place++) {
                messages[place].error = 0;
            }
            good = kafka.produce_batch(by->to, ANY_PARTITION, 0, messages, count);
        }
        for (int place = 0; good < count && place < count; place++) {
            if (messages[place].error != 0) {
                tell((tag *)messages[place].payload - 1, messages[place].error, -1, -1);
            }
        }
        sent->handed += (uint64_t)count;
        sent->taken += good > 0 ? (uint64_t)good : 0;
        most -= (uint64_t)count;
        if (good < count) {
            return -1;
        }
    }
    return (int64_t)(sent->count - sent->handed);
}

/* Nothing more is handed over. error: why, where that is not all. */
API void flowagg_parcel_close(parcel *sent, int error) {
    uint64_t rest = sent->count - sent->handed;
    if (rest > 0) {
        fail(sent, error);
        sent->handed = sent->count;
    }
    settle(sent, rest + 1);
}

/* Hands all of it to the client and closes it. by: NULL where it can be handed to no client; error says why. */
API void flowagg_parcel_send(parcel *sent, tray *on, outlet *by, int32_t partitions, int error) {
    flowagg_parcel_address(sent, on, partitions);
    if (by != NULL) {
        (void)flowagg_parcel_hand_over(sent, by, sent->count); /* what it does not take is told */
    }
    flowagg_parcel_close(sent, error);
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
    int32_t partitions = of->partitions + of->more_partitions;
    bool all = atomic_load(&of->left) == 0;
    *view = (parcel_view){of->taken, all, atomic_load(&of->error), atomic_load(&of->lost), partitions};
    for (int32_t partition = 0; partition < partitions && partition < most; partition++) {
        last[partition] = partition < of->partitions ? atomic_load(&of->last[partition])
                                                     : of->more_last[partition - of->partitions];
    }
    pthread_mutex_unlock(&of->lock);
}

static uint8_t *put_base64url(uint8_t *at, const uint8_t *bytes, uint64_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (uint64_t place = 0; place < size; place += 3) {
        uint64_t left = size - place;
        uint32_t three = (uint32_t)bytes[place] << 16;
        three |= left > 1 ? (uint32_t)bytes[place + 1] << 8 : 0;
        three |= left > 2 ? (uint32_t)bytes[place + 2] : 0;
        *at++ = (uint8_t)digits[three >> 18];
        *at++ = (uint8_t)digits[three >> 12 & 63];
        if (left > 1) {
            *at++ = (uint8_t)digits[three >> 6 & 63];
        }
        if (left > 2) {
            *at++ = (uint8_t)digits[three & 63];
        }
    }
    return at;
}

/* The body of the answer to the POST of a parcel that is in the log as a whole: how many flows it has, and the token of
 * their position (position.py). How many bytes; 0 where it is not known to be there as a whole, or where an answer would
 * be so long, or a topic so odd, that it is Python's to write. */
API uint64_t flowagg_parcel_answer(
    parcel *of, const uint8_t *topic_id, uint64_t topic_size, uint8_t *into, uint64_t room) {
    uint8_t token[TOKEN_BYTES];
    if (plain_characters(topic_id, topic_id + topic_size) != topic_id + topic_size) {
        return 0;
    }
    bool whole = atomic_load(&of->left) == 0 && atomic_load(&of->error) == 0 && !atomic_load(&of->lost) &&
                 of->taken == of->count && of->more_partitions == 0;
    uint64_t most = topic_size + (uint64_t)of->partitions * LONGEST_PLACE + 16;
    if (!whole || most > sizeof token || most * 4 / 3 + 64 > room) {
        return 0;
    }
    uint8_t *at = PUT(token, "{\"t\":\"");
    at = put(at, topic_id, topic_size);
    at = PUT(at, "\",\"p\":{");
    bool first = true;
    for (int32_t partition = 0; partition < of->partitions; partition++) {
        int64_t last = atomic_load_explicit(&of->last[partition], memory_order_relaxed);
        if (last >= 0) {
            at = first ? PUT(at, "\"") : PUT(at, ",\"");
            at = put_number(at, (uint64_t)partition);
            at = PUT(at, "\":");
            at = put_number(at, (uint64_t)last + 1);
            first = false;
        }
    }
    at = PUT(at, "}}");
    uint64_t token_size = (uint64_t)(at - token);
    at = PUT(into, "{\"accepted\":");
    at = put_number(at, of->count);
    at = PUT(at, ",\"position\":\"");
    at = put_base64url(at, token, token_size);
    at = PUT(at, "\"}");
    return (uint64_t)(at - into);
}

API const char *flowagg_error_text(int error) { return kafka.err2str(error); }
