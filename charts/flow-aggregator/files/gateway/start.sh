#!/bin/sh
# Writes down what only the pod knows, then becomes nginx: where names are resolved (nginx does not read resolv.conf
# itself), the cluster's domain (nor its search list), and whether there is IPv6.
# NAMESPACE: of the pod. RESOLVE_SECONDS: for which an address is used before its name is looked up again.
set -eu
directory=${GATEWAY_DIRECTORY:-/tmp/nginx}
resolv_conf=${GATEWAY_RESOLV_CONF:-/etc/resolv.conf}
port=${GATEWAY_PORT:-8080}
health_port=${GATEWAY_HEALTH_PORT:-8081}
mkdir -p "$directory"

servers=
domain=$NAMESPACE.svc.cluster.local
while read -r word rest || [ -n "$word" ]; do
  case $word in
    nameserver)
      address=${rest%%[ %]*}
      case $address in
        *:*) servers="$servers [$address]" ;;
        *) servers="$servers $address" ;;
      esac
      ;;
    search)
      for found in $rest; do
        case $found in "$NAMESPACE".svc.*) domain=${found%.} ;; esac
      done
      ;;
  esac
done < "$resolv_conf"
[ -n "$servers" ] || { echo "$resolv_conf names no nameserver: the gateway cannot find writers and readers" >&2; exit 1; }

cat > "$directory/resolver.conf" <<EOF
resolver$servers valid=${RESOLVE_SECONDS}s;
resolver_timeout 2s;
map "" \$services { default $domain; }
EOF
listen() {
  echo "listen $1;"
  if [ -s /proc/net/if_inet6 ]; then echo "listen [::]:$1;"; fi
}
listen "$port" > "$directory/listen.conf"
listen "$health_port" > "$directory/listen-health.conf"

exec nginx -e stderr -c "${GATEWAY_CONFIG:-/etc/flow-aggregator/given/nginx.conf}"
