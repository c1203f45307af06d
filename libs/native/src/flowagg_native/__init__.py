"""The parts that run once for each record, in C: records taken from Kafka's client, read, and folded into totals.

chunk.py has records as they come, intake.py where they come from, totals.py what becomes of them. Behind each is one C
file of the same name. Nothing here knows partitions, marks, retention or Redis: that is the consumer's, in Python.
"""
