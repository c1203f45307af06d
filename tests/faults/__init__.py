"""The whole system as real processes, under load and under a seeded driver of faults."""
