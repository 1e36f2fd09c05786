"""Starts, watches and stops runs: one module per kind of place a run can live in."""
