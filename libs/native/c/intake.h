/* Messages of Kafka's client, taken by the chunk. */
#ifndef FLOWAGG_INTAKE_H
#define FLOWAGG_INTAKE_H

#include <stdint.h>

/* Where messages of a client are brought when they have been read. */
typedef struct home home;

void home_bring(home *to, int32_t broker, void *const *messages, uint64_t count);
void intake_release(void *message);
int64_t intake_timestamp(const void *message);

#endif
