"""A function's code from where people write it: a cell, a module, a notebook. Text in, text out; nothing is executed."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Callable

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.nesting import read_json

_MOST_LITERAL = 4096
"""Characters of a constant that is taken along: more is data, which belongs to inputs."""
_FUTURE = "from __future__ import annotations"


def text_of(function: Callable[..., Any]) -> tuple[str, str]:
    """(a module's text with the function and what it needs, the function's name).

    What it names is found by its code: functions, classes and constants of the same place are taken
    along, and what they need; what was imported is imported.

    Raises:
        SourceFault: source/func, naming all that cannot be taken along, and why.
    """
    if not isinstance(function, FunctionType) or not function.__name__.isidentifier():
        raise _refused(
            f"{function!r} is not a function with a name", "Write it with def, at the top level."
        )
    if function.__qualname__ != function.__name__ or function.__code__.co_freevars:
        free = ", ".join(function.__code__.co_freevars)
        raise _refused(
            f"{function.__qualname__}() is defined inside another function or a class"
            + (f" and uses its {free}" if free else ""),
            "Write it at the top level, and pass what it needs as parameters.",
        )
    found = _Gathered(function)
    found.take(function.__name__, function)
    if found.problems:
        raise _refused(
            f"{function.__name__}() needs what cannot be taken along: {'; '.join(found.problems)}",
            "Pass values as parameters or inputs, or the whole folder as code_src.",
        )
    return found.text(), function.__name__


def notebook_text(path: Path) -> str:
    """The code cells of a notebook, one below the other.

    Raises:
        SourceFault: source/notebook, for a file that is not a notebook, or a magic, by cell and line.
    """
    try:
        cells = read_json(path.read_text("utf-8"))["cells"]
        codes = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as exc:
        raise SourceFault(
            "source/notebook", f"{path} is not a notebook of format 4.", "Save it with Jupyter."
        ) from exc
    for number, code in enumerate(codes, 1):
        _refuse_magic(path, number, code)
    return "\n\n".join(code.rstrip() for code in codes if code.strip()) + "\n"


def _refuse_magic(path: Path, number: int, code: str) -> None:
    try:
        ast.parse(code)
    except SyntaxError as exc:
        lines = code.splitlines()
        magics = [n for n, text in enumerate(lines, 1) if text.lstrip().startswith(("%", "!", "?"))]
        line = magics[0] if magics else exc.lineno or 1
        raise SourceFault(
            "source/notebook",
            f"{path.name}, code cell {number}, line {line} is not Python: {lines[line - 1].strip()[:60]!r}.",
            "Remove it or correct it: packages go to requirements, shell commands to subprocess.",
        ) from exc


class _Gathered:
    """What a function needs, found by its names, in an order in which it can be executed."""

    def __init__(self, function: FunctionType) -> None:
        self.namespace: Mapping[str, Any] = function.__globals__
        self.home = function.__module__
        self.problems: list[str] = []
        self._imports: dict[str, None] = {}
        self._constants: dict[str, str] = {}
        self._definitions: dict[str, str] = {}
        self._seen: set[str] = set()
        self._future = False
        self._statements = _import_statements(self.namespace)

    def text(self) -> str:
        """The module's text: imports, constants, then definitions, what is needed before what needs it."""
        constants = [f"{name} = {value}" for name, value in self._constants.items()]
        parts = [_FUTURE] if self._future else []
        for part in ("\n".join(self._imports), "\n".join(constants)):
            parts += [part] if part else []
        return "\n\n\n".join(["\n\n".join(parts), *self._definitions.values()]).lstrip() + "\n"

    def take(self, name: str, value: Any) -> None:
        """Take along what `name` means, and all that it needs."""
        if name in self._seen:
            return
        self._seen.add(name)
        if isinstance(value, ModuleType):
            self._import(name, value, f"import {value.__name__} as {name}")
        elif isinstance(value, (FunctionType, type)) and value.__module__ == self.home:
            self._define(name, value)
        elif (literal := _literal(value)) is not None:
            self._constants[name] = literal
        elif (
            getattr(value, "__module__", None) and getattr(value, "__qualname__", "").isidentifier()
        ):
            module = sys.modules.get(value.__module__)
            statement = f"from {value.__module__} import {value.__qualname__} as {name}"
            self._import(name, module, statement)
        elif name in self._statements:
            self._imports.update(dict.fromkeys(self._statements[name]))
        else:
            self.problems.append(f"{name}, which is a {type(value).__name__}")

    def _import(self, name: str, module: ModuleType | None, statement: str) -> None:
        if module is not None and not _is_installed(module):
            where = getattr(module, "__file__", None) or module.__name__
            self.problems.append(f"{name}, which comes from {where}")
            return
        self._imports.update(dict.fromkeys(self._statements.get(name) or [_plain(statement)]))

    def _define(self, name: str, value: Any) -> None:
        try:
            text = textwrap.dedent(inspect.getsource(value))
            tree = ast.parse(text)
        except (OSError, TypeError, SyntaxError):
            self.problems.append(f"{name}, whose source is not known")
            return
        if value.__qualname__ != name:
            self.problems.append(f"{name}, which is {value.__qualname__} by another name")
            return
        flags = getattr(getattr(value, "__code__", None), "co_flags", 0)
        self._future = self._future or bool(flags & 0x1000000)
        for used in _free_names(tree):
            if used in self.namespace:
                self.take(used, self.namespace[used])
            elif used in self._statements:  # for hints alone: under TYPE_CHECKING
                self._imports.update(dict.fromkeys(self._statements[used]))
            elif not hasattr(builtins, used):
                self.problems.append(f"{used}, which is not defined")
        for used in _quoted_names(tree):
            if used in self.namespace:
                self.take(used, self.namespace[used])
        self._definitions[name] = text.rstrip()


def _free_names(tree: ast.Module) -> Iterator[str]:
    """Names that a definition takes from around it, each once, in their order."""
    import symtable

    table = symtable.symtable(ast.unparse(tree), "cell", "exec")
    own = {s.get_name() for s in table.get_symbols() if s.is_assigned()}
    found: dict[str, None] = {}

    def look(part: symtable.SymbolTable) -> None:
        for symbol in part.get_symbols():
            top = part.get_type() == "module"
            if symbol.is_referenced() and (top or symbol.is_global()):
                found[symbol.get_name()] = None
        for child in part.get_children():
            look(child)

    look(table)
    yield from (name for name in found if name not in own)


def _quoted_names(tree: ast.Module) -> Iterator[str]:
    """Names in hints that are written as text."""
    for node in ast.walk(tree):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for part in ast.walk(hint) if isinstance(hint, ast.AST) else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    with contextlib.suppress(SyntaxError, ValueError):
                        inside = ast.walk(ast.parse(part.value, mode="eval"))
                        yield from (n.id for n in inside if isinstance(n, ast.Name))


def _import_statements(namespace: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name -> the statements of its module, or of the session's cells, that import it."""
    cells = namespace.get("In")
    texts = [str(cell) for cell in cells] if isinstance(cells, list) else []
    file = namespace.get("__file__")
    if file and not texts and Path(file).is_file():
        texts = [Path(file).read_text("utf-8", "replace")]
    found: dict[str, list[str]] = {}
    for text in texts:
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError):
            continue  # a cell with a magic
        for node in nodes:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(node, ast.ImportFrom) and (node.level or node.module == "__future__"):
                continue
            for alias in node.names:
                _note(found, node, alias)
    return found


def _note(found: dict[str, list[str]], node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
    one: ast.Import | ast.ImportFrom
    if isinstance(node, ast.ImportFrom):
        one = ast.ImportFrom(node.module, [alias], 0)
        found[alias.asname or alias.name] = [ast.unparse(one)]
        return
    one = ast.Import([alias])
    if alias.asname:
        found[alias.asname] = [ast.unparse(one)]
    else:  # `import xml.etree` and `import xml.dom` both bind `xml`
        statements = found.setdefault(alias.name.partition(".")[0], [])
        if ast.unparse(one) not in statements:
            statements.append(ast.unparse(one))


def _is_installed(module: ModuleType) -> bool:
    """Whether a module is the standard library's or a package's, and not a file of the user's own."""
    top = module.__name__.partition(".")[0]
    if top in sys.builtin_module_names or top == __name__.partition(".")[0]:
        return True
    spec = importlib.util.find_spec(top) if top in sys.modules else None
    places = [getattr(module, "__file__", None), getattr(spec, "origin", None)]
    places += list(getattr(module, "__path__", []))
    installed = [
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    paths = [str(place) for place in places if place]
    if not paths or any(p in ("built-in", "frozen") for p in paths):
        return True
    if any("site-packages" in p or "dist-packages" in p for p in paths):
        return True
    if any(p.startswith(str(place)) for p in paths for place in installed if place):
        return True
    return _has_distribution(top)


def _has_distribution(top: str) -> bool:
    """Whether a package was installed from a folder of its own (an editable install)."""
    import importlib.metadata

    find = getattr(importlib.metadata, "packages_distributions", None)
    return bool(find and top in find())


def _literal(value: Any) -> str | None:
    """A constant as text from which it can be made again; None for what is not a constant."""
    if isinstance(value, (type, FunctionType)):
        return None
    text = repr(value)
    if len(text) > _MOST_LITERAL:
        return None
    try:
        again = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return text if type(again) is type(value) and again == value else None


def _plain(statement: str) -> str:
    """`import a as a` is `import a`."""
    begin, _, name = statement.rpartition(" as ")
    return begin if begin.endswith(f" {name}") else statement


def _refused(message: str, hint: str) -> SourceFault:
    return SourceFault("source/func", f"{message}.", hint)
