# SPDX-License-Identifier: Apache-2.0
"""Files of rules: which are read, by whom, what is kept, and what is said if they cannot be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpfsnoop.events.errors import UsageError
from bpfsnoop.rules.rule import Rule
from bpfsnoop.tracer import rule_files
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.rule_files import load
from rule_texts import correlation, detection

ROOT_USER = {"user.id": 0}
NOWHERE = Cache("")


def names(found: tuple[Rule, ...]) -> list[str]:
    return [rule.name for rule in found]


def mistakes(*paths: Path) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load([str(path) for path in paths], {}, NOWHERE)
    return list(map(str, caught.value.mistakes))


@pytest.fixture
def rules_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    (directory / "more").mkdir(parents=True)
    (directory / "b.yml").write_text(detection(ROOT_USER, name="b"))
    (directory / "a.yaml").write_text(detection(ROOT_USER, name="a"))
    (directory / "more" / "c.yml").write_text(detection(ROOT_USER, name="c"))
    (directory / "README").write_text("no rule")
    (directory / ".draft.yml").write_text("no rule")
    return directory


def test_files_and_directories_are_read_in_a_known_order(rules_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "z.rules"
    other.write_text(detection(ROOT_USER, name="z"))
    found = load([str(other), str(rules_dir), str(rules_dir / "b.yml")], {}, NOWHERE)
    assert names(found) == ["z", "a", "b", "c"]
    assert found[1].path == str(rules_dir / "a.yaml")


def test_rules_may_refer_to_those_in_other_files(rules_dir: Path) -> None:
    text = correlation("all", type="temporal", rules=["a", "b", "c"])
    (rules_dir / "0.yml").write_text(text)
    assert names(load([str(rules_dir)], {}, NOWHERE)) == ["all", "a", "b", "c"]


def test_lists_of_the_site_fill_in_placeholders(rules_dir: Path) -> None:
    (rules_dir / "b.yml").write_text(detection({"process.executable|expand": "%trusted%"}))
    with pytest.raises(UsageError, match="there is no list trusted"):
        load([str(rules_dir)], {}, NOWHERE)
    assert load([str(rules_dir)], {"trusted": ["/a"]}, NOWHERE)


@pytest.mark.parametrize("field", ["bpf.alert.level", "bpf.folded.calls", "bpf.inventory.prog"])
def test_a_rule_about_what_is_never_judged_is_a_mistake(rules_dir: Path, field: str) -> None:
    (rules_dir / "b.yml").write_text(detection({field: 1}))
    (told,) = mistakes(rules_dir)
    assert f"there is no field {field}" in told


def test_everything_wrong_with_any_file_is_told_at_once(rules_dir: Path, tmp_path: Path) -> None:
    (rules_dir / "b.yml").write_text(detection({"user.idd": 0}))
    (rules_dir / "x.yml").write_bytes(b"title: a\n# \xff\n")
    (rules_dir / "y.yml").write_bytes(b"#" * (rule_files.FILE_MAX + 1))
    os.mkfifo(rules_dir / "z.yml")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert sorted(mistakes(rules_dir, empty, tmp_path / "gone.yml", rules_dir / "a.yaml")) == [
        f"{empty}: no rules (*.yml) are in this directory",
        f"{tmp_path}/gone.yml: cannot read it: No such file or directory",
        f"{rules_dir}/b.yml:1: user.idd: there is no field user.idd; did you mean user.id?",
        f"{rules_dir}/x.yml:2: not UTF-8",
        f"{rules_dir}/y.yml: a file of rules has 256 KB at most",
        f"{rules_dir}/z.yml: not a file",
    ]


def test_paths_that_cannot_be_any(tmp_path: Path) -> None:
    """The empty one is a variable that was not set, and not the current directory."""
    long, loop = "a" * 5000, tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UsageError) as caught:
        load([long, "", str(loop), "a\0b"], {}, NOWHERE)
    assert list(map(str, caught.value.mistakes)) == [
        "a path of rules is empty",
        f"{long}: cannot read it: File name too long",
        f"{loop}: cannot read it: Too many levels of symbolic links",
        "a\0b: embedded null byte",
    ]


def test_too_many_files_are_too_many(rules_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_files, "FILES_MAX", 2)
    assert [mistake for mistake in mistakes(rules_dir) if "more than 2 files" in mistake]


def test_rules_are_read_once_and_kept_until_something_changes(
    rules_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(str(tmp_path / "cache"))
    ran: list[int] = []
    run = rule_files._run

    def counted(question: int, reply: int) -> int:
        ran.append(1)
        return run(question, reply)

    monkeypatch.setattr(rule_files, "_run", counted)
    first = load([str(rules_dir)], {}, cache)
    assert load([str(rules_dir)], {}, cache) == first
    assert len(ran) == 1
    load([str(rules_dir)], {"trusted": ["/a"]}, cache)
    assert len(ran) == 2
    (rules_dir / "b.yml").write_text(detection({"user.id": 7}, name="b"))
    assert load([str(rules_dir)], {"trusted": ["/a"]}, cache) != first
    assert len(ran) == 3
    monkeypatch.setattr(rule_files, "_version", lambda: "another")
    load([str(rules_dir)], {"trusted": ["/a"]}, cache)
    assert len(ran) == 4


def test_rules_that_are_wrong_are_not_kept(rules_dir: Path, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"))
    good = load([str(rules_dir)], {}, cache)
    (rules_dir / "d.yml").write_text("no rule")
    for _ in range(2):
        with pytest.raises(UsageError):
            load([str(rules_dir)], {}, cache)
    (rules_dir / "d.yml").unlink()
    assert load([str(rules_dir)], {}, cache) == good


def test_the_process_that_loads_holds_neither_pysigma_nor_a_yaml_parser(rules_dir: Path) -> None:
    program = """
import sys
from bpfsnoop.rules.engine import Engine
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.rule_files import load
print(len(Engine(load(sys.argv[1:], {}, Cache(""))).rules))
print({"sigma", "yaml", "pyparsing", "re2"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(rules_dir)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "set()"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("bytearray(1 << 30)", "more than 512 MB"),
        ("exec('while True: pass')", "more than a minute"),
    ],
)
def test_a_child_that_takes_too_much_ends_and_says_so(
    rules_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    text: str, what: str,
) -> None:  # fmt: skip
    """The limits are set by the child itself before it looks at any rule."""
    child = Path(rule_files.__file__).with_name("rule_child.py").read_text()
    assert "RLIMIT_AS: 1 << 29" in child
    assert "RLIMIT_CPU: 60" in child
    greedy = child.replace("from ..", "from bpfsnoop.").replace("from .", "from bpfsnoop.tracer.")
    greedy = greedy.replace("RLIMIT_CPU: 60", "RLIMIT_CPU: 1")
    (tmp_path / "greedy.py").write_text(greedy.replace("known = Known(", f"{text}; known = Known("))
    monkeypatch.setattr(rule_files, "_CHILD", "greedy")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (told,) = mistakes(rules_dir)
    assert told == f"the rules take {what} to read"


def test_signals_of_ended_children_may_be_ignored(
    rules_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are for all that a shell starts after trap '' CHLD."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert names(load([str(rules_dir)], {}, NOWHERE)) == ["a", "b", "c"]
        monkeypatch.setattr(rule_files, "_CHILD", "no.such.module")
        assert "ended early" in mistakes(rules_dir)[0]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_limits_that_are_lower_already_are_kept(rules_dir: Path) -> None:
    program = """
import resource, sys
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.rule_files import load
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
print(len(load(sys.argv[1:], {}, Cache(""))))
"""
    command = [sys.executable, "-c", program, str(rules_dir)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-sys_resource", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_a_current_directory_with_modules_in_it_is_of_no_interest(
    rules_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is root's; whoever has a directory called sigma there is not."""
    (tmp_path / "sigma.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert len(load([str(rules_dir)], {}, NOWHERE)) == 3
