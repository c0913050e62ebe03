# SPDX-License-Identifier: Apache-2.0
"""Makes maps that have BTF, puts something in them and takes it out.

As a program it says who it is, waits for a line, does that, says what the maps are, and keeps
them until another line::

    python tests/typed_maps.py
"""

import json
import os
import struct
import sys

import made_btf
import stimulus as bpf

ENTRIES = 3
_PERCPU_ARRAY = 6


def main() -> None:
    os.write(1, b"ready %d\n" % os.getpid())
    sys.stdin.readline()
    btf, key, value = made_btf.of_a_map()
    numbers = made_btf.MadeBtf()
    u32 = numbers.integer("unsigned int", 4)
    fds = [bpf.btf_load(btf), bpf.btf_load(numbers.data())]
    types = {"btf_fd": fds[0], "btf_key_type_id": key, "btf_value_type_id": value}
    table = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 20, 24, 64, map_name=b"typed", **types)
    types = {"btf_fd": fds[1], "btf_key_type_id": u32, "btf_value_type_id": u32}
    per_cpu = bpf.map_create(_PERCPU_ARRAY, 4, 4, 4, map_name=b"cpus", **types)
    plain = bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, 4, 4, 1, map_name=b"plain")
    bpf.map_update_elem(table, made_btf.KEY, made_btf.VALUE)
    bpf.map_lookup_elem(table, made_btf.KEY, 24)
    keys = b"".join(struct.pack("=I16s", number, b"batch") for number in range(ENTRIES))
    bpf.map_update_batch(table, keys, made_btf.VALUE * ENTRIES, ENTRIES)
    cpus = os.sysconf("SC_NPROCESSORS_CONF")
    bpf.map_lookup_elem(per_cpu, struct.pack("=I", 3), 8 * cpus)
    bpf.map_lookup_elem(plain, bytes(4), 4)
    ids = [bpf.fdinfo(fd, "map_id") for fd in (table, per_cpu, plain)]
    os.write(1, json.dumps({"ids": ids, "cpus": cpus}).encode() + b"\n")
    sys.stdin.readline()


if __name__ == "__main__":
    main()
