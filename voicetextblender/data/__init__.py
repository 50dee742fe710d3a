"""Conversations from corpora to packed batches: import, records, blend, load."""
