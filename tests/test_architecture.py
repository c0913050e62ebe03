# SPDX-License-Identifier: Apache-2.0
"""The house rules of docs/architecture.md that can be read off the source.

Arrows point one way: tracer -> {decoders, rules} -> events. What is below the tracer is
pure: it has no clock, opens nothing, prints nothing.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bpfsnoop

ROOT = Path(str(bpfsnoop.__file__)).parent

# Each floor, and those that it may stand on.
FLOORS = {
    "events": {"events"},
    "decoders": {"decoders", "events"},
    "rules": {"rules", "events"},
    "tracer": {"tracer", "decoders", "rules", "events"},
}
PURE = {"events", "decoders", "rules"}

# All that the pure floors take from the standard library.
PURE_LIBRARY = {
    "array", "bisect", "collections", "collections.abc", "dataclasses", "datetime", "difflib",
    "enum", "errno", "functools", "heapq", "ipaddress", "itertools", "re", "struct", "types",
    "typing",
}  # fmt: skip
# Functions of it, and builtins, that pure code does not call.
IMPURE = {
    "__import__", "breakpoint", "eval", "exec", "exit", "input", "now", "open", "print", "quit",
    "today", "utcnow",
}  # fmt: skip
# What only these modules may use beside it.
ALLOWED = {
    "events.ecs": {"orjson"},  # writes JSON
    "events.typed": {"sys.byteorder"},  # of this machine, as recordings are
    "events.text": {"os.strerror"},  # a table in libc
    "decoders.tag": {"_sha1", "_sha256", "hashlib"},  # the first two without OpenSSL: 5 MB
    # What reads rules, in a process of its own; rules/sigma/__init__.py says why.
    "rules.sigma.lines": {"yaml"},
    "rules.sigma.lists": {"yaml"},
    "rules.sigma.examples": {"sigma.correlations", "sigma.exceptions"},
    "rules.sigma.values": {"sigma.conditions", "sigma.types"},
    "rules.sigma.detection": {"sigma.modifiers", "sigma.rule"},
    "rules.sigma.correlation": {"sigma.correlations", "sigma.exceptions", "math"},
    "rules.sigma.read": {
        "sigma.correlations",
        "sigma.exceptions",
        "sigma.filters",
        "sigma.rule",
    },
    "rules.pattern": {"re2"},  # in linear time
    "tracer.config_file": {"yaml"},
    "tracer.compiler": {"bcc"},  # a process of its own: bcc maps libLLVM
    "tracer.delivery.kafka": {"confluent_kafka"},
    "tracer.delivery.metrics": {"prometheus_client", "prometheus_client.openmetrics"},
    "tracer.doctor": {"rich.console", "rich.table", "rich.text"},  # a table in colour
}
# Imports not at the top: mostly they wait until a function runs, as bcc does, which is not
# there for --help and replays.
LATE = {
    "decoders.tag": {"sha1", "sha256"},  # whichever is there
    "tracer.compiler": {"bcc"},
    "tracer.delivery.metrics": {"core", "exposition"},  # a sentence if it is not there
    "tracer.delivery.kafka": {"confluent_kafka"},  # 9 MB, only for a sink of this kind
    "rules.pattern": {"re2"},  # 3 MB, only for rules with regular expressions
    "tracer.judge": {"load"},  # what starts a parser, only with --rules
    # What imports Rich: 3 MB; what reads classic BPF: 0.1 MB, and 0.4 MB where bytecode is not
    # kept; what only the daemon is made of.
    "tracer.cli": {"doctor", "doubts", "listing", "rule_table", "serve"},
    # For --strace-compat: 1 MB.
    "tracer.attach": {"strace"},
    "tracer.sinks": {"strace_view"},
    "tracer.delivery.connection": {"tls"},  # 5 MB, only for TLS
}


def source_files() -> dict[str, Path]:
    """Every module of the house, by its dotted name."""
    files = (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
    return {_module_name(path): path for path in files}


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = source_files()
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


# --- What is wrong with a module ---------------------------------------------------------


def own_imports(module: str, tree: ast.AST) -> Iterator[str]:
    """The modules of the house that it imports; what does not exist as it is written."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = package.split(".")
        base = ".".join([*above[: len(above) - node.level + 1], *(node.module or "").split(".")])
        base = base.strip(".")
        inner = {name for alias in node.names if (name := f"{base}.{alias.name}") in FILES}
        # ``from .. import x`` where x is no module would reach for the package itself.
        yield from inner or {base}


def foreign_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


def faults(module: str, source: str) -> list[str]:
    """What breaks the rules in the source of a module."""
    tree = ast.parse(source)
    return [*_import_faults(module, tree), *_purity_faults(module, tree)]


def _import_faults(module: str, tree: ast.Module) -> Iterator[str]:
    floor = _top(module)
    for name in own_imports(module, tree):
        if name not in FILES:
            yield f"imports {name or 'the root'}, which is not a module of the house"
        elif _top(name) not in FLOORS[floor]:
            yield f"imports {name}: the arrows point the other way"
    allowed = ALLOWED.get(module, set())
    for name in foreign_imports(tree):
        if _top(name) == "bpfsnoop":
            yield f"imports {name} by its full name"
        elif _top(name) not in sys.stdlib_module_names and name not in allowed:
            yield f"imports {name}"
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and _last(node) == "TYPE_CHECKING":
            yield "has imports that only a type checker sees"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if "*" in names:
                yield "imports *"
            late = LATE.get(module, set())
            if id(node) not in at_top and not names <= late:
                yield f"imports {names} somewhere below the top"
            if id(node) in at_top and names & late:
                yield f"imports {names & late} before it is needed"


def _purity_faults(module: str, tree: ast.Module) -> Iterator[str]:
    if _top(module) not in PURE:
        return
    allowed = PURE_LIBRARY | ALLOWED.get(module, set())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module not in allowed:
            yield f"imports from {node.module}, which is not among what pure code may use"
        if isinstance(node, ast.Import):
            used = _used_of(tree, {alias.name for alias in node.names})
            yield from (f"uses {name}" for name in used - allowed if _top(name) not in allowed)
        if isinstance(node, ast.Call) and _last(node.func) in IMPURE:
            yield f"calls {ast.unparse(node.func)}"


def _used_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """``os.strerror``, ``errno.errorcode``: what is used of imported modules."""
    attributes = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    dotted = {name for name in attributes if name.replace(".", "").isidentifier()}
    return {name for name in dotted if _top(name) in modules} or modules


def _top(dotted: str) -> str:
    return dotted.partition(".")[0]


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


# --- The house ---------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_module_keeps_the_rules(module: str) -> None:
    assert not faults(module, FILES[module].read_text())


def test_all_floors_are_looked_at() -> None:
    assert set(map(_top, FILES)) == FLOORS.keys()
    assert {"events.value", "decoders.layout", "tracer.compiler"} <= FILES.keys()


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {
        name: set(own_imports(name, ast.parse(path.read_text()))) for name, path in FILES.items()
    }
    assert graph["decoders.table"] >= {"decoders.maps", "decoders.layout"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_but_the_child_that_reads_rules_reaches_pysigma() -> None:
    """The daemon must not hold it: neither its memory nor its parser."""
    graph = {
        name: set(own_imports(name, ast.parse(path.read_text()))) for name, path in FILES.items()
    }
    readers = {name for name in FILES if name.startswith("rules.sigma.")}
    users = {name for name, used in graph.items() if used & readers} - readers
    assert users == {"tracer.rule_child"}
    assert not [name for name, used in graph.items() if "tracer.rule_child" in used]


def test_the_root_and_the_floors_import_nothing() -> None:
    for path in [ROOT / "__init__.py", *(FILES[name] for name in PACKAGES)]:
        tree = ast.parse(path.read_text())
        assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("events.call", "from ..decoders.table import COMMANDS"),
        ("events.call", "from ..tracer import cli"),
        ("decoders.maps", "from ..tracer.ring import Ring"),
        ("decoders.maps", "from ..rules import engine"),
        ("rules.engine", "from ..decoders import uapi"),
        ("rules.engine", "from sigma.rule import SigmaRule"),
        ("rules.condition", "import yaml"),
        ("rules.pattern", "import re2"),
        ("decoders.maps", "from bpfsnoop.events.call import Call"),
        ("decoders.maps", "from .nowhere import X"),
        ("decoders.maps", "from .. import __doc__"),
        ("decoders.maps", "from .uapi import *"),
        ("decoders.maps", "import orjson"),
        ("events.call", "import requests"),
        ("events.call", "import time"),
        ("events.call", "import pathlib"),
        ("events.call", "import os"),
        ("events.text", "import os\nos.getpid()"),
        ("events.text", "from os import getpid"),
        ("events.call", "import sys\nsys.exit(1)"),
        ("events.call", "print('hello')"),
        ("events.call", "def f():\n    return open('/etc/passwd')"),
        ("events.ecs", "from datetime import datetime\ndatetime.now()"),
        ("events.call", "def f():\n    import re"),
        ("tracer.cli", "def f():\n    import bcc"),
        ("tracer.cli", "import bcc"),
        ("tracer.cli", "import yaml"),
        ("tracer.cli", "from . import doctor"),
        ("tracer.cli", "import rich.console"),
        ("tracer.loader", "def f():\n    import bcc"),
        ("tracer.compiler", "def f():\n    import yaml"),
        ("tracer.compiler", "import bcc"),
        ("events.call", "import hashlib\nhashlib.sha256(b'')"),
        ("events.text", "import os\nos.unlink(x)"),
        ("events.process_document", "from ..tracer.process import ProcFs"),
        ("decoders.capture", "from ..tracer.own import BpfMap"),
        ("tracer.cli", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import re"),
        ("tracer.cli", "import typing\nif typing.TYPE_CHECKING:\n    pass"),
        ("tracer.cli", "try:\n    import json\nexcept ImportError:\n    pass"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert faults(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("events.ecs", "import orjson\norjson.dumps({})"),
        ("decoders.table", "from . import maps\nfrom .layout import Command"),
        ("decoders.maps", "from ..events import value\nfrom ..events.call import Call"),
        ("tracer.cli", "import time\nfrom ..decoders.decode import Decoder\nprint(time.time())"),
        ("tracer.compiler", "def f():\n    import bcc"),
        ("events.text", "import os\nos.strerror(1)"),
        ("decoders.capture", "from ..events.wire import COMMAND_PLAN"),
    ],
)
def test_what_is_allowed_is_not(module: str, source: str) -> None:
    assert not faults(module, source)
