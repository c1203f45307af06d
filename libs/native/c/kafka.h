/* What is used of librdkafka's interface, by intake.c and outlet.c: as rdkafka.h has it, which is not there to include. */
#ifndef FLOWAGG_KAFKA_H
#define FLOWAGG_KAFKA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* rd_kafka_message_t, as rdkafka.h has it. */
typedef struct {
    int error;
    void *topic;
    int32_t partition;
    void *payload;
    size_t size;
    void *key;
    size_t key_size;
    int64_t offset;
    void *private_;
} message;

typedef struct client client; /* rd_kafka_t */
typedef struct queue queue;   /* rd_kafka_queue_t */
typedef struct topic topic;   /* rd_kafka_topic_t */
typedef int on_new_function(client *, const void *, void *, char *, size_t);
typedef int on_acknowledgement_function(client *, message *, void *);
typedef int on_destroy_function(client *, void *);
typedef int on_response_function(
    client *, int, const char *, int32_t, int16_t, int16_t, int32_t, size_t, int64_t, int, void *);

#define FUNCTIONS(X)                                                                              \
    X(int, type, (const client *))                                                                \
    X(const char *, err2str, (int))                                                               \
    X(int, conf_interceptor_add_on_new, (void *, const char *, on_new_function *, void *))        \
    X(int, interceptor_add_on_acknowledgement, (client *, const char *, on_acknowledgement_function *, void *)) \
    X(int, interceptor_add_on_destroy, (client *, const char *, on_destroy_function *, void *))    \
    X(int, interceptor_add_on_response_received, (client *, const char *, on_response_function *, void *)) \
    X(queue *, queue_new, (client *))                                                             \
    X(queue *, queue_get_consumer, (client *))                                                    \
    X(queue *, queue_get_partition, (client *, const char *, int32_t))                            \
    X(void, queue_forward, (queue *, queue *))                                                    \
    X(void, queue_destroy, (queue *))                                                             \
    X(void, queue_yield, (queue *))                                                               \
    X(void, queue_cb_event_enable, (queue *, void (*)(client *, void *), void *))                 \
    X(ssize_t, consume_batch_queue, (queue *, int, message **, size_t))                           \
    X(void, message_destroy, (message *))                                                         \
    X(int64_t, message_timestamp, (const message *, int *))                                       \
    X(int32_t, message_leader_epoch, (const message *))                                           \
    X(int32_t, message_broker_id, (const message *))                                              \
    X(const char *, message_errstr, (const message *))                                            \
    X(topic *, topic_new, (client *, const char *, void *))                                       \
    X(void, topic_destroy, (topic *))                                                             \
    X(int, produce_batch, (topic *, int32_t, int, message *, int))                                \
    X(int32_t, msg_partitioner_murmur2, (const topic *, const void *, size_t, int32_t, void *, void *))

typedef struct {
#define MEMBER(type, name, parameters) type(*name) parameters;
    FUNCTIONS(MEMBER)
#undef MEMBER
} client_functions;

extern client_functions kafka;

/* The client that this thread has made last with the plugin, once; NULL where there is none. */
client *newest_client(void);

/* A producer's interceptor. */
int outlet_acknowledged(client *by, message *acknowledged, void *opaque);

#endif
