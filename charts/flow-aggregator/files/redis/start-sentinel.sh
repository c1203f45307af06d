#!/bin/sh
# Writes sentinel.conf: settings from the chart, and what this sentinel knew when it ended. Becomes a sentinel.
set -eu
. /etc/flow-aggregator/given/sentinels.sh
umask 077
mkdir -p /data/sentinel
conf=/data/sentinel/sentinel.conf

# state WORDS: lines of the former configuration, which the sentinel itself wrote.
state() {
  if [ -f "$conf" ]; then grep -E "^sentinel ($1) " "$conf" || true; fi
}
{
  echo "port 26379"
  echo "dir /data/sentinel"
  echo "requirepass $(quoted "$REDISCLI_AUTH")"
  echo "sentinel sentinel-pass $(quoted "$REDISCLI_AUTH")"
  # Names, not addresses: those of pods change.
  echo "sentinel resolve-hostnames yes"
  echo "sentinel announce-hostnames yes"
  echo "sentinel announce-ip $SELF"
  echo "sentinel announce-port 26379"
  # Always the same: else the others would count a restarted sentinel twice.
  echo "sentinel myid $(printf %s "$POD_NAME" | sha1sum | cut -c 1-40)"
  monitored=$(state monitor)
  echo "${monitored:-sentinel monitor main $NAME-0.$NAME.$NAMESPACE.svc 6379 2}"
  echo "sentinel auth-pass main $(quoted "$REDISCLI_AUTH")"
  echo "sentinel down-after-milliseconds main $DOWN_AFTER_MS"
  echo "sentinel failover-timeout main $FAILOVER_TIMEOUT_MS"
  echo "sentinel parallel-syncs main 1"
  state "config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel"
} > "$conf.new"
mv "$conf.new" "$conf"
unset REDISCLI_AUTH
exec redis-server "$conf" --sentinel
