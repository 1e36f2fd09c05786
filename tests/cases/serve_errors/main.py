"""What a handler may do wrong; the path says what."""
import sys

import nuclio_sdk


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("its text cannot be read")


def handler(context, event, n: int = 0):
    if event.path == "/raise":
        secret = "s3cret-in-a-local"
        raise ValueError("the password is hunter2")
    if event.path == "/exit":
        sys.exit(7)
    if event.path == "/interrupt":
        raise KeyboardInterrupt
    if event.path == "/recursion":
        return handler(context, event, n)
    if event.path == "/odd":
        raise Odd
    if event.path == "/memory":
        return "x" * (1 << 60)
    if event.path == "/teapot":
        raise nuclio_sdk.ExceptionWithResponse(418, "short and stout", "text/plain")
    if event.path == "/generator-exit":
        raise GeneratorExit
    if event.path == "/stop":
        raise StopIteration
    return "fine"
