/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The records that cross from the kernel to user space.
 *
 * This is the only declaration of them: tracer/kernel/bpf_calls.c includes it,
 * events/wire.py mirrors it, and a test compiles both against each other.
 */
#ifndef BPFSNOOP_WIRE_H
#define BPFSNOOP_WIRE_H

#include <linux/types.h>

/* A change of any layout below changes this number; recordings carry it. */
#define WIRE_VERSION 1

/* Room for one attr: bpf(2) takes at most a page, and the smallest page is 4096. */
#define ATTR_MAX 4096

#define COMM_LEN 16

/* The bit in cmd which says that arguments 4 and 5 are there (enum bpf_cmd). */
#define COMMON_ATTRS (1U << 16)

/*
 * Commands are counted one by one up to here, the rest together in the last
 * slot. A power of two, so that the verifier can see the bound.
 */
#define COMMAND_SLOTS 64
#define COMMAND_OTHER (COMMAND_SLOTS - 1)

enum record_kind {
	RECORD_CALL = 1,
};

/*
 * One bpf(2) call, written when it returns.
 *
 * Of size bytes of attr, entry_len were readable at entry and exit_len at exit
 * (a prefix: reading stops at the first page that is not there). They follow
 * the fixed part back to back: entry bytes, then exit bytes.
 */
struct call_record {
	__u32 kind;		/* RECORD_CALL */
	__u32 cpu;		/* on which the call returned */
	__u64 start_ns;		/* CLOCK_BOOTTIME at entry */
	__u64 duration_ns;
	__s64 retval;		/* >= 0, or -errno */
	__u64 cgroup_id;	/* of cgroup v2: inode of its directory */
	__u64 attr_addr;	/* argument 2 */
	__u64 common_addr;	/* argument 4, 0 without COMMON_ATTRS in cmd */
	__u32 common_size;	/* argument 5, 0 without COMMON_ATTRS in cmd */
	__u32 cmd;		/* argument 1 with COMMON_ATTRS, low 32 bits */
	__u32 size;		/* argument 3, low 32 bits */
	__u32 tgid;
	__u32 tid;
	__u32 uid;
	__u32 gid;
	__u32 entry_len;
	__u32 exit_len;
	__u8  comm[COMM_LEN];
	__u32 reserved;		/* to a multiple of 8 */
};

/* What became of the calls of one command; one per CPU and command slot. */
struct call_count {
	__u64 seen;		/* passed the filters at entry */
	__u64 lost;		/* no room: neither record nor part of it arrives */
};

/* Filters that are on, see struct tracer_config. */
#define FILTER_PID  (1U << 0)
#define FILTER_UID  (1U << 1)
#define FILTER_COMM (1U << 2)

/* Flags of a traced process. */
#define TRACE_PROCESS  (1U << 0)
#define TRACE_CHILDREN (1U << 1)	/* and theirs */
#define TRACE_NAMED    (1U << 2)	/* by the user, who takes it away again */

/* What the map of traced processes holds for a tgid. */
struct traced_process {
	__u32 flags;
	__s32 threads;		/* alive; not kept for a named one */
};

/* What user space tells the programs; a single element. */
struct tracer_config {
	__u64 commands;		/* bit n: command slot n is wanted */
	__u32 running;		/* 0: look at nothing */
	__u32 filters;
	__u32 self;		/* tgid of the tracer, never traced */
	__u32 reserved;		/* to a multiple of 8 */
};

#endif
