module flow-aggregator/dev/cluster/tools/pause

go 1.24.0
