"""The Grafana dashboards of FlowAggregator, as code."""
