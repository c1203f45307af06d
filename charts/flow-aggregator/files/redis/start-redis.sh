#!/bin/sh
# Asks the sentinels which node is the master, writes redis.conf accordingly, becomes redis-server.
# START_SECONDS: the longest wait for a majority of the sentinels, and for them to replace a master that lost its data.
set -eu
. /etc/flow-aggregator/given/sentinels.sh
umask 077
mkdir -p /data/redis

waited=0
while :; do
  said=$(opinions | sort -n)
  answers=$(printf '%s' "$said" | grep -c . || true)
  # The sentinels who have seen the newest failover are right.
  newest=$(printf '%s\n' "$said" | tail -n 1)
  master=$(printf %s "$newest" | cut -d ' ' -f 2)
  replicas=$(printf %s "$newest" | cut -d ' ' -f 3)
  enough=$([ "$answers" -ge 2 ] && echo yes || echo no)
  if [ "$master" = "$SELF" ] && [ "${replicas:-0}" -gt 0 ] && [ ! -d /data/redis/appendonlydir ]; then
    # The volume was lost. As the master this node would have its replicas forget everything, too.
    reason="The sentinels hold this node to be the master, but it has no data: waiting for them to choose a replica"
  elif [ "$enough" = yes ]; then
    break
  else
    reason="$answers of 3 sentinels answer: waiting for a second one"
  fi
  if [ "$waited" -ge "$START_SECONDS" ] && [ -n "$master" ]; then
    echo "$reason took longer than $START_SECONDS s: going on"
    break
  fi
  [ $((waited % 10)) -ne 0 ] || echo "$reason"
  sleep 1
  waited=$((waited + 1))
done

{
  cat /etc/flow-aggregator/given/redis.conf
  echo "replica-announce-ip $SELF"
  echo "replica-announce-port 6379"
  echo "requirepass $(quoted "$REDISCLI_AUTH")"
  echo "masterauth $(quoted "$REDISCLI_AUTH")"
  if [ "$master" != "$SELF" ]; then echo "replicaof $master 6379"; fi
} > /data/redis/redis.conf
if [ "$master" = "$SELF" ]; then echo "Starting as the master"; else echo "Starting as a replica of $master"; fi
unset REDISCLI_AUTH
exec redis-server /data/redis/redis.conf
