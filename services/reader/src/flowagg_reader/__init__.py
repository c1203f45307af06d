"""The reader: Redis -> GET, by default no older than the last acknowledged POST."""
