# SPDX-License-Identifier: Apache-2.0
"""The table of helper functions against the kernel's header and its BTF."""

import os
import re
import subprocess

import pytest

from bpfsnoop.decoders import helpers
from bpfsnoop.decoders.helpers import HELPERS, name
from bpfsnoop.tracer import btf

PREFIX = "BPF_FUNC_"
COUNT = re.compile(r"__BPF_FUNC_MAX_ID")


def _named(constants: dict[int, str]) -> dict[int, str]:
    # The last one is a count.
    return {
        number: constant.replace(PREFIX, "bpf_", 1)
        for number, constant in constants.items()
        if not COUNT.fullmatch(constant)
    }


def test_the_running_kernel_calls_them_so() -> None:
    if not btf.VMLINUX.exists():
        assert os.environ.get("BPFSNOOP_LIVE") != "1", f"{btf.VMLINUX} is missing"
        pytest.skip(f"this kernel has no {btf.VMLINUX}")
    theirs = _named(btf.kernel_names([btf.HELPERS])[btf.HELPERS])
    assert len(theirs) > 150
    ours = {number: HELPERS.get(number) for number in theirs}
    assert ours == theirs


def test_the_header_calls_them_so() -> None:
    done = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"],
        input="#include <linux/bpf.h>", capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"\benum bpf_func_id \{(.*?)\}", done.stdout, re.DOTALL)
    if found is None:
        pytest.skip("no <linux/bpf.h>")
    constants: dict[int, str] = {}
    number = -1
    for constant in filter(None, map(str.strip, found[1].split(","))):
        symbol, _, value = constant.partition("=")
        number = int(value) if value else number + 1
        constants[number] = symbol.strip()
    theirs = _named(constants)
    assert len(theirs) > 150
    assert {number: HELPERS.get(number) for number in theirs} == theirs


def test_none_is_missing_in_between() -> None:
    assert list(HELPERS) == list(range(212))
    assert HELPERS[1] == "bpf_map_lookup_elem"
    assert HELPERS[helpers.BPF_FUNC_tail_call] == "bpf_tail_call"
    assert HELPERS[211] == "bpf_cgrp_storage_delete"


@pytest.mark.parametrize("number", [-(1 << 31), -1, 212, (1 << 31) - 1])
def test_every_number_has_a_name(number: int) -> None:
    assert name(number) == f"unknown#{number}"
    assert name(113) == "bpf_probe_read_kernel"
