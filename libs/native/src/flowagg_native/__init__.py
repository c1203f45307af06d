"""The parts that run once for each record or row, in C.

chunk.py has records as they come, intake.py where they come from, totals.py what becomes of them; outlet.py has bodies
of POSTs on their way to Kafka, rows.py an hour's rows. Behind each is one C file of the same name. library.py loads it,
client.py joins it to confluent-kafka's librdkafka. Positions, marks, retention and the connection to Redis are not
here.
"""
