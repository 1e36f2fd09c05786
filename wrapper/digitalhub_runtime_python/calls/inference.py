"""The Open Inference Protocol, version 2, over REST: how DigitalHub's openinference functions are called.

`predict(context, request)` gets each inference request, a dict whose entries are attributes too
(`request["inputs"][0]["data"]`, `request.id`), and returns a response, its outputs, or arrays by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

import nuclio_sdk

from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.arguments import Arguments
from digitalhub_runtime_python.calls import replies
from digitalhub_runtime_python.calls.binding import EVENT_NAMES
from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.calls.handling import Handling, is_async
from digitalhub_runtime_python.calls.replies import Reply
from digitalhub_runtime_python.errors import OutputFault
from digitalhub_runtime_python.nesting import read_json

if TYPE_CHECKING:
    import asyncio

    from digitalhub_runtime_python.lifecycle import ReadyFunction
    from digitalhub_runtime_python.spec import RunSpec

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""numpy's name of a type -> the protocol's; anything else is BYTES."""
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


@dataclass(frozen=True)
class Model:
    """What the protocol tells of the function."""

    name: str = "model"
    version: str = "1"
    inputs: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Model:
        """Read the attributes of Core's trigger of kind openinference."""
        tensors = [attributes.get(f"{way}_tensors") or () for way in ("input", "output")]
        return cls(
            str(attributes.get("model_name") or "model"),
            str(attributes.get("model_version") or "1"),
            *(tuple(one for one in some if isinstance(one, Mapping)) for some in tensors),
        )


class Request(dict):  # type: ignore[type-arg]
    """One inference request; what it does not have is None as an attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


class Refused(Exception):
    """A request that is not well formed, with the status of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class InferenceHandling(Handling):
    """Answers health and metadata, and calls the function for inference."""

    def __init__(
        self,
        handler: Callable[..., Any],
        bind: Any,
        *,
        model: Model,
        takes: Callable[[Request], dict[str, Any]],
        **more: Any,
    ) -> None:
        self.model = model
        self._takes = takes
        super().__init__(_shaped(handler, model), self._bound, **more)

    def call(self, event: RequestEvent, loop: asyncio.AbstractEventLoop) -> Reply:
        return self._answer(event) or super().call(event, loop)

    async def call_async(self, event: RequestEvent) -> Reply:
        return self._answer(event) or await super().call_async(event)

    def _bound(self, event: RequestEvent) -> Arguments:
        request = event.__dict__["inference"]
        return Arguments((request, self._takes(request)), {})

    def _answer(self, event: RequestEvent) -> Reply | None:
        """The reply to all but an inference request, which is read into the event."""
        try:
            answer = answer_of(self.model, event.method, event.path)
            if answer is None:
                event.__dict__["inference"] = read_request(event.json_body)
                return None
            return _reply(200, answer)
        except Refused as refusal:
            return _reply(refusal.status, {"error": str(refusal)})


def answer_of(model: Model, method: str, path: str) -> dict[str, Any] | None:
    """What a request asks about the server or its model; None: it asks for inference.

    Raises:
        Refused: 404 or 405.
    """
    path = path.rstrip("/")
    fixed: dict[str, dict[str, Any]] = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2": {"name": "digitalhub-runtime-python", "version": __version__, "extensions": []},
    }
    match = _MODEL.fullmatch(path)
    if path not in fixed and match is None:
        raise Refused(
            404, f"There is nothing at {path or '/'}; the protocol's paths begin with /v2."
        )
    if match is not None:
        if match[1] != model.name:
            raise Refused(404, f"There is no model {match[1]!r}; this one is {model.name!r}.")
        if match[2] not in (None, model.version):
            raise Refused(404, f"There is no version {match[2]!r}; this one is {model.version!r}.")
    infers = match is not None and match[3] == "/infer"
    if method not in (("POST",) if infers else ("GET", "HEAD")):
        raise Refused(405, f"{path} does not take {method}.")
    if match is None:
        return fixed[path]
    if infers:
        return None
    if match[3] == "/ready":
        return {"name": model.name, "ready": True}
    return {
        "name": model.name, "versions": [model.version], "platform": "python",
        "inputs": list(model.inputs), "outputs": list(model.outputs),
    }  # fmt: skip


def read_request(body: Callable[[], Any]) -> Request:
    """An inference request, checked.

    Raises:
        Refused: 400, with what is wrong.
    """
    try:
        value = body()
    except ValueError as exc:
        raise Refused(400, f"The body is not JSON: {exc}.") from exc
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list):
        raise Refused(400, "An inference request is an object with a list of inputs.")
    for place, tensor in enumerate(value["inputs"]):
        missing = [k for k in ("name", "shape", "datatype", "data") if not isinstance(tensor, dict) or k not in tensor]  # fmt: skip
        if missing:
            raise Refused(400, f"inputs[{place}] has no {', '.join(missing)}.")
    return Request({**value, "inputs": [Request(tensor) for tensor in value["inputs"]]})


def response_of(value: Any, request: Request, model: Model) -> Any:
    """The protocol's response for what the function returned.

    Raises:
        OutputFault: outputs/not-encodable, it cannot be one.
    """
    if isinstance(value, nuclio_sdk.Response):
        if value.status_code >= 400:
            return value
        value = value.body
    if isinstance(value, (str, bytes)):
        try:
            value = read_json(value)
        except ValueError:
            value = None
    if isinstance(value, Mapping) and "outputs" in value:
        head, outputs = dict(value), value["outputs"]
    else:
        head, outputs = {}, value
    if isinstance(outputs, Mapping):
        outputs = [tensor(str(name), one) for name, one in outputs.items()]
    elif hasattr(outputs, "tolist"):
        outputs = [tensor("output_0", outputs)]
    if not isinstance(outputs, (list, tuple)) or not all(isinstance(one, Mapping) for one in outputs):  # fmt: skip
        raise OutputFault(
            "outputs/not-encodable",
            f"predict returned a {type(value).__name__}, which is not an inference response.",
            "Return {'outputs': [{'name', 'shape', 'datatype', 'data'}]}, or arrays by name.",
        )
    filled = {"model_name": model.name, "model_version": model.version}
    if request.get("id"):
        filled["id"] = request["id"]
    given = {key: one for key, one in head.items() if one not in (None, "")}
    return {**filled, **given, "outputs": [_plain(one) for one in outputs]}


def tensor(name: str, value: Any) -> dict[str, Any]:
    """An output tensor of an array, a list or a single value."""
    if isinstance(value, Mapping) and "data" in value:
        return {"name": name, **value}
    if hasattr(value, "tolist"):
        kind = DATATYPES.get(str(getattr(value, "dtype", "")), "BYTES")
        return {"name": name, "shape": list(getattr(value, "shape", ())) or [1], "datatype": kind, "data": _flat(value.tolist())}  # fmt: skip
    shape: list[int] = []
    inner: Any = value if isinstance(value, (list, tuple)) else [value]
    while isinstance(inner, (list, tuple)):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    kinds = ((bool, "BOOL"), (int, "INT64"), (float, "FP64"))
    flat = _flat(value)
    kind = next((k for cls, k in kinds if flat and all(type(one) is cls for one in flat)), "BYTES")
    if kind == "BYTES" and flat and all(type(one) in (int, float) for one in flat):
        kind = "FP64"
    return {"name": name, "shape": shape, "datatype": kind, "data": flat}


def _plain(output: Mapping[str, Any]) -> dict[str, Any]:
    data: Any = output.get("data")
    return {**output, "data": _flat(data.tolist())} if hasattr(data, "tolist") else dict(output)


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for one in value for leaf in _flat(one)]


def argument_maker(ready: ReadyFunction, run: RunSpec) -> Callable[[Request], dict[str, Any]]:
    """What makes the arguments of a request: the first that nothing else fills is the request."""
    signature = ready.signature
    given = {**ready.inputs, **run.parameters}
    fixed = {name: make() for name, make in ready.injected.items() if signature.names(name)}
    fixed.update({name: given[name] for name in signature.parameters if name in given})
    names = [name for name in signature.parameters if name not in fixed]
    own = next((name for name in names if name in (*EVENT_NAMES, "request")), None)
    name = own or next(iter(names), None)
    return lambda request: {**fixed, name: request} if name else fixed


def _shaped(handler: Callable[..., Any], model: Model) -> Callable[..., Any]:
    """The function, with the request before its arguments and a response as what it returns."""
    if is_async(handler):

        @functools.wraps(handler)
        async def later(request: Request, arguments: dict[str, Any]) -> Any:
            return response_of(await handler(**arguments), request, model)

        return later

    @functools.wraps(handler)
    def now(request: Request, arguments: dict[str, Any]) -> Any:
        return response_of(handler(**arguments), request, model)

    return now


def _reply(status: int, body: dict[str, Any]) -> Reply:
    return replies.to_reply(nuclio_sdk.Response(body=body, status_code=status, content_type="application/json"), str)  # fmt: skip
