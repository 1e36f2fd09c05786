"""Stored files: their bytes, their index, and the subset of S3 they are reached by."""
