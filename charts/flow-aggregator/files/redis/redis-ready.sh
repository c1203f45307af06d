#!/bin/sh
# Ready: a master that has its data, or a replica that is in sync.
. /etc/flow-aggregator/given/sentinels.sh
state=$(printf 'PING\nINFO replication\n' | timeout 3 redis-cli | tr -d '\r')
case $state in
  PONG*role:master* | PONG*role:slave*master_link_status:up*) ;;
  *) exit 1 ;;
esac
