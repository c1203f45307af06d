"""The writer: POST -> Kafka, acknowledged only once Kafka has every record."""
