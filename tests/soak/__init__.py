"""The whole system under a constant load with faults for a long time: what should stay level, does."""
