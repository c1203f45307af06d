"""The writer and the reader beside services in Go that do the same work, in one run on the same flows.

The Go services (go/) are what a careful Go engineer would write: net/http, one processor as ours has, Go's other
defaults, buffers used again, and the JSON library by choice. They keep the contract as far as it is measured
(contract.py asks all of them before; durable ones must leave the same records in Kafka as our writer). They leave out
what costs ours a little on each request: Idempotency-Key, gzip, NDJSON, tokens, metrics, bounds on what is in hand
(but for the client's buffer), wall-clock bounds on a POST but Kafka's own, and totals past 64 bits.
"""
