"""The XML of S3's answers, and reading the XML of its requests."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Union

from starlette.responses import Response

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

Node = Union[str, int, bool, "Mapping[str, Node]", "list[Node]"]


class S3Error(Exception):
    """An error that S3's clients know by its code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def document(root: str, content: Mapping[str, Node], status: int = 200) -> Response:
    """An XML answer; a list becomes repeated elements."""
    element = ET.Element(root, {"xmlns": _NAMESPACE})
    _fill(element, content)
    return _response(element, status)


def error(exc: S3Error, resource: str) -> Response:
    element = ET.Element("Error")
    _fill(element, {"Code": exc.code, "Message": exc.message, "Resource": resource})
    return _response(element, exc.status)


class _Plain(ET.TreeBuilder):
    """Asked by the parser, which knows a document type in every encoding, before it reads its entities."""

    def doctype(self, *_: object) -> None:
        raise S3Error(400, "MalformedXML", "Document types are not taken.")


def parse(body: bytes) -> ET.Element:
    """The root of a request's XML, its namespace taken away.

    Raises:
        S3Error: it is not XML, or declares a document type (which could make it explode).
    """
    try:
        root = ET.fromstring(body, ET.XMLParser(target=_Plain()))  # noqa: S314
    except (ET.ParseError, LookupError, ValueError) as exc:  # the latter two: of its encoding
        raise S3Error(400, "MalformedXML", f"The body is not XML: {exc}.") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def fits(text: str) -> bool:
    """Whether XML 1.0 can hold the text: it cannot hold most control characters."""
    return all(
        c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
        for c in text
    )


def _fill(parent: ET.Element, content: Mapping[str, Node]) -> None:
    for name, value in content.items():
        for one in value if isinstance(value, list) else [value]:
            child = ET.SubElement(parent, name)
            if isinstance(one, Mapping):
                _fill(child, one)
            elif isinstance(one, bool):
                child.text = "true" if one else "false"
            else:
                child.text = str(one)


def _response(element: ET.Element, status: int) -> Response:
    content: Iterable[bytes] = ET.tostring(element, encoding="utf-8", xml_declaration=True)
    return Response(content, status, media_type="application/xml")
