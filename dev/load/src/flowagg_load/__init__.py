"""Flows to load a stack with, and the ledger of their true totals."""
