# SPDX-License-Identifier: Apache-2.0
"""Commands on BTF objects."""

from ..events.memory import Quoted
from . import uapi
from .layout import Command, Moment, data, fd, log, never, pointer, u32

BTF_LOAD = Command(18, "BPF_BTF_LOAD", [
    [
        pointer("btf", data("btf_size", limit=256, content=Quoted())),
        pointer("btf_log_buf", log("btf_log_size", "btf_log_true_size")),
        u32("btf_size"),
        u32("btf_log_size"),
        u32("btf_log_level"),
    ],
    u32("btf_log_true_size", moment=Moment.EXIT),
    [
        u32("btf_flags", uapi.FILE_FLAGS),
        fd("btf_token_fd", zero=never),
    ],
], returns_fd=True)  # fmt: skip

COMMANDS = (BTF_LOAD,)
