"""Serves a function over HTTP: Nuclio's context, event and return values on httptools and uvloop.

A request's way: `protocol` (bytes, limits) → `app` (admission) → `handover` (to the main
thread) → `handling` (bind, call) → `replies` (value to response) → `app` (send).
`supervisor` starts and replaces the workers, `worker` is one of them, `front` is its event loop,
`management` answers for all of them on a port and in a process of its own.
"""
