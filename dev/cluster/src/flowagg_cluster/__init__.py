"""A real single-node Kubernetes on one Linux machine, from pinned sources and without Docker."""
