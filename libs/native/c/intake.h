/* Messages of Kafka's client, taken by the chunk. */
#ifndef FLOWAGG_INTAKE_H
#define FLOWAGG_INTAKE_H

#include <stdint.h>

void intake_release(void *message);
int64_t intake_timestamp(const void *message);

#endif
