# SPDX-License-Identifier: Apache-2.0
"""What is installed: the package with all that it reads at run time, and nothing of the tests."""

import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest

from bpfsnoop.tracer import installed
from running import ROOT

# Left behind by tools, or not of this project.
NOT_SOURCE = (".*", "build", "dist", "*.egg-info", "__pycache__")

CODE = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"tests"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """As pip makes it, from a copy: setuptools leaves its traces in the sources."""
    source, out = tmp_path_factory.mktemp("source") / "bpfsnoop", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    builders = ("setuptools", "wheel")
    here = all(importlib.util.find_spec(builder) for builder in builders)
    options = ["--no-deps", "--quiet", "--no-build-isolation"][: 3 if here else 2]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, source],
        env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    (path,) = out.iterdir()
    with zipfile.ZipFile(path) as made:
        yield made


def _installed(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_all_code_is_installed_and_no_tests(wheel: zipfile.ZipFile) -> None:
    expected = {f"bpfsnoop/{path.name}" for path in ROOT.glob("*.py")}
    for package in CODE:
        expected |= {
            f"bpfsnoop/{path.relative_to(ROOT)}" for path in (ROOT / package).rglob("*.py")
        }
    assert {name for name in _installed(wheel) if name.endswith(".py")} == expected
    assert {"events", "decoders", "rules", "tracer"} == CODE


def test_all_data_is_installed_unchanged(wheel: zipfile.ZipFile) -> None:
    """The kernel program with its headers, eight stubs and wire.h, defaults, schema, rules."""
    kernel = ROOT / "tracer" / "kernel"
    headers = [*(kernel / "include").rglob("*.h")]
    assert len(headers) == 8
    data = [
        ROOT / "config.yaml",
        ROOT / "events" / "wire.h",
        ROOT / "events" / "schema.json",
        ROOT / "rules" / "lists.yaml",
        *(ROOT / "rules" / "pack").rglob("*.yml"),
        *kernel.glob("*.[ch]"),
        *headers,
    ]
    assert {name for name in _installed(wheel) if not name.endswith(".py")} == {
        f"bpfsnoop/{path.relative_to(ROOT)}" for path in data
    }
    for path in data:
        assert wheel.read(f"bpfsnoop/{path.relative_to(ROOT)}") == path.read_bytes()


def test_the_console_script_and_the_licences(wheel: zipfile.ZipFile) -> None:
    about = {name.split(".dist-info/")[1]: name for name in wheel.namelist() if "-info/" in name}
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(about["entry_points.txt"]).decode())
    assert dict(scripts["console_scripts"]) == {"bpfsnoop": "bpfsnoop.__main__:main"}
    metadata = HeaderParser().parsestr(wheel.read(about["METADATA"]).decode())
    assert metadata["Name"] == "bpfsnoop"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line]
    assert {line.split()[0].split(">")[0] for line in required} == {
        "pyyaml", "orjson", "rich", "pysigma", "google-re2",
    }  # fmt: skip
    assert len([name for name in about if "LICENSE" in name.upper() or "GPL" in name]) >= 2


def test_it_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """No file of the repository is needed."""
    wheel.extractall(tmp_path)
    program = "from bpfsnoop.tracer import cli; print(cli.__file__, flush=True); exit(cli.main())"
    for argument in ("schema", "--ebpf", "--version", "--help"):
        shown = subprocess.run(
            [sys.executable, "-c", program, argument],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            check=True,
        )
        first, _, rest = shown.stdout.decode().partition("\n")
        assert Path(first).is_relative_to(tmp_path)
        assert rest
        if argument == "--ebpf":
            assert rest == installed.kernel_program()
