#!/bin/sh
# Alive: it answers something, be it LOADING or BUSY; and it is not astray. Whoever is astray for a minute is started
# again, asks the sentinels anew and follows whom they name:
# a master while they name another, and a replica that is not in sync though its master is well, or of another master.
. /etc/flow-aggregator/given/sentinels.sh
answer=$(timeout 3 redis-cli ping 2>&1)
case $answer in
  PONG*) ;;
  LOADING* | BUSY* | MASTERDOWN* | MISCONF*) exit 0 ;;
  *) echo "no answer: $answer"; exit 1 ;;
esac
state=$(timeout 2 redis-cli info replication | tr -d '\r')
field() { printf '%s\n' "$state" | sed -n "s/^$1://p"; }
if [ "$(field role)" = slave ]; then
  [ "$(field master_link_status)" != up ] || exit 0
  [ "$(field master_sync_in_progress)" != 1 ] || exit 0
fi
said=$(opinions | sort -n)
[ "$(printf '%s' "$said" | grep -c .)" -ge 2 ] || exit 0
master=$(printf '%s\n' "$said" | tail -n 1 | cut -d ' ' -f 2)
if [ "$(field role)" = master ]; then
  [ "$master" = "$SELF" ] || { echo "a master, but the sentinels name $master"; exit 1; }
elif [ "$(field master_host)" != "$master" ]; then
  echo "a replica of $(field master_host), but the sentinels name $master"
  exit 1
elif [ "$(timeout 1 redis-cli -h "$master" ping)" = PONG ]; then
  echo "not in sync with $master, though it answers"
  exit 1
fi
