"""The Helm chart, without a cluster: lint, schema, golden renders, policies, and the gateway's nginx."""
