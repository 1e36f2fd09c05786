"""The database: entities, runs' progress, secrets. Nothing here knows HTTP or a process."""
