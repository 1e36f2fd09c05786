"""A run's lineage: earlier runs, inputs, the run, outputs, later runs; as a picture, and the same as lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from digitalhub_python_control import shown
from digitalhub_python_control.api import resources
from digitalhub_python_control.api.web import Call
from digitalhub_python_control.console import gate
from digitalhub_python_control.console.previews import entity_of
from digitalhub_python_control.console.web import Page
from digitalhub_python_control.store.entities import Entity

COLUMNS = ("Made by", "Inputs", "This run", "Outputs", "Used by")
_MOST = 40
"""Of a column; the picture of more is no picture."""
_WIDE, _HIGH, _GAP_X, _GAP_Y, _TOP = 168, 46, 44, 14, 26
_LETTERS = 24


@dataclass(frozen=True)
class Node:
    """A run or an entity, in a column of the picture."""

    key: str
    column: int
    name: str
    about: str
    url: str = ""
    state: str = ""


@dataclass(frozen=True)
class Lineage:
    """What a run came from and what came from it; edges are pairs of keys."""

    nodes: dict[str, Node]
    edges: list[tuple[str, str]]

    def column(self, number: int) -> list[Node]:
        return [node for node in self.nodes.values() if node.column == number]


def one(call: Call) -> Page:
    """The page of a run's lineage."""
    run = resources.find(call, "runs")
    found = of_run(call, run)
    columns = [(title, found.column(at)) for at, title in enumerate(COLUMNS)]
    return Page("lineage.html", {"run": run, "picture": picture(found), "columns": columns})


def of_run(call: Call, run: Entity) -> Lineage:
    """One step back from each input, and one on from each output."""
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []

    def add(node: Node) -> bool:
        if node.key not in nodes and len([n for n in nodes.values() if n.column == node.column]) < _MOST:  # fmt: skip
            nodes[node.key] = node
        return node.key in nodes

    add(_run_node(call, run, 2))
    for name, key in _texts(run["spec"].get("inputs")):
        entity = entity_of(call, key)
        maker = _maker(call, entity)
        if not add(_entity_node(key, name, entity, 1, _url(call, maker["id"]) if maker else "")):
            continue
        edges.append((key, run["key"]))
        if maker and add(_run_node(call, maker, 0)):
            edges.append((maker["key"], key))
    outputs = _texts(run["status"].get("outputs"))
    for name, key in outputs:
        if add(_entity_node(key, name, entity_of(call, key), 3, f"{_url(call, run['id'])}#results")):  # fmt: skip
            edges.append((run["key"], key))
    keys = {key for _, key in outputs if key.startswith("store://")}
    for later in call.store.runs_that_name(call.project, sorted(keys)[:_MOST]):
        taken = keys & {key for _, key in _texts(later["spec"].get("inputs"))}
        if later["id"] != run["id"] and taken and add(_run_node(call, later, 4)):
            edges += [(key, later["key"]) for key in sorted(taken) if key in nodes]
    return Lineage(nodes, edges)


def picture(lineage: Lineage) -> Markup:
    """The lineage as SVG, with links; empty columns take no place."""
    used = [at for at in range(len(COLUMNS)) if lineage.column(at)]
    rows = max(len(lineage.column(at)) for at in used)
    high = _TOP + rows * (_HIGH + _GAP_Y)
    places: dict[str, tuple[float, float]] = {}
    drawn = [Markup("")]
    for place, at in enumerate(used):
        column = lineage.column(at)
        x = 2.0 + place * (_WIDE + _GAP_X)
        drawn.append(Markup('<text class="head" x="{}" y="14">{}</text>').format(x, COLUMNS[at]))
        first = _TOP + (rows - len(column)) * (_HIGH + _GAP_Y) / 2
        for row, node in enumerate(column):
            places[node.key] = x, first + row * (_HIGH + _GAP_Y)
    lines = [_edge(places[a], places[b]) for a, b in lineage.edges if a in places and b in places]
    boxes = [_box(node, places[node.key]) for node in lineage.nodes.values()]
    wide = 4 + len(used) * _WIDE + (len(used) - 1) * _GAP_X
    return Markup(
        '<svg class="lineage" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="group" aria-label="Lineage">{all}</svg>'
    ).format(w=wide, h=high, all=Markup("").join(drawn + lines + boxes))


def _edge(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    x, y = start[0] + _WIDE, start[1] + _HIGH / 2
    to, at = end[0], end[1] + _HIGH / 2
    bend = (to - x) / 2
    return Markup('<path d="M{:.1f} {:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}"/>').format(
        x, y, x + bend, y, to - bend, at, to, at
    )


def _box(node: Node, place: tuple[float, float]) -> Markup:
    x, y = place
    kind = f"box {node.state.lower()}" + (" centre" if node.column == 2 else "")
    inside = Markup(
        '<rect class="{}" x="{}" y="{:.1f}" width="{w}" height="{h}" rx="6"/><title>{}</title>'
        # An svg of its own cuts off what is too wide: how wide letters are is not known here.
        '<svg x="{}" y="{:.1f}" width="{inner}" height="{h}"><text class="name" y="20">{}</text><text y="36">{}</text></svg>'
    ).format(
        kind, x, y, f"{node.name}: {node.about}", x + 12, y, _short(node.name), _short(node.about),
        w=_WIDE, h=_HIGH, inner=_WIDE - 18,
    )  # fmt: skip
    return Markup('<a href="{}">{}</a>').format(node.url, inside) if node.url else Markup("<g>{}</g>").format(inside)  # fmt: skip


def _run_node(call: Call, run: Entity, column: int) -> Node:
    state = run["status"]["state"]
    about = f"{state} · {run['id'][:8]}"
    return Node(run["key"], column, shown.function_of(run) or "run", about, _url(call, run["id"]), state)  # fmt: skip


def _entity_node(key: str, name: str, entity: Entity | None, column: int, url: str) -> Node:
    about = f"{entity['kind']} · {entity['name']}" if entity else "not stored here"
    return Node(key, column, name, about, url)


def _maker(call: Call, entity: Entity | None) -> Entity | None:
    """The run that made an entity, as its relationships say."""
    listed: Sequence[Any] = (entity or {}).get("metadata", {}).get("relationships") or []
    for relation in listed:
        if isinstance(relation, dict) and relation.get("type") == "produced_by":
            project, _, identity = str(relation.get("dest")).rpartition(":")
            if project.startswith(f"store://{call.project}/run/"):
                return call.store.get("runs", call.project, identity)
    return None


def _url(call: Call, identity: str) -> str:
    return f"{gate.HOME}p/{quote(call.project, safe='')}/runs/{quote(identity, safe='')}"


def _texts(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return []
    return [(str(name), one) for name, one in value.items() if isinstance(one, str) and one]


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
