"""A user's files have names of the standard library; they are what the user's own code imports."""

import email
import email.parts
import functools
import logging
import queue
from email.parts import DEEP
from token import Token

import helper


def own():
    import token as again

    return [queue.OWN, Token("t").text, email.OWN, email.parts.DEEP + DEEP, helper.BOTH, again.OWN]


def others():
    """What everybody else imports is Python's."""
    import concurrent.futures
    import http.client
    import tokenize

    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(int, "7").result()
    return [answer, tokenize.tok_name[1], http.client.HTTPMessage.__mro__[1].__module__]


@functools.singledispatch
def dispatched(value, more: int = 1):
    return ["something", more]


@dispatched.register(int)
def _(value, more: int = 1):
    return ["a number", value, more]


def debug():
    logging.basicConfig(level=logging.DEBUG, force=True)
    logging.debug("the user's own line")
    return "logged"
