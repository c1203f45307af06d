#!/bin/sh
# Before a master ends: another pod's sentinel makes a replica the master, so that nobody waits for a time-out.
. /etc/flow-aggregator/given/sentinels.sh
timeout 2 redis-cli info replication | grep -q '^role:master' || exit 0
for number in 0 1 2; do
  other=$NAME-$number
  if [ "$other" != "$POD_NAME" ] && [ "$(sentinel "$other" sentinel failover main)" = OK ]; then
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
      now=$(sentinel "$other" sentinel get-master-addr-by-name main | head -n 1)
      [ "$now" = "$SELF" ] || exit 0
      sleep 0.25
    done
    exit 0
  fi
done
