# What the scripts here share; read with `.`.
# NAME: of the StatefulSet and its headless Service. NAMESPACE. POD_NAME.
REDISCLI_AUTH=$(cat /etc/flow-aggregator/auth/password)
export REDISCLI_AUTH
SELF=$POD_NAME.$NAME.$NAMESPACE.svc

# quoted TEXT: as a string of redis.conf.
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

# sentinel POD COMMAND...: asks the sentinel of a pod, for a second at most.
sentinel() {
  pod=$1
  shift
  timeout 1 redis-cli -h "$pod.$NAME.$NAMESPACE.svc" -p 26379 "$@" 2> /dev/null
}

# A line for each sentinel that answers: the failovers that it knows of, the master's host, and how many replicas it had.
# The host is not that of SENTINEL MASTER: whoever leads a failover shows the old one there until all is over.
opinions() {
  for number in 0 1 2; do
    printf 'SENTINEL GET-MASTER-ADDR-BY-NAME main\nSENTINEL MASTER main\n' | sentinel "$NAME-$number" | awk '
      NR == 1 { host = $0 }
      NR == 3 { whole = $0 == "name" }  # else the first answer is missing, and its place is taken by the second
      before == "num-slaves" { replicas = $0 }
      before == "config-epoch" { epoch = $0 }
      { before = $0 }
      END { if (whole && epoch != "") print epoch, host, replicas }'
  done
}
