#!/bin/sh
# Before a broker starts: its configuration, and at the first start the format of its log directory.
# POD_NAME: ends in the ordinal. CLUSTER_ID. VOTERS: the number of nodes in the quorum.
set -eu
data=/var/lib/kafka/data
config=/etc/flow-aggregator/rendered/server.properties
sed "s/ORDINAL/${POD_NAME##*-}/g" /etc/flow-aggregator/given/server.properties > "$config"

if [ -f "$data/meta.properties" ]; then
  made_for=$(cat /var/lib/kafka/voters)
  if [ "$made_for" != "$VOTERS" ]; then
    echo "This volume belongs to a Kafka of $made_for node(s), and kafka.replicas is $VOTERS now." >&2
    echo "The quorum of a cluster is fixed when it is made; with more, empty nodes a majority could begin a new log" >&2
    echo "without what this one holds. Set kafka.replicas to $made_for again, or delete the PersistentVolumeClaims" >&2
    echo "of $POD_NAME and the others to begin anew, without the records in them." >&2
    exit 1
  fi
else
  echo "$VOTERS" > /var/lib/kafka/voters
  java -Xmx128m -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format \
    --cluster-id "$CLUSTER_ID" --config "$config" --ignore-formatted
fi
