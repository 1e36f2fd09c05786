"""The same function for every peer: JSON in, JSON out; anything else is counted. Used by bench/serve.py."""

from __future__ import annotations

import json

try:
    from flask import Flask, request
except ImportError:  # each peer needs its own only
    Flask = None
try:
    from fastapi import FastAPI, Request
except ImportError:
    FastAPI = None


def answer(body):
    if isinstance(body, dict):
        return {"sum": body["a"], "name": body["name"]}
    return {"size": len(body)}


# functions-framework
def function(request):
    return answer(request.get_json() if request.is_json else request.get_data())


# Flask + gunicorn
if Flask is not None:
    flask = Flask(__name__)

    @flask.post("/")
    def flask_view():
        return answer(request.get_json() if request.is_json else request.get_data())


# FastAPI + uvicorn
if FastAPI is not None:
    fastapi_async = FastAPI()
    fastapi_sync = FastAPI()

    @fastapi_async.post("/")
    async def async_view(request: Request):
        json_body = request.headers.get("content-type") == "application/json"
        return answer(await request.json() if json_body else await request.body())

    async def _body(request: Request):
        json_body = request.headers.get("content-type") == "application/json"
        return await request.json() if json_body else await request.body()

    from fastapi import Depends

    @fastapi_sync.post("/")
    def sync_view(body=Depends(_body)):  # noqa: B008
        return answer(body)


# bare uvicorn: reads the body and sends an answer that was made before
async def bare(scope, receive, send):
    message = await receive()
    while message["more_body"]:
        message = await receive()
    start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
    await send(start)
    await send({"type": "http.response.body", "body": _ANSWER})


_ANSWER = json.dumps({"sum": 1, "name": "somebody with a name"}).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]


# ours
def ours(context, event):
    return answer(event.body)


async def ours_async(context, event):
    return answer(event.body)


def ours_named(a: int, b: list, name: str, text: str):
    return {"sum": a, "name": name}
