# SPDX-License-Identifier: Apache-2.0
"""Files of rules -> rules.

They are parsed by pySigma, in a child: a parser of what others wrote has no place in a
process of root's that runs for months, nor have its 16 MB. What came out is kept
(tracer/cache.py), so that mostly there is no such child either.
"""

import importlib.util
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import source_hash
from pathlib import Path
from typing import Any, Final

from ..events.errors import Mistake, UsageError
from ..rules.fields import Fields, fields
from ..rules.rule import Rule, from_json, to_json
from . import installed
from .cache import Form, Keeper

FILE_MAX: Final = 1 << 18
"""Bytes."""
FILES_MAX: Final = 2_000
ALL_MAX: Final = 1 << 23
"""Bytes, of all files together."""

_CHILD: Final = f"{__package__}.rule_child"
_READERS: Final = (
    "py[sS]igma-*.dist-info", "google_re2-*.dist-info", "[pP]y[yY][aA][mM][lL]-*.dist-info",
)  # fmt: skip
_SUFFIXES: Final = (".yml", ".yaml")
_FORM: Final[Form[tuple[Rule, ...]]] = Form("rules.json", to_json, from_json)

_OURS: Final = "default"
_NOT_JUDGED: Final = "/alert", "/folded", "/daemon"
"""Documents that no rule is asked about: of what was judged before, and of ourselves."""

Lists = Mapping[str, Sequence[str]]


def load(
    paths: Sequence[str], lists: Lists, cache: Keeper, *, with_examples: bool = False
) -> tuple[Rule, ...]:
    """The rules in these files, in the order of the files.

    :param paths: of files, or of directories with files below them that end in .yml or .yaml;
        ``default`` is the directory of our own.
    :param lists: what ``%name%`` stands for in rules, beside our own lists or in the place of
        one of them. An item ``%name%`` stands for all that our own has.
    :raises UsageError: with every mistake in any of them.
    """
    mistakes: list[Mistake] = []
    files = list(_texts(_files(paths, mistakes), mistakes))
    request = json.dumps({
        "files": files, "fields": _judged_fields(), "lists": lists,
        "our_lists": installed.RULE_LISTS.read_text(encoding="utf-8"),
        "with_examples": with_examples,
    }).encode()  # fmt: skip
    if mistakes:
        mistakes += _mistakes_in(_asked(request))
        raise UsageError(mistakes)
    key = f"{source_hash(request).hex()} {_version()}"
    return cache.get(_FORM, key, lambda: _read(request))


def _judged_fields() -> Fields:
    schema = json.loads(installed.SCHEMA.read_bytes())
    kinds = [kind for kind in schema["oneOf"] if not kind["$ref"].endswith(_NOT_JUDGED)]
    return fields({**schema, "oneOf": kinds})


def _files(paths: Sequence[str], mistakes: list[Mistake]) -> Iterator[Path]:
    if "" in paths:
        mistakes.append(Mistake("a path of rules is empty"))
    for path in (installed.RULES if path == _OURS else Path(path) for path in paths if path):
        if not os.path.isdir(path):  # Path.is_dir() raises what it cannot look at
            yield path
            continue
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in _SUFFIXES and not file.name.startswith(".")
        )
        if not found:
            mistakes.append(Mistake("no rules (*.yml) are in this directory", str(path)))
        yield from found


def _texts(files: Iterator[Path], mistakes: list[Mistake]) -> Iterator[tuple[str, str]]:
    seen: set[Path] = set()
    total = 0
    for file in files:
        if file in seen:
            continue
        seen.add(file)
        try:
            content = _content(file)
            total += len(content)
            if len(seen) > FILES_MAX or total > ALL_MAX:
                mistakes.append(Mistake(f"these are more than {FILES_MAX} files of rules, or"
                                        f" {ALL_MAX >> 20} MB", str(file)))  # fmt: skip
                return
            yield str(file), content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            mistakes.append(Mistake("not UTF-8", str(file), line))
        except OSError as error:
            mistakes.append(Mistake(f"cannot read it: {error.strerror}", str(file)))
        except ValueError as error:
            mistakes.append(Mistake(str(error), str(file)))


def _content(path: Path) -> bytes:
    # Without waiting for whoever may write to a pipe of that name.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a file")
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise ValueError(f"a file of rules has {FILE_MAX >> 10} KB at most")
    return content


def _read(request: bytes) -> tuple[Rule, ...]:
    answer = _asked(request)
    if mistakes := _mistakes_in(answer):
        raise UsageError(mistakes)
    try:
        return from_json(answer["rules"])
    except (KeyError, ValueError) as error:
        raise UsageError([Mistake(f"the rules did not arrive: {error}")]) from error


def _mistakes_in(answer: Mapping[str, Any]) -> list[Mistake]:
    return [Mistake(*mistake) for mistake in answer.get("mistakes", ())]


def _asked(request: bytes) -> Mapping[str, Any]:
    # Files in memory, so that neither side waits for the other; the child has its limits.
    question, reply = os.memfd_create("rules"), os.memfd_create("reply")
    try:
        with open(question, "wb", closefd=False) as file:
            file.write(request)
        os.lseek(question, 0, os.SEEK_SET)
        status = _run(question, reply)
        os.lseek(reply, 0, os.SEEK_SET)
        with open(reply, "rb", closefd=False) as file:
            text = file.read()
    finally:
        os.close(question)
        os.close(reply)
    if status or not text:
        return {"mistakes": [Mistake(_why(status))]}
    answer: Mapping[str, Any] = json.loads(text)
    return answer


def _run(question: int, reply: int) -> int:
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", _CHILD],  # -P: nothing of the current directory
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, question, 0),
            (os.POSIX_SPAWN_DUP2, reply, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),  # RE2 says there what we say
        ],
    )
    try:
        return os.waitpid(child, 0)[1]
    except ChildProcessError:  # whoever started us ignores SIGCHLD: nobody keeps the status
        return 0


def _why(status: int) -> str:
    if importlib.util.find_spec("sigma") is None:
        return "pySigma, which reads rules, is not installed: pip install 'pysigma>=2.0.1,<3'"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "the rules take more than a minute to read"
    return f"reading the rules ended early (wait status {status})"


def _version() -> str:
    # Of all that makes rules of files, without importing it.
    ours = source_hash(b"".join(path.read_bytes() for path in installed.rule_sources())).hex()
    spec = importlib.util.find_spec("sigma")
    where = spec.submodule_search_locations if spec else None
    beside = [Path(path).parent for path in where or ()]
    found = (path.name for place in beside for name in _READERS for path in place.glob(name))
    return " ".join([ours, *sorted(found)])
