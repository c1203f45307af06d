#!/bin/sh
. /etc/flow-aggregator/given/sentinels.sh
timeout 3 redis-cli -p 26379 ping | grep -q '^PONG'
