"""The stack as local processes: broker, Redis and the services."""
