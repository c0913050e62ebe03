/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The records that cross from the kernel to user space, and the tables that go the
 * other way.
 *
 * This is the only declaration of them: tracer/kernel/bpf_calls.c includes it,
 * events/wire.py mirrors it, and a test compiles both against each other.
 */
#ifndef BPFSNOOP_WIRE_H
#define BPFSNOOP_WIRE_H

#include <linux/types.h>

/* A change of any layout below changes this number; recordings carry it. */
#define WIRE_VERSION 5

/* Room for one attr: bpf(2) takes at most a page, and the smallest page is 4096. */
#define ATTR_MAX 4096

/*
 * So much of attr travels in the record of the call; it is at most 168 bytes in
 * Linux 7.2. The rest of a longer one goes ahead in chunks.
 */
#define ATTR_INLINE 192

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
	RECORD_CHUNK = 2,
	RECORD_PROCESS = 3,
};

/*
 * One bpf(2) call, written when it returns. Parts follow the fixed part, each a
 * struct part with its data, padded to a multiple of 8.
 */
struct call_record {
	__u32 kind;		/* RECORD_CALL */
	__u16 flags;
	__u16 parts_len;	/* bytes that follow */
	__u64 start_ns;		/* CLOCK_BOOTTIME at entry */
	__u64 duration_ns;	/* without entry_ns */
	__s64 retval;		/* >= 0, or -errno */
	__u64 attr_addr;	/* argument 2 */
	__u64 common_addr;	/* argument 4, 0 without COMMON_ATTRS in cmd */
	__u64 cgroup_id;	/* of cgroup v2: inode of its directory */
	__u64 process_start_ns;	/* CLOCK_BOOTTIME; 0 without BTF, as all below */
	__u64 exec_id;		/* counts the process's execve(2) */
	__u64 capabilities;	/* effective ones, CAP_... as bits */
	__u32 common_size;	/* argument 5, 0 without COMMON_ATTRS in cmd */
	__u32 cmd;		/* argument 1 with COMMON_ATTRS, low 32 bits */
	__u32 size;		/* argument 3, low 32 bits */
	__u32 tgid;
	__u32 tid;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 login_uid;	/* all ones: nobody logged in */
	__u32 pid_namespace;	/* inode number, as in /proc/PID/ns; 0: could not be read */
	__u32 mount_namespace;
	__u32 user_namespace;	/* in which capabilities hold; 0: could not be read */
	__u32 entry_ns;		/* what we took at entry */
	__u32 reserved;		/* to a multiple of 8 */
	__u8  comm[COMM_LEN];
};

/* Flags of a call. */
#define CALL_NO_ROOM  (1U << 0)	/* a part is missing altogether */
#define CALL_DATA_LOST (1U << 1)	/* a chunk of a part found no room in its ring */
#define CALL_NO_ENTRY (1U << 2)	/* seen only when it returned; start_ns is of then */
#define CALL_KERNEL   (1U << 3)	/* made by the kernel itself, for a program of type SYSCALL */
#define CALL_COMPAT   (1U << 4)	/* by a 32-bit entry or in the x32 ABI */
#define CALL_SAME_ATTR (1U << 5)	/* the kernel's own copy of attr was as at entry */
#define CALL_NO_EXIT  (1U << 6)	/* its end was not seen; retval and duration_ns are not its own */

/* What a part is. */
enum part_kind {
	PART_ATTR_ENTRY = 1,	/* the bytes of attr at entry */
	PART_ATTR_EXIT = 2,	/* and at exit; left out if the same */
	PART_OBJECT = 3,	/* struct object behind the descriptor at offset slot */
	PART_RESULT = 4,	/* struct object behind the returned descriptor */
	PART_MEMORY = 5,	/* what the pointer at offset slot leads to */
	PART_OBJECT_EXIT = 6,	/* as PART_OBJECT, after a call into RING_VITAL */
	PART_ATTR_KERNEL = 7,	/* the kernel's own copy of attr; left out if CALL_SAME_ATTR */
	PART_MAPS = 8,		/* __u32 ids of the maps that a loaded program refers to; wanted
				 * is how many there are */
	PART_ASIDE = 9,		/* as PART_MEMORY, at another moment or another length: ROW_ASIDE */
};

struct part {
	__u8  kind;
	__u8  state;		/* enum part_state */
	__u16 slot;		/* offset in attr, bytes */
	__u32 len;		/* bytes that were read, a prefix of wanted */
	__u64 wanted;		/* bytes that there are, as far as the caller says */
};

/* Flags of a part: why its data is not simply all behind it. */
#define PART_CUT        (1U << 0)	/* more than is taken of one thing */
#define PART_UNREADABLE (1U << 1)	/* not in memory from len on, or no such memory */
#define PART_CHUNKED    (1U << 2)	/* went ahead in chunks (of attr: from ATTR_INLINE on) */
#define PART_AT_EXIT    (1U << 3)	/* not in memory at entry: read at exit instead */
#define PART_TAIL       (1U << 4)	/* the end of it, and what is missing comes before */
#define PART_KERNEL     (1U << 5)	/* the kernel's own copy */

/* Kinds of struct object. */
enum object_kind {
	OBJECT_MAP = 1,
	OBJECT_PROG = 2,
	OBJECT_LINK = 3,
	OBJECT_BTF = 4,
};
#define OBJECT_KINDS 5

#define OBJECT_NAME_LEN 16

#define PROG_MAPS_MAX 32	/* in PART_MAPS */
#define TAG_LEN 8

/* A BPF object behind a descriptor. */
struct object {
	__u32 kind;
	__u32 id;
	__u32 type;		/* of map, program or link */
	__u32 key_size;		/* of a map */
	__u32 value_size;	/* of a map */
	__u32 max_entries;	/* of a map */
	__u32 prog_id;		/* of a link; 0: none */
	__u32 reserved;		/* to a multiple of 8 */
	__u8  name[OBJECT_NAME_LEN];	/* of map and program */
	__u8  tag[TAG_LEN];	/* of a program */
};

/*
 * Each record goes into one of these rings, so that none can be crowded out by what is
 * cheaper to make.
 */
enum ring {
	RING_DATA = 0,		/* calls that work on the contents of maps, or walk ids */
	RING_CONTROL = 1,	/* the others */
	RING_VITAL = 2,		/* of these, what changed something: see struct command_plan */
	RING_BULK = 3,		/* what was read of them before the outcome was known */
};
#define RINGS 4

/*
 * When the ring for bulk is half full, a process may put the 16th part of it there a
 * second.
 */
#define BULK_SHARES 16
#define BULK_WINDOW_NS 1000000000ULL

/* Part of something that is too long for the record of its call, ahead of that. */
struct chunk_record {
	__u32 kind;		/* RECORD_CHUNK */
	__u32 tid;
	__u64 start_ns;		/* tid and start_ns say which call */
	__u8  part;		/* enum part_kind */
	__u8  reserved;
	__u16 slot;
	__u32 offset;		/* of these bytes in the part */
	__u32 len;		/* bytes that follow */
	__u32 reserved2;	/* to a multiple of 8 */
};
#define CHUNK_MAX 4096

/* A process, ahead of its first call since it began or called execve(2). */
struct process_record {
	__u32 kind;		/* RECORD_PROCESS */
	__u32 tgid;
	__u64 start_ns;		/* CLOCK_BOOTTIME */
	__u64 exec_id;
	__u64 parent_start_ns;
	__u64 exe_ino;		/* inode of its file, as all with exe_ but exe_len */
	__u32 parent_tgid;
	__u32 flags;
	__u32 exe_uid;		/* owner, in the initial user namespace */
	__u32 exe_mode;		/* umode_t; 0: neither this nor the rest with exe_ is known */
	__u32 exe_dev;		/* of the file system, as the kernel encodes it */
	__u32 exe_mount_namespace;	/* of the mount; 0: it is, or was, in none */
	__u16 exe_len;		/* names of the path from the file to the root, NUL behind each */
	__u16 args_len;		/* the start of the arguments, behind exe */
	__u32 reserved;		/* to a multiple of 8 */
	__u8  parent_comm[COMM_LEN];
};
#define EXE_MAX  2048
#define ARGS_MAX 512

/* Flags of a process. */
#define PROCESS_KERNEL      (1U << 0)	/* a kernel thread: has no executable */
#define PROCESS_EXE_GONE    (1U << 1)	/* its file has been deleted */
#define PROCESS_EXE_PSEUDO  (1U << 2)	/* never had a path: memfd_create(2) */
#define PROCESS_EXE_CUT     (1U << 3)
#define PROCESS_ARGS_CUT    (1U << 4)
#define PROCESS_ARGS_UNREAD (1U << 5)	/* not in memory from args_len on */

/* What became of the calls of one command; one per CPU and command slot. */
struct call_count {
	__u64 seen;		/* passed the filters at entry */
	__u64 lost;		/* no room for its record */
	__u64 incomplete;	/* arrived, but with CALL_DATA_LOST */
};

/* What is noted of our own calls, to find out whether our programs are run. */
enum own_run {
	OWN_ENTRY = 0,		/* entry of the system call */
	OWN_EXIT = 1,
	OWN_INSIDE = 2,		/* __sys_bpf() */
	OWN_RETURN = 3,
	OWN_COPIED = 4,		/* security_bpf() */
	OWN_CHECKED = 5,	/* bpf_check() */
	OWN_OUTCOME = 6,	/* what __sys_bpf() returned last */
};
#define OWN_RUNS 7

/* Filters that are on, see struct tracer_config. */
#define FILTER_PID    (1U << 0)
#define FILTER_UID    (1U << 1)
#define FILTER_COMM   (1U << 2)
#define FILTER_CGROUP (1U << 3)
#define FILTER_PIDNS  (1U << 4)

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
	__u32 cgroups;		/* how many of the cgroups filter are set */
	__u32 pid_namespace;	/* if FILTER_PIDNS: its inode number in /proc/PID/ns */
	__u32 nsfs;		/* and the device of that, as the kernel encodes it */
	__u64 bulk_size;	/* of the ring for bulk, bytes */
};
#define CGROUPS_MAX 8
#define FILTER_LIST_MAX 256	/* users, and names */

/*
 * A process is told again when so many have been since: whoever reads keeps more
 * than these.
 */
#define ANNOUNCE_AGAIN 1024

/* How much memory a pointer leads to. Of all but bytes, a command has one at most. */
enum memory_shape {
	SHAPE_BYTES = 0,	/* count times unit bytes */
	SHAPE_STRING = 1,	/* up to a NUL */
	SHAPE_STRINGS = 2,	/* count pointers to strings */
	SHAPE_LOG = 3,		/* a string of which the end matters; unit is the offset of the */
				/* __u32 that tells how long it truly is, count that of its room */
	SHAPE_BULK = 4,		/* as bytes, but in many chunks */
};
#define SHAPES 5

/* The unit in which a count counts, if it is not a number of bytes. */
#define UNIT_KEY    0xfffffff1U	/* keys of the map behind the command's descriptor */
#define UNIT_VALUE  0xfffffff2U	/* its values, as user space passes them */
#define UNIT_CURSOR 0xfffffff3U	/* where a batch goes on */

/* Where a count comes from, if it is not the offset of a __u32 in attr. */
#define COUNT_ONE    0xfff1U
#define COUNT_RETVAL 0xfff2U

/* When memory is read. Without ROW_ENTRY: at exit, if the outcome is one of these. */
#define ROW_ENTRY   (1U << 0)
#define ROW_SUCCESS (1U << 1)
#define ROW_ENOENT  (1U << 2)
#define ROW_ENOSPC  (1U << 3)
#define ROW_FAILURE (1U << 4)	/* any other */
#define ROW_NO_LIMIT (1U << 5)	/* that the caller counted 0 means as much as there is */
#define ROW_ASIDE   (1U << 6)	/* a second look at a pointer: the row's part is PART_ASIDE */
#define ROW_INSIDE  (1U << 7)	/* pointer and count stand where the pointer at choice leads */

/* One pointer in attr. */
struct memory_row {
	__u64 choices;		/* applies if bit n is set, n being the __u32 at choice */
	__u32 unit;
	__u32 limit;		/* bytes taken at most, of one thing at most CHUNK_MAX */
	__u16 pointer;		/* offset of a __u64 in attr */
	__u16 count;
	__u16 choice;
	__u8  shape;
	__u8  when;
};

/* In the slot of such a row's part, with the offset of its pointer. */
#define SLOT_INSIDE 0x8000U

/* A string of an array, with its NUL. */
#define STRING_MAX 128

#define FDS_MAX  6
#define ROWS_MAX 12

/* What one command has where in attr; one per command slot. */
struct command_plan {
	__u8  fd_count;
	__u8  row_count;
	__u8  returns_fd;
	__u8  has_special;	/* 1: a row of another shape than bytes */
	__u8  special[SHAPES];	/* 1 + the number of that row, by its shape */
	__u8  ring;		/* enum ring, if it succeeds; RING_VITAL is RING_CONTROL if not */
	__u16 fds[FDS_MAX];	/* offsets of __s32 in attr */
	__u16 value_flags;	/* offset of the __u64 that may say BPF_F_CPU; 0: none */
	struct memory_row rows[ROWS_MAX];
};

#endif
