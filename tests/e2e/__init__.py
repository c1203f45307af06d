"""The system as Helm installs it, on a real cluster, under load through the ingress."""
