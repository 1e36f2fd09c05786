"""Core's REST API, and what is around it: routes, access, entities, runs, projects, search, metrics."""
