# SPDX-License-Identifier: Apache-2.0
"""One call of every command and the line that it must become.

The lines are strace's (7.2), found by making the same calls under it, but for the
few that say what strace prints instead. Constants are odd on purpose:
a field that is read from the wrong place or as the wrong type shows.
"""

from typing import NamedTuple

from calls import attr


class Row(NamedTuple):
    """A call that returned 0 and left attr as it was."""

    name: str
    cmd: int
    attr: bytes
    """As many bytes as we know of the command."""
    line: str
    instead: tuple[str, str] = ("", "")
    """What strace has in place of something in the line."""

    @property
    def strace_line(self) -> str:
        ours, theirs = self.instead
        assert self.line.count(ours) == 1 or not ours, self.name
        return self.line.replace(ours, theirs) if ours else self.line

    @property
    def command(self) -> str:
        return self.line[len("bpf(") : self.line.index(",")]

    @property
    def shown(self) -> str:
        """What the line shows of attr."""
        return self.line[self.line.index("{") : self.line.rindex("}") + 1]

    def __str__(self) -> str:
        return self.name


ROWS = (
    Row(
        "map_create",
        0, attr(
            "5IiI16sIiIIIQiiQI",
            1, 3141592653, 2718281828, 3735941133, 0x80084, -559038737, 3735929054,
            b"odd_map", 1, -889275714, 3134983661, 4207869677, 3405705229,
            1311768467294899695, -1153374643, -1576685468, 0xFACEFEEDBADC0DED,
            2576980378,
        ),
        "bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, key_size=3141592653, "
        "value_size=2718281828, max_entries=3735941133, "
        "map_flags=BPF_F_NUMA_NODE|BPF_F_RDONLY_PROG|BPF_F_RB_OVERWRITE, "
        'inner_map_fd=-559038737, numa_node=3735929054, map_name="odd_map", '
        'map_ifindex=if_nametoindex("lo"), btf_fd=-889275714, '
        "btf_key_type_id=3134983661, btf_value_type_id=4207869677, "
        "btf_vmlinux_value_type_id=3405705229, map_extra=1311768467294899695, "
        "value_type_btf_obj_fd=-1153374643, map_token_fd=-1576685468, "
        "excl_prog_hash=0xfacefeedbadc0ded, excl_prog_hash_size=2576980378}, 92) = 0",
        ("BPF_F_RB_OVERWRITE", "0x80000"),
    ),
    Row(
        "map_lookup_elem",
        1, attr(
            "iQQQ",
            -559038737, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0xF00D000000000014,
        ),
        "bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=-559038737, key=0xfacefeedbadc0ded, "
        "value=0xdeadf00dcafe1234, flags=BPF_F_ALL_CPUS|BPF_F_LOCK|0xf00d000000000000}, "
        "32) = 0",
    ),
    Row(
        "map_update_elem",
        2, attr("iQQQ", -559038737, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0xE),
        "bpf(BPF_MAP_UPDATE_ELEM, {map_fd=-559038737, key=0xfacefeedbadc0ded, "
        "value=0xdeadf00dcafe1234, flags=BPF_F_CPU|BPF_F_LOCK|BPF_EXIST}, 32) = 0",
    ),
    Row(
        "map_delete_elem",
        3, attr("iQ", -559038737, 0xFACEFEEDBADC0DED),
        "bpf(BPF_MAP_DELETE_ELEM, {map_fd=-559038737, key=0xfacefeedbadc0ded}, 16) = 0",
    ),
    Row(
        "map_get_next_key",
        4, attr("iQQ", -559038737, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234),
        "bpf(BPF_MAP_GET_NEXT_KEY, {map_fd=-559038737, key=0xfacefeedbadc0ded, "
        "next_key=0xdeadf00dcafe1234}, 24) = 0",
    ),
    Row(
        "prog_load",
        5, attr(
            "IIQQIIQII16sIIiIQIIQIIiIQQIIiIQIi",
            31, 3134983661, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 3141592653,
            2718281828, 0x1BADC0DEDEADBEEF, 0xCAFEF00D, 0x100D0, b"odd_prog", 3735929054,
            27, -559038737, 3735941133, 0xBADFACEDDEADC0DE, 4207869677, 3203386110,
            0xBABE1DEADBEEFCA7, 2880220587, 3740978897, -889275714, 3135025150,
            0x1234567890ABCDEF, 0xFEDCBA9876543210, 3735927486, 4277009102, -1153374643,
            2576980378, 0x5CA1AB1E5E1F1E55, 1414213562, -1159983635,
        ),
        "bpf(BPF_PROG_LOAD, {prog_type=BPF_PROG_TYPE_SYSCALL, insn_cnt=3134983661, "
        "insns=0xfacefeedbadc0ded, license=0xdeadf00dcafe1234, log_level=3141592653, "
        "log_size=2718281828, log_buf=0x1badc0dedeadbeef, "
        "kern_version=KERNEL_VERSION(51966, 240, 13), "
        "prog_flags=BPF_F_SLEEPABLE|BPF_F_XDP_DEV_BOUND_ONLY|BPF_F_TEST_REG_INVARIANTS|"
        'BPF_F_TOKEN_FD, prog_name="odd_prog", prog_ifindex=3735929054, '
        "expected_attach_type=BPF_LSM_MAC, prog_btf_fd=-559038737, "
        "func_info_rec_size=3735941133, func_info=0xbadfaceddeadc0de, "
        "func_info_cnt=4207869677, line_info_rec_size=3203386110, "
        "line_info=0xbabe1deadbeefca7, line_info_cnt=2880220587, "
        "attach_btf_id=3740978897, attach_prog_fd=-889275714, core_relo_cnt=3135025150, "
        "fd_array=0x1234567890abcdef, core_relos=0xfedcba9876543210, "
        "core_relo_rec_size=3735927486, log_true_size=4277009102, "
        "prog_token_fd=-1153374643, fd_array_cnt=2576980378, "
        "signature=0x5ca1ab1e5e1f1e55, signature_size=1414213562, "
        "keyring_id=-1159983635}, 168) = 0",
        ("BPF_F_TOKEN_FD", "0x10000"),
    ),
    Row(
        "obj_pin",
        6, attr("QiIi", 0xFACEFEEDBADC0DED, -559038737, 0x84010, -100),
        "bpf(BPF_OBJ_PIN, {pathname=0xfacefeedbadc0ded, bpf_fd=-559038737, "
        "file_flags=BPF_F_WRONLY|BPF_F_PATH_FD|BPF_F_RB_OVERWRITE, path_fd=AT_FDCWD}, "
        "20) = 0",
    ),
    Row(
        "obj_get",
        7, attr("QiIi", 0xFACEFEEDBADC0DED, -559038737, 0x8, -1),
        "bpf(BPF_OBJ_GET, {pathname=0xfacefeedbadc0ded, bpf_fd=-559038737, "
        "file_flags=BPF_F_RDONLY, path_fd=-1}, 20) = 0",
    ),
    Row(
        "prog_attach",
        8, attr(
            "iiIIiiQ",
            -559038737, -889275714, 8, 0x2008, -1153374643, -1159983635,
            13464652301225291789,
        ),
        "bpf(BPF_PROG_ATTACH, {target_fd=-559038737, attach_bpf_fd=-889275714, "
        "attach_type=BPF_CGROUP_INET4_BIND, attach_flags=BPF_F_BEFORE|BPF_F_LINK, "
        "replace_bpf_fd=-1153374643, relative_fd=-1159983635, "
        "expected_revision=13464652301225291789}, 32) = 0",
    ),
    Row(
        "prog_attach-to_netdev",
        8, attr(
            "IiIIiIQ",
            3735929054, -889275714, 46, 0x20, -1153374643, 3141592653,
            13464652301225291789,
        ),
        "bpf(BPF_PROG_ATTACH, {target_ifindex=3735929054, attach_bpf_fd=-889275714, "
        "attach_type=BPF_TCX_INGRESS, attach_flags=BPF_F_ID, replace_bpf_fd=-1153374643, "
        "relative_id=3141592653, expected_revision=13464652301225291789}, 32) = 0",
    ),
    Row(
        "prog_detach",
        9, attr(
            "iiIIiiQ",
            -559038737, -889275714, 29, 0x48, -1153374643, -1159983635,
            13464652301225291789,
        ),
        "bpf(BPF_PROG_DETACH, {target_fd=-559038737, attach_bpf_fd=-889275714, "
        "attach_type=BPF_CGROUP_INET4_GETPEERNAME, "
        "attach_flags=BPF_F_BEFORE|BPF_F_PREORDER, replace_bpf_fd=-1153374643, "
        "relative_fd=-1159983635, expected_revision=13464652301225291789}, 32) = 0",
    ),
    Row(
        "prog_test_run",
        10, attr(
            "iIIIQQIIIIQQIII",
            -559038737, 3735941133, 3134983661, 4207869677, 0xFACEFEEDBADC0DED,
            0xDEADF00DCAFE1234, 3405705229, 3203386110, 2880220587, 3740978897,
            0x1BADC0DEDEADBEEF, 0xBADFACEDDEADC0DE, 0x4, 2576980378, 1414213562,
        ),
        "bpf(BPF_PROG_TEST_RUN, {test={prog_fd=-559038737, retval=3735941133, "
        "data_size_in=3134983661, data_size_out=4207869677, data_in=0xfacefeedbadc0ded, "
        "data_out=0xdeadf00dcafe1234, repeat=3405705229, duration=3203386110, "
        "ctx_size_in=2880220587, ctx_size_out=3740978897, ctx_in=0x1badc0dedeadbeef, "
        "ctx_out=0xbadfaceddeadc0de, flags=BPF_F_TEST_SKB_CHECKSUM_COMPLETE, "
        "cpu=2576980378, batch_size=1414213562}}, 76) = 0",
        ("BPF_F_TEST_SKB_CHECKSUM_COMPLETE", "0x4 /* BPF_F_TEST_??? */"),
    ),
    Row(
        "prog_get_next_id",
        11, attr("II", 3141592653, 2718281828),
        "bpf(BPF_PROG_GET_NEXT_ID, {start_id=3141592653, next_id=2718281828}, 8) = 0",
    ),
    Row(
        "map_get_next_id",
        12, attr("II", 2718281828, 3735941133),
        "bpf(BPF_MAP_GET_NEXT_ID, {start_id=2718281828, next_id=3735941133}, 8) = 0",
    ),
    Row(
        "prog_get_fd_by_id",
        13, attr("I", 3141592653),
        "bpf(BPF_PROG_GET_FD_BY_ID, {prog_id=3141592653}, 4) = 0",
    ),
    Row(
        "map_get_fd_by_id",
        14, attr("III", 3141592653, 3735941133, 0x18),
        "bpf(BPF_MAP_GET_FD_BY_ID, {map_id=3141592653, "
        "open_flags=BPF_F_RDONLY|BPF_F_WRONLY}, 12) = 0",
    ),
    Row(
        "obj_get_info_by_fd",
        15, attr("iIQ", -559038737, 3141592653, 0xFACEFEEDBADC0DED),
        "bpf(BPF_OBJ_GET_INFO_BY_FD, {info={bpf_fd=-559038737, info_len=3141592653, "
        "info=0xfacefeedbadc0ded}}, 16) = 0",
    ),
    Row(
        "prog_query",
        16, attr(
            "iIIIQIIQQQQ",
            -559038737, 8, 1, 3, 0xFACEFEEDBADC0DED, 3141592653, 3735941133,
            0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF, 0xBADFACEDDEADC0DE,
            0xBABE1DEADBEEFCA7,
        ),
        # The number behind prog_cnt lies in a hole.
        "bpf(BPF_PROG_QUERY, {query={target_fd=-559038737, "
        "attach_type=BPF_CGROUP_INET4_BIND, query_flags=BPF_F_QUERY_EFFECTIVE, "
        "attach_flags=BPF_F_ALLOW_OVERRIDE|BPF_F_ALLOW_MULTI, "
        "prog_ids=0xfacefeedbadc0ded, prog_cnt=3141592653, "
        "prog_attach_flags=0xdeadf00dcafe1234, link_ids=0x1badc0dedeadbeef, "
        "link_attach_flags=0xbadfaceddeadc0de, revision=0xbabe1deadbeefca7}}, 64) = 0",
    ),
    Row(
        "prog_query-of_netdev",
        16, attr(
            "IIIIQIIQQQQ",
            1, 54, 2, 0x48, 0xFACEFEEDBADC0DED, 3141592653, 0, 0xDEADF00DCAFE1234,
            0x1BADC0DEDEADBEEF, 0xBADFACEDDEADC0DE, 0xBABE1DEADBEEFCA7,
        ),
        'bpf(BPF_PROG_QUERY, {query={target_ifindex=if_nametoindex("lo"), '
        "attach_type=BPF_NETKIT_PRIMARY, query_flags=0x2 /* BPF_F_QUERY_??? */, "
        "attach_flags=BPF_F_BEFORE|BPF_F_PREORDER, prog_ids=0xfacefeedbadc0ded, "
        "prog_cnt=3141592653, prog_attach_flags=0xdeadf00dcafe1234, "
        "link_ids=0x1badc0dedeadbeef, link_attach_flags=0xbadfaceddeadc0de, "
        "revision=0xbabe1deadbeefca7}}, 64) = 0",
    ),
    Row(
        "raw_tracepoint_open",
        17, attr("QiIQ", 0xFACEFEEDBADC0DED, -559038737, 3735941133, 0xDEADF00DCAFE1234),
        "bpf(BPF_RAW_TRACEPOINT_OPEN, {raw_tracepoint={name=0xfacefeedbadc0ded, "
        "prog_fd=-559038737, cookie=0xdeadf00dcafe1234}}, 24) = 0",
    ),
    Row(
        "btf_load",
        18, attr(
            "QQIIIIIi",
            0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 3141592653, 2718281828, 3735941133,
            3134983661, 0x10000, -559038737,
        ),
        "bpf(BPF_BTF_LOAD, {btf=0xfacefeedbadc0ded, btf_log_buf=0xdeadf00dcafe1234, "
        "btf_size=3141592653, btf_log_size=2718281828, btf_log_level=3735941133, "
        "btf_log_true_size=3134983661, btf_flags=BPF_F_TOKEN_FD, "
        "btf_token_fd=-559038737}, 40) = 0",
    ),
    Row(
        "btf_get_fd_by_id",
        19, attr("IIIi", 3141592653, 3735941133, 0x10000, -559038737),
        "bpf(BPF_BTF_GET_FD_BY_ID, {btf_id=3141592653, open_flags=BPF_F_TOKEN_FD, "
        "fd_by_id_token_fd=-559038737}, 16) = 0",
        ("BPF_F_TOKEN_FD", "0x10000 /* BPF_F_??? */"),
    ),
    Row(
        "task_fd_query",
        20, attr(
            "IiIIQIIQQ",
            3735941133, -559038737, 3134983661, 3141592653, 0xFACEFEEDBADC0DED,
            2718281828, 4, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
        ),
        "bpf(BPF_TASK_FD_QUERY, {task_fd_query={pid=-559026163, fd=-559038737, "
        "flags=3134983661, buf_len=3141592653, buf=0xfacefeedbadc0ded, "
        "prog_id=2718281828, fd_type=BPF_FD_TYPE_UPROBE, "
        "probe_offset=0xdeadf00dcafe1234, probe_addr=0x1badc0dedeadbeef}}, 48) = 0",
    ),
    Row(
        "map_lookup_and_delete_elem",
        21, attr("iQQQ", -559038737, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0x1F),
        "bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, {map_fd=-559038737, key=0xfacefeedbadc0ded, "
        "value=0xdeadf00dcafe1234, flags=BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|0x3}, "
        "32) = 0",
    ),
    Row(
        "map_freeze",
        22, attr("i", -559038737),
        "bpf(BPF_MAP_FREEZE, {map_fd=-559038737}, 4) = 0",
    ),
    Row(
        "btf_get_next_id",
        23, attr("II", 3134983661, 4207869677),
        "bpf(BPF_BTF_GET_NEXT_ID, {start_id=3134983661, next_id=4207869677}, 8) = 0",
    ),
    Row(
        "map_lookup_batch",
        24, attr(
            "QQQQIiQQ",
            0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
            0xBADFACEDDEADC0DE, 3141592653, -559038737, 0x1F, 0xBABE1DEADBEEFCA7,
        ),
        "bpf(BPF_MAP_LOOKUP_BATCH, {batch={in_batch=0xfacefeedbadc0ded, "
        "out_batch=0xdeadf00dcafe1234, keys=0x1badc0dedeadbeef, "
        "values=0xbadfaceddeadc0de, count=3141592653, map_fd=-559038737, "
        "elem_flags=BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|0x3, flags=0xbabe1deadbeefca7}}, "
        "56) = 0",
    ),
    Row(
        "map_lookup_and_delete_batch",
        25, attr(
            "QQQQIiQQ",
            0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
            0xBADFACEDDEADC0DE, 3141592653, -559038737, 0x8, 0xBABE1DEADBEEFCA7,
        ),
        "bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, {batch={in_batch=0xfacefeedbadc0ded, "
        "out_batch=0xdeadf00dcafe1234, keys=0x1badc0dedeadbeef, "
        "values=0xbadfaceddeadc0de, count=3141592653, map_fd=-559038737, "
        "elem_flags=BPF_F_CPU, flags=0xbabe1deadbeefca7}}, 56) = 0",
    ),
    Row(
        "map_update_batch",
        26, attr(
            "QQQQIiQQ",
            0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
            0xBADFACEDDEADC0DE, 3141592653, -559038737, 0x1F, 0xBABE1DEADBEEFCA7,
        ),
        "bpf(BPF_MAP_UPDATE_BATCH, {batch={keys=0x1badc0dedeadbeef, "
        "values=0xbadfaceddeadc0de, count=3141592653, map_fd=-559038737, "
        "elem_flags=BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|BPF_EXIST|BPF_NOEXIST, "
        "flags=0xbabe1deadbeefca7}}, 56) = 0",
    ),
    Row(
        "map_delete_batch",
        27, attr(
            "QQQQIiQQ",
            0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
            0xBADFACEDDEADC0DE, 3141592653, -559038737, 0x4, 0xBABE1DEADBEEFCA7,
        ),
        "bpf(BPF_MAP_DELETE_BATCH, {batch={keys=0x1badc0dedeadbeef, count=3141592653, "
        "map_fd=-559038737, elem_flags=BPF_F_LOCK, flags=0xbabe1deadbeefca7}}, 56) = 0",
    ),
    Row(
        "link_create-no_arm",
        28, attr("iiII", -559038737, -889275714, 36, 0x41),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_SK_LOOKUP, flags=BPF_F_ALLOW_OVERRIDE|BPF_F_PREORDER}}, 16) = 0",
    ),
    Row(
        "link_create-xdp",
        28, attr("iIII", -559038737, 3735929054, 37, 0x12),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, "
        "target_ifindex=3735929054, attach_type=BPF_XDP, "
        "flags=XDP_FLAGS_SKB_MODE|XDP_FLAGS_REPLACE}}, 16) = 0",
        # The flags of cgroups.
        ("XDP_FLAGS_SKB_MODE|XDP_FLAGS_REPLACE", "BPF_F_ALLOW_MULTI|BPF_F_AFTER"),
    ),
    Row(
        "link_create-struct_ops",
        28, attr("iiII", -559038737, -889275714, 44, 0x2000),
        "bpf(BPF_LINK_CREATE, {link_create={map_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_STRUCT_OPS, flags=BPF_F_LINK}}, 16) = 0",
        ("map_fd", "prog_fd"),
    ),
    Row(
        "link_create-tcx",
        28, attr("iIIIIQ", -559038737, 1, 46, 0x28, 3735941133, 0xFACEFEEDBADC0DED),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, "
        'target_ifindex=if_nametoindex("lo"), attach_type=BPF_TCX_INGRESS, '
        "flags=BPF_F_BEFORE|BPF_F_ID, tcx={relative_id=3735941133, "
        "expected_revision=0xfacefeedbadc0ded}}}, 32) = 0",
    ),
    Row(
        "link_create-tcx_fd",
        28, attr(
            "iIIIiQ",
            -559038737, 3141592653, 47, 0x10, -1153374643, 0xFACEFEEDBADC0DED,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, "
        "target_ifindex=3141592653, attach_type=BPF_TCX_EGRESS, flags=BPF_F_AFTER, "
        "tcx={relative_fd=-1153374643, expected_revision=0xfacefeedbadc0ded}}}, 32) = 0",
    ),
    Row(
        "link_create-netkit",
        28, attr(
            "iIIIiQ",
            -559038737, 3141592653, 54, 0x8, -1153374643, 0xFACEFEEDBADC0DED,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, "
        "target_ifindex=3141592653, attach_type=BPF_NETKIT_PRIMARY, flags=BPF_F_BEFORE, "
        "netkit={relative_fd=-1153374643, expected_revision=0xfacefeedbadc0ded}}}, "
        "32) = 0",
    ),
    Row(
        "link_create-netkit_id",
        28, attr(
            "iIIIIQ",
            -559038737, 3141592653, 55, 0x20, 3735941133, 0xFACEFEEDBADC0DED,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, "
        "target_ifindex=3141592653, attach_type=BPF_NETKIT_PEER, flags=BPF_F_ID, "
        "netkit={relative_id=3735941133, expected_revision=0xfacefeedbadc0ded}}}, 32) = 0",
    ),
    Row(
        "link_create-cgroup",
        28, attr(
            "iiIIiQ",
            -559038737, -889275714, 8, 0x10, -1153374643, 0xFACEFEEDBADC0DED,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_CGROUP_INET4_BIND, flags=BPF_F_AFTER, "
        "cgroup={relative_fd=-1153374643, expected_revision=0xfacefeedbadc0ded}}}, "
        "32) = 0",
    ),
    Row(
        "link_create-cgroup_id",
        28, attr("iiIIIQ", -559038737, -889275714, 0, 0x28, 3735941133, 0xFACEFEEDBADC0DED),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_CGROUP_INET_INGRESS, flags=BPF_F_BEFORE|BPF_F_ID, "
        "cgroup={relative_id=3735941133, expected_revision=0xfacefeedbadc0ded}}}, 32) = 0",
    ),
    Row(
        "link_create-cgroup_freplace",
        28, attr("iiIII", -559038737, -889275714, 8, 0, 3735941133),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_CGROUP_INET4_BIND, flags=0, target_btf_id=3735941133}}, 20) = 0",
    ),
    Row(
        "link_create-lsm_cgroup",
        28, attr(
            "iiIIiQ",
            -559038737, -889275714, 43, 0x8, -1153374643, 0xFACEFEEDBADC0DED,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_LSM_CGROUP, flags=BPF_F_BEFORE, "
        "cgroup={relative_fd=-1153374643, expected_revision=0xfacefeedbadc0ded}}}, "
        "32) = 0",
        (", cgroup={relative_fd=-1153374643, expected_revision=0xfacefeedbadc0ded}}",
         "}, ..."),
    ),
    Row(
        "link_create-iter",
        28, attr("iiIIQI", -559038737, -889275714, 28, 0, 0xFACEFEEDBADC0DED, 3735941133),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_ITER, flags=0, iter_info=0xfacefeedbadc0ded, "
        "iter_info_len=3735941133}}, 28) = 0",
    ),
    Row(
        "link_create-perf_event",
        28, attr("iiIIQ", -559038737, -889275714, 41, 0, 0xFACEFEEDBADC0DED),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_PERF_EVENT, flags=0, "
        "perf_event={bpf_cookie=0xfacefeedbadc0ded}}}, 24) = 0",
    ),
    Row(
        "link_create-fentry",
        28, attr("iiIIIQ", -559038737, -889275714, 24, 0, 3141592653, 0xFACEFEEDBADC0DED),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FENTRY, flags=0, tracing={target_btf_id=3141592653, "
        "cookie=0xfacefeedbadc0ded}}}, 32) = 0",
    ),
    Row(
        "link_create-fexit",
        28, attr("iiIIIQ", -559038737, -889275714, 25, 0, 2718281828, 0xDEADF00DCAFE1234),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FEXIT, flags=0, tracing={target_btf_id=2718281828, "
        "cookie=0xdeadf00dcafe1234}}}, 32) = 0",
    ),
    Row(
        "link_create-fsession",
        28, attr("iiIIIQ", -559038737, -889275714, 58, 0, 3735941133, 0x1BADC0DEDEADBEEF),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FSESSION, flags=0, tracing={target_btf_id=3735941133, "
        "cookie=0x1badc0dedeadbeef}}}, 32) = 0",
    ),
    Row(
        "link_create-modify_return",
        28, attr("iiIIIQ", -559038737, -889275714, 26, 0, 3134983661, 0xBADFACEDDEADC0DE),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_MODIFY_RETURN, flags=0, tracing={target_btf_id=3134983661, "
        "cookie=0xbadfaceddeadc0de}}}, 32) = 0",
    ),
    Row(
        "link_create-lsm",
        28, attr("iiIIIQ", -559038737, -889275714, 27, 0, 4207869677, 0xBABE1DEADBEEFCA7),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_LSM_MAC, flags=0, tracing={target_btf_id=4207869677, "
        "cookie=0xbabe1deadbeefca7}}}, 32) = 0",
    ),
    Row(
        "link_create-raw_tp",
        28, attr("iiIIIQ", -559038737, -889275714, 23, 0, 3735941133, 0xFACEFEEDBADC0DED),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_RAW_TP, flags=0, tracing={target_btf_id=3735941133, "
        "cookie=0xfacefeedbadc0ded}}}, 32) = 0",
        (", tracing={target_btf_id=3735941133, "
         "cookie=0xfacefeedbadc0ded}}",
         "}, ..."),
    ),
    Row(
        "link_create-netfilter",
        28, attr(
            "iiIIIIiI",
            -559038737, -889275714, 45, 0, 3735941133, 3141592653, -1153374643, 0x3,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_NETFILTER, flags=0, netfilter={pf=3735941133, "
        "hooknum=3141592653, priority=-1153374643, "
        "flags=BPF_F_NETFILTER_IP_DEFRAG|0x2}}}, 32) = 0",
    ),
    Row(
        "link_create-kprobe_multi",
        28, attr(
            "iiIIIIQQQ",
            -559038737, -889275714, 42, 0, 0x3, 3141592653, 0xFACEFEEDBADC0DED,
            0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, "
        "kprobe_multi={flags=BPF_F_KPROBE_MULTI_RETURN|0x2, cnt=3141592653, "
        "syms=0xfacefeedbadc0ded, addrs=0xdeadf00dcafe1234, "
        "cookies=0x1badc0dedeadbeef}}}, 48) = 0",
    ),
    Row(
        "link_create-kprobe_session",
        28, attr(
            "iiIIIIQQQ",
            -559038737, -889275714, 56, 0, 0x1, 2718281828, 0xDEADF00DCAFE1234,
            0x1BADC0DEDEADBEEF, 0xBADFACEDDEADC0DE,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_KPROBE_SESSION, flags=0, "
        "kprobe_multi={flags=BPF_F_KPROBE_MULTI_RETURN, cnt=2718281828, "
        "syms=0xdeadf00dcafe1234, addrs=0x1badc0dedeadbeef, "
        "cookies=0xbadfaceddeadc0de}}}, 48) = 0",
        (", kprobe_multi={flags=BPF_F_KPROBE_MULTI_RETURN, cnt=2718281828, "
         "syms=0xdeadf00dcafe1234, addrs=0x1badc0dedeadbeef, "
         "cookies=0xbadfaceddeadc0de}}",
         "}, ..."),
    ),
    Row(
        "link_create-uprobe_multi",
        28, attr(
            "iiIIQQQQIIIi",
            -559038737, -889275714, 48, 0, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234,
            0x1BADC0DEDEADBEEF, 0xBADFACEDDEADC0DE, 3141592653, 0x7, 3735941133,
            -1153374643,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_UPROBE_MULTI, flags=0, "
        "uprobe_multi={path=0xfacefeedbadc0ded, offsets=0xdeadf00dcafe1234, "
        "ref_ctr_offsets=0x1badc0dedeadbeef, cookies=0xbadfaceddeadc0de, cnt=3141592653, "
        "flags=BPF_F_UPROBE_MULTI_RETURN|BPF_F_UPROBE_MULTI_PATH_FD|0x4, pid=-559026163, "
        "path_fd=-1153374643}}}, 64) = 0",
    ),
    Row(
        "link_create-uprobe_session",
        28, attr(
            "iiIIQQQQIIIi",
            -559038737, -889275714, 57, 0, 0xDEADF00DCAFE1234, 0x1BADC0DEDEADBEEF,
            0xBADFACEDDEADC0DE, 0xBABE1DEADBEEFCA7, 2718281828, 0x2, 1235, -1153374643,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_UPROBE_SESSION, flags=0, "
        "uprobe_multi={path=0xdeadf00dcafe1234, offsets=0x1badc0dedeadbeef, "
        "ref_ctr_offsets=0xbadfaceddeadc0de, cookies=0xbabe1deadbeefca7, cnt=2718281828, "
        "flags=BPF_F_UPROBE_MULTI_PATH_FD, pid=1235, path_fd=-1153374643}}}, 64) = 0",
        (", uprobe_multi={path=0xdeadf00dcafe1234, offsets=0x1badc0dedeadbeef, "
         "ref_ctr_offsets=0xbadfaceddeadc0de, cookies=0xbabe1deadbeefca7, cnt=2718281828, "
         "flags=BPF_F_UPROBE_MULTI_PATH_FD, pid=1235, path_fd=-1153374643}}",
         "}, ..."),
    ),
    Row(
        "link_create-fentry_multi",
        28, attr(
            "iiIIQQI",
            -559038737, -889275714, 59, 0, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234,
            3735941133,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FENTRY_MULTI, flags=0, "
        "tracing_multi={ids=0xfacefeedbadc0ded, cookies=0xdeadf00dcafe1234, "
        "cnt=3735941133}}}, 36) = 0",
    ),
    Row(
        "link_create-fexit_multi",
        28, attr(
            "iiIIQQI",
            -559038737, -889275714, 60, 0, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234,
            3735941133,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FEXIT_MULTI, flags=0, "
        "tracing_multi={ids=0xfacefeedbadc0ded, cookies=0xdeadf00dcafe1234, "
        "cnt=3735941133}}}, 36) = 0",
    ),
    Row(
        "link_create-fsession_multi",
        28, attr(
            "iiIIQQI",
            -559038737, -889275714, 61, 0, 0xFACEFEEDBADC0DED, 0xDEADF00DCAFE1234,
            3735941133,
        ),
        "bpf(BPF_LINK_CREATE, {link_create={prog_fd=-559038737, target_fd=-889275714, "
        "attach_type=BPF_TRACE_FSESSION_MULTI, flags=0, "
        "tracing_multi={ids=0xfacefeedbadc0ded, cookies=0xdeadf00dcafe1234, "
        "cnt=3735941133}}}, 36) = 0",
    ),
    Row(
        "link_update",
        29, attr("iiIi", -559038737, -889275714, 0x44, -1153374643),
        "bpf(BPF_LINK_UPDATE, {link_update={link_fd=-559038737, new_prog_fd=-889275714, "
        "flags=BPF_F_REPLACE|BPF_F_PREORDER, old_prog_fd=-1153374643}}, 16) = 0",
    ),
    Row(
        "link_get_fd_by_id",
        30, attr("I", 3134983661),
        "bpf(BPF_LINK_GET_FD_BY_ID, {link_id=3134983661}, 4) = 0",
    ),
    Row(
        "link_get_next_id",
        31, attr("II", 3405705229, 3203386110),
        "bpf(BPF_LINK_GET_NEXT_ID, {start_id=3405705229, next_id=3203386110}, 8) = 0",
    ),
    Row(
        "enable_stats",
        32, attr("I", 0),
        "bpf(BPF_ENABLE_STATS, {enable_stats={type=BPF_STATS_RUN_TIME}}, 4) = 0",
    ),
    Row(
        "iter_create",
        33, attr("iI", -559038737, 3735941133),
        "bpf(BPF_ITER_CREATE, {iter_create={link_fd=-559038737, flags=0xdeadf00d}}, "
        "8) = 0",
    ),
    Row(
        "link_detach",
        34, attr("i", -559038737),
        "bpf(BPF_LINK_DETACH, {link_detach={link_fd=-559038737}}, 4) = 0",
    ),
    Row(
        "prog_bind_map",
        35, attr("iiI", -559038737, -889275714, 3735941133),
        "bpf(BPF_PROG_BIND_MAP, {prog_bind_map={prog_fd=-559038737, map_fd=-889275714, "
        "flags=0xdeadf00d}}, 12) = 0",
    ),
    Row(
        "token_create",
        36, attr("Ii", 3735941133, -559038737),
        "bpf(BPF_TOKEN_CREATE, {token_create={flags=0xdeadf00d, bpffs_fd=-559038737}}, "
        "8) = 0",
    ),
    Row(
        "prog_stream_read_by_fd",
        37, attr("QIIi", 0xFACEFEEDBADC0DED, 3735941133, 3134983661, -559038737),
        "bpf(BPF_PROG_STREAM_READ_BY_FD, "
        "{prog_stream_read={stream_buf=0xfacefeedbadc0ded, stream_buf_len=3735941133, "
        "stream_id=3134983661, prog_fd=-559038737}}, 20) = 0",
    ),
    Row(
        "prog_assoc_struct_ops",
        38, attr("iiI", -559038737, -889275714, 3735941133),
        "bpf(BPF_PROG_ASSOC_STRUCT_OPS, {prog_assoc_struct_ops={map_fd=-559038737, "
        "prog_fd=-889275714, flags=0xdeadf00d}}, 12) = 0",
    ),
)  # fmt: skip
