/* Messages of librdkafka, without an object of Python's for each.
 *
 * confluent-kafka has the client, its group and its callbacks; here is only the way that records take. Each partition's
 * queue is led into one of our own, which nothing else comes into, and is emptied by rd_kafka_consume_batch_queue. The
 * client is learnt by a plugin of librdkafka's, which is told of it when it is made. All of this is its documented
 * interface (rdkafka.h); its functions are handed in, since the library that confluent-kafka brings is not linked to.
 */
#include "intake.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chunk.h"
#include "kafka.h"

client_functions kafka;

#define PRODUCER 0 /* rd_kafka_type_t */
#define FETCH 1    /* Kafka's API key */
#define SHELF_SECONDS 2 /* whole ones that begin meanwhile */

static bool ready = false;
static _Thread_local client *newest = NULL;
static _Thread_local home *newest_home = NULL;

typedef struct {
    queue *records; /* where all partitions' queues lead */
    queue *main;    /* the group's events */
    client *of;
    home *messages;
} intake;

/* Homes -------------------------------------------------------------------------------------- */

/* A message is memory that the thread of its broker has asked the C library for. Freed by another thread it would have
 * both of them wait for one lock again and again, while the one reads the next answer and the other frees: a fifth of a
 * consumer's time. So messages that have been read are put down here, and their broker's thread frees them before it reads
 * its next answer. A broker that leads none of the client's partitions any more has no next one, and librdkafka's thread for
 * it does not end before its messages are freed: what has lain here for a second or two is freed by whoever takes records.
 *
 * rdkafka.h asks such interceptors for no calls of its own. Freeing a message of a Fetch calls nothing back and takes no lock
 * that a broker's thread holds there (rd_kafka_buf_callback, rd_kafka_op_destroy; looked up in 2.15): to be looked at again
 * with each librdkafka. */
typedef struct {
    int32_t broker;
    time_t since; /* the first of them lies here */
    uint64_t count;
    uint64_t capacity;
    void **messages;
} shelf;

struct home {
    pthread_mutex_t lock;
    bool closed; /* the client is about to end: nothing is put down any more */
    uint64_t shelf_count;
    shelf *shelves;
};

static shelf *shelf_of(home *in, int32_t broker) {
    for (uint64_t number = 0; number < in->shelf_count; number++) {
        if (in->shelves[number].broker == broker) {
            return &in->shelves[number];
        }
    }
    return NULL;
}

static time_t seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void destroy_all(void *const *messages, uint64_t count) {
    for (uint64_t number = 0; number < count; number++) {
        kafka.message_destroy(messages[number]);
    }
}

void home_bring(home *to, int32_t broker, void *const *messages, uint64_t count) {
    pthread_mutex_lock(&to->lock);
    bool closed = to->closed;
    if (!closed) {
        shelf *on = shelf_of(to, broker);
        if (on == NULL) {
            to->shelves = must(realloc(to->shelves, (to->shelf_count + 1) * sizeof *to->shelves));
            on = &to->shelves[to->shelf_count++];
            *on = (shelf){.broker = broker};
        }
        if (on->count + count > on->capacity) {
            on->capacity = 2 * (on->count + count);
            on->messages = must(realloc(on->messages, on->capacity * sizeof *on->messages));
        }
        on->since = on->count == 0 ? seconds_now() : on->since;
        memcpy(on->messages + on->count, messages, count * sizeof *messages);
        on->count += count;
    }
    pthread_mutex_unlock(&to->lock);
    if (closed) {
        destroy_all(messages, count);
    }
}

static void free_shelf(home *in, shelf *from) {
    shelf taken = *from;
    *from = (shelf){.broker = taken.broker};
    pthread_mutex_unlock(&in->lock);
    destroy_all(taken.messages, taken.count);
    free(taken.messages);
    pthread_mutex_lock(&in->lock);
}

/* What an interceptor of librdkafka's is told in the broker's thread, before an answer is read. */
static int on_response(
    client *by, int socket, const char *name, int32_t broker, int16_t api, int16_t version, int32_t id, size_t size,
    int64_t time, int error, void *opaque) {
    (void)by, (void)socket, (void)name, (void)version, (void)id, (void)size, (void)time, (void)error;
    home *in = opaque;
    if (api != FETCH) {
        return 0; /* some of these are read in another thread */
    }
    pthread_mutex_lock(&in->lock);
    shelf *from = shelf_of(in, broker);
    if (from != NULL) {
        free_shelf(in, from);
    }
    pthread_mutex_unlock(&in->lock);
    return 0;
}

/* What no broker's thread has come for. */
static void free_old(home *in) {
    time_t now = seconds_now();
    pthread_mutex_lock(&in->lock);
    for (uint64_t number = 0; number < in->shelf_count; number++) {
        if (in->shelves[number].count > 0 && now - in->shelves[number].since >= SHELF_SECONDS) {
            free_shelf(in, &in->shelves[number]);
        }
    }
    pthread_mutex_unlock(&in->lock);
}

/* What is here still is freed, and what is brought later is freed at once. */
static void home_close(home *closed) {
    pthread_mutex_lock(&closed->lock);
    closed->closed = true;
    for (uint64_t number = 0; number < closed->shelf_count; number++) {
        destroy_all(closed->shelves[number].messages, closed->shelves[number].count);
        free(closed->shelves[number].messages);
    }
    closed->shelf_count = 0;
    free(closed->shelves);
    closed->shelves = NULL;
    pthread_mutex_unlock(&closed->lock);
}

static int on_destroy(client *destroyed, void *opaque) {
    (void)destroyed;
    home_close(opaque); /* it waits for its messages */
    return 0;
}

/* Intakes ------------------------------------------------------------------------------------ */

/* The functions that are looked for, in the order in which flowagg_intake_use takes them; NULL behind the last. */
API const char *flowagg_intake_function(uint64_t number) {
    static const char *const names[] = {
#define NAME(type, name, parameters) "rd_kafka_" #name,
        FUNCTIONS(NAME)
#undef NAME
            NULL};
    return number < sizeof names / sizeof *names ? names[number] : NULL;
}

API void flowagg_intake_use(void *const *functions) {
    memcpy(&kafka, functions, sizeof kafka);
    ready = true;
}

static int on_new(client *made, const void *configuration, void *opaque, char *error, size_t error_size) {
    (void)configuration, (void)opaque, (void)error, (void)error_size;
    newest = made;
    newest_home = NULL;
    if (kafka.type(made) == PRODUCER) {
        return kafka.interceptor_add_on_acknowledgement(made, "flowagg", outlet_acknowledged, NULL);
    }
    newest_home = must(calloc(1, sizeof *newest_home)); /* for as long as the process lives: the interceptor may be called */
    pthread_mutex_init(&newest_home->lock, NULL);
    int error_code = kafka.interceptor_add_on_response_received(made, "flowagg", on_response, newest_home);
    return error_code != 0 ? error_code : kafka.interceptor_add_on_destroy(made, "flowagg", on_destroy, newest_home);
}

/* What librdkafka calls for plugin.library.paths. */
API int conf_init(void *configuration, void **opaque, char *error, size_t error_size) {
    (void)opaque;
    if (!ready) {
        snprintf(error, error_size, "flowagg: the plugin is not ready");
        return -1;
    }
    return kafka.conf_interceptor_add_on_new(configuration, "flowagg", on_new, NULL);
}

static void on_event(client *of, void *records) {
    (void)of;
    kafka.queue_yield(records); /* whoever waits for records looks at the events first */
}

client *newest_client(void) {
    client *found = newest;
    newest = NULL;
    return found;
}

/* The intake of the client that this thread has made last with the plugin; NULL where there is none. Each once. */
API intake *flowagg_intake_open(void) {
    client *of = newest_client();
    if (of == NULL || newest_home == NULL) {
        return NULL;
    }
    intake *made = must(calloc(1, sizeof *made));
    made->of = of;
    made->messages = newest_home;
    made->records = kafka.queue_new(of);
    made->main = kafka.queue_get_consumer(of);
    if (made->records == NULL || made->main == NULL) {
        if (made->records != NULL) {
            kafka.queue_destroy(made->records);
        }
        free(made);
        return NULL;
    }
    kafka.queue_cb_event_enable(made->main, on_event, made->records);
    return made;
}

/* Leads a partition's records here until it is stopped; those that have come already, too. */
API int flowagg_intake_lead(intake *to, const char *topic, int32_t partition) {
    queue *from = kafka.queue_get_partition(to->of, topic, partition);
    if (from == NULL) {
        return -1;
    }
    kafka.queue_forward(from, to->records);
    kafka.queue_destroy(from);
    return 0;
}

/* Messages that were given back and are not freed yet. */
API uint64_t flowagg_intake_shelved(intake *of) {
    uint64_t count = 0;
    pthread_mutex_lock(&of->messages->lock);
    for (uint64_t number = 0; number < of->messages->shelf_count; number++) {
        count += of->messages->shelves[number].count;
    }
    pthread_mutex_unlock(&of->messages->lock);
    return count;
}

/* To be called before the client is closed, and once all chunks are released. */
API void flowagg_intake_close(intake *closed) {
    home_close(closed->messages);
    kafka.queue_cb_event_enable(closed->main, NULL, NULL);
    kafka.queue_destroy(closed->main);
    kafka.queue_destroy(closed->records);
    free(closed);
}

void intake_release(void *taken) { kafka.message_destroy(taken); }

int64_t intake_timestamp(const void *taken) {
    int kind;
    return kafka.message_timestamp(taken, &kind);
}

static void take_record(chunk *into, message *taken, void **messages) {
    uint64_t place = into->count++;
    int32_t leader_epoch = kafka.message_leader_epoch(taken);
    messages[place] = taken;
    into->records[place] = (record){
        .key = taken->key,
        .value = taken->payload,
        .key_size = (uint32_t)taken->key_size,
        .value_size = (uint32_t)taken->size,
    };
    into->offsets[place] = taken->offset;
    run *last = into->run_count ? &into->runs[into->run_count - 1] : NULL;
    if (last == NULL || last->partition != taken->partition || last->leader_epoch != leader_epoch) {
        int32_t broker = kafka.message_broker_id(taken);
        into->runs[into->run_count++] = (run){taken->partition, leader_epoch, place, place + 1, broker};
    } else {
        last->stop = place + 1;
    }
}

/* Up to `most` messages. The first is waited for, then others for linger_ms. */
API chunk *flowagg_intake_take(intake *from, uint64_t most, int wait_ms, int linger_ms) {
    free_old(from->messages);
    chunk *into = chunk_with_room(most);
    message **found = must(malloc((most ? most : 1) * sizeof *found));
    void **messages = must(malloc((most ? most : 1) * sizeof *messages));
    uint64_t count = 0;
    ssize_t got = kafka.consume_batch_queue(from->records, wait_ms, found, most > 0);
    if (got > 0) {
        count = (uint64_t)got;
    }
    if (got > 0 && count < most) {
        got = kafka.consume_batch_queue(from->records, linger_ms, found + count, most - count);
        if (got > 0) {
            count += (uint64_t)got;
        }
    }
    for (uint64_t number = 0; number < count; number++) {
        if (found[number]->error == 0) {
            take_record(into, found[number], messages);
        }
    }
    uint64_t place = into->count;
    for (uint64_t number = 0; number < count; number++) {
        message *taken = found[number];
        if (taken->error != 0) {
            messages[place++] = taken;
            into->events[into->event_count++] =
                (event){taken->partition, taken->error, taken->offset, kafka.message_errstr(taken)};
        }
    }
    free(found);
    into->messages = messages;
    into->message_count = count;
    into->home = from->messages;
    return into;
}
