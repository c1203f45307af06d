"""Our consumer beside others that keep totals of the same topic."""
