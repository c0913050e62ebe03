// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf(2) as the syscall tracepoints see it: arguments and attr at entry, attr and
 * result at exit, and what the pointers and descriptors in it lead to; one record
 * a call into a ring buffer.
 *
 * Compiled by BCC from this file as it stands; settings and what is particular to
 * the running kernel come as -D (tracer/loader.py, tracer/facts.py):
 *   PAGE_SIZE, POSSIBLE_CPUS, THREADS_MAX
 *   ENTER_..., EXIT_..., NEWTASK_..., EXEC_..., RAW_TRACEPOINTS
 *                                       where arguments are, see hooks.h
 *   ARG2_OFFSET to ARG5_OFFSET          of system call arguments in struct pt_regs
 *   HAVE_KERNEL_READS                   bpf_probe_read_kernel() is permitted
 *   HAVE_TASK, HAVE_PATHS, HAVE_OBJECTS, OFF_..., SIZE_...
 *                                       offsets of struct members, from BTF
 * Without HAVE_... it runs all the same and its records say less. How large the ring
 * and the table of processes are is decided when they are made.
 */
#include "wire.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Hides a value from the optimiser, so that the bound tested after it stays. */
#define BARRIER(x) asm volatile("" : "+r"(x))

/* Read from memory anew: what the verifier found out about the value is forgotten. */
#define FRESH(x) (*(volatile typeof(x) *)&(x))

#define NO_UNROLL _Pragma("clang loop unroll(disable)")

/*
 * A member of a struct of the kernel, by its offset. The verifier knows what the
 * current task is and follows pointers from there, with no helper's call for each;
 * a member that cannot be read is zero.
 */
#define FIELD(type, base, offset) (*(type *)((u64)(base) + (offset)))

/* Room for parts in the record of a call, and of one part of it at most. */
#define PARTS_MAX 1280
#define INLINE_MAX 256

#define STRINGS_MAX 64
#define LOG_STEPS_MAX 256
#define PATH_STEPS 40
#define NAME_ROOM 256
#define BULK_PIECES 32

/*
 * What is known of a thread that has called bpf(2). It stays for the thread's next
 * call, which saves the way into the hash and out of it.
 */
struct thread {
	u64 known_start_ns;	/* the process that was told, see announce() */
	u64 known_exec_id;
	u64 known_at;
	u64 bulk_done;
	u64 entered_ns;		/* when we had done with the entry */
	u32 open;		/* between entry and exit */
	u32 attr_len;		/* bytes of attr that were read, first at entry */
	u32 attr_end;		/* fields that end here at most are known, see field_end() */
	u32 entry_end;		/* the same as it was at entry */
	u32 parts_len;
	u32 again;		/* rows that were not in memory at entry, as bits */
	u32 key_size;
	u32 value_size;
	u32 cursor_size;
	u32 bulk_state;
	u32 exit_attr_len;
	u32 exit_attr_end;
	u32 late;		/* more of attr was in memory at exit than at entry */
	u8 attr[2 * ATTR_INLINE];	/* the most that was read of it, see take_exit_attr() */
	struct call_record call;
	u8 parts[PARTS_MAX + 2 * INLINE_MAX];
};

/*
 * Where things are put together that do not fit into a record. What is read to an
 * offset needs as much room again behind it, for the verifier adds up the bounds.
 *
 * There is one for entries and one for exits: from 7.0 on, tracepoints of system calls
 * can be preempted. Another thread on that CPU may then be in the other program, but not
 * in the same one, which the kernel passes by (and counts).
 */
enum scratch_user {
	AT_ENTRY,
	AT_EXIT,
	SCRATCH_USERS,
};
struct scratch {
	union {
		struct {
			struct chunk_record chunk;
			u8 data[2 * CHUNK_MAX];
		};
		struct {
			struct process_record process;
			u8 names[EXE_MAX + 2 * ARGS_MAX];
		};
	};
	u8 attr[2 * ATTR_INLINE];
	/* What is under way, see memory.h. */
	u64 wanted;
	u64 n;
	u64 got;
	u64 skipped;
	u32 state;
	u32 reserved;
};

struct comm {
	u8 name[COMM_LEN];
};

/* By enum object_kind. */
struct object_ops {
	u64 ops[OBJECT_KINDS];
	u64 release[OBJECT_KINDS];
};

/* All tables are preallocated, as kernels before 6.1 want it of tracing programs. */

BPF_ARRAY(config, struct tracer_config, 1);
BPF_ARRAY(plans, struct command_plan, COMMAND_SLOTS);
BPF_HASH(pids, u32, struct traced_process, 1);
BPF_HASH(uids, u32, u8, FILTER_LIST_MAX);
BPF_HASH(comms, struct comm, u8, FILTER_LIST_MAX);
BPF_CGROUP_ARRAY(cgroups, CGROUPS_MAX);

BPF_HASH(threads, u32, struct thread, THREADS_MAX);
BPF_ARRAY(threads_used, u64, 1);
BPF_ARRAY(blank_thread, struct thread, 1);
BPF_PERCPU_ARRAY(scratches, struct scratch, SCRATCH_USERS);

BPF_ARRAY(announced, u64, 1);
BPF_ARRAY(object_ops, struct object_ops, 1);
BPF_ARRAY(calibrated, struct object, 1);

BPF_PERCPU_ARRAY(counts, struct call_count, COMMAND_SLOTS);
BPF_RINGBUF_OUTPUT(calls, 1);

/* Children of traced processes that found no room in pids. */
BPF_PERCPU_ARRAY(unfollowed, u64, 1);

#include "hooks.h"
#include "memory.h"
#include "objects.h"
#include "process.h"

static __always_inline struct tracer_config *running(void)
{
	int zero = 0;
	struct tracer_config *cfg = config.lookup(&zero);

	return cfg && cfg->running ? cfg : NULL;
}

static __always_inline u32 command_slot(u32 cmd)
{
	u32 base = cmd & ~COMMON_ATTRS;

	return base < COMMAND_OTHER ? base : COMMAND_OTHER;
}

/* Cheapest first; all of it before any memory of the caller is touched. */
static __always_inline bool wanted_process(struct tracer_config *cfg, u32 tgid)
{
	if (tgid == cfg->self)
		return false;
	return !(cfg->filters & FILTER_PID) || pids.lookup(&tgid);
}

static __always_inline bool wanted_cgroup(struct tracer_config *cfg)
{
	u32 i;

	NO_UNROLL
	for (i = 0; i < CGROUPS_MAX; i++) {
		if (i >= cfg->cgroups)
			break;
		if (cgroups.check_current_task(i) == 1)
			return true;
	}
	return false;
}

static __always_inline bool wanted_call(struct tracer_config *cfg, u32 cmd)
{
	if (!(cfg->commands >> command_slot(cmd) & 1))
		return false;
	if (cfg->filters & FILTER_UID) {
		u32 uid = bpf_get_current_uid_gid();

		if (!uids.lookup(&uid))
			return false;
	}
	if (cfg->filters & FILTER_COMM) {
		struct comm comm = {};

		bpf_get_current_comm(comm.name, sizeof(comm.name));
		if (!comms.lookup(&comm))
			return false;
	}
	if (cfg->filters & FILTER_PIDNS) {
		struct bpf_pidns_info ids;

		if (bpf_get_ns_current_pid_tgid(cfg->nsfs, cfg->pid_namespace, &ids, sizeof(ids)))
			return false;
	}
	return !(cfg->filters & FILTER_CGROUP) || wanted_cgroup(cfg);
}

/*
 * The kernel may pass an exit by without running us (while another tracing
 * program runs on that CPU). What was kept of that call must not be taken for
 * the thread's next one.
 */
static __always_inline void forget_open_call(u32 tid)
{
	struct thread *thread = threads.lookup(&tid);

	if (thread)
		thread->open = 0;
}

static __always_inline void forget_thread(u32 tid)
{
	int zero = 0;
	u64 *used = threads_used.lookup(&zero);

	if (!threads.delete(&tid) && used)
		lock_xadd(used, -1);
}

static __always_inline struct thread *thread_of(u32 tid)
{
	struct thread *thread = threads.lookup(&tid);
	int zero = 0;

	if (thread)
		return thread;

	struct thread *blank = blank_thread.lookup(&zero);
	u64 *used = threads_used.lookup(&zero);

	if (!blank || !used || threads.update(&tid, blank))
		return NULL;
	lock_xadd(used, 1);
	return threads.lookup(&tid);
}

static __always_inline struct scratch *scratch_of(int user)
{
	return scratches.lookup(&user);
}

static __always_inline struct call_count *count_of(u32 cmd)
{
	int slot = command_slot(cmd);

	return counts.lookup(&slot);
}

static __always_inline struct command_plan *plan_of(u32 cmd)
{
	int slot = command_slot(cmd);

	return plans.lookup(&slot);
}

/* Arguments 4 and 5 are no part of the tracepoint before bpf(2) took five. */
static __always_inline void read_common(struct call_record *call)
{
	call->common_addr = 0;
	call->common_size = 0;
#ifdef ARG4_OFFSET
	if (call->cmd & COMMON_ATTRS) {
		u64 regs = bpf_task_pt_regs(bpf_get_current_task_btf());

		call->common_addr = FIELD(u64, regs, ARG4_OFFSET);
		call->common_size = FIELD(u64, regs, ARG5_OFFSET);
	}
#endif
}

/*
 * The kernel may have left us out at an exit, and then at an entry. Argument 1 is no
 * longer there on machines that return in its register.
 */
static __always_inline bool is_same_call(struct call_record *call)
{
#ifdef ARG2_OFFSET
	u64 regs = bpf_task_pt_regs(bpf_get_current_task_btf());

	return FIELD(u64, regs, ARG2_OFFSET) == call->attr_addr &&
	       (u32)FIELD(u64, regs, ARG3_OFFSET) == call->size;
#else
	return true;
#endif
}

static __always_inline u64 attr_wanted(u32 size)
{
	return size < ATTR_MAX ? size : ATTR_MAX;
}

/*
 * The kernel takes what the caller did not pass for zero, also of a field that size ends
 * in. Where memory ended, nobody knows what such a field is. Returns up to where fields
 * are known; attr has room for eight more bytes.
 */
static __always_inline u32 field_end(u8 *attr, u64 got, u64 wanted)
{
	BARRIER(got);
	if (got > ATTR_INLINE)
		return 0;
	if (got < wanted)
		return got;
	*(u64 *)(attr + got) = 0;
	return got + 7;
}

/* The rest of an attr that is longer than any kernel's, ahead of the call. */
static __always_inline u64 take_attr_rest(struct thread *thread, struct scratch *scratch,
					  u32 kind, u64 wanted, u32 *state)
{
	u64 got = read_user(scratch->data, wanted - ATTR_INLINE,
			    thread->call.attr_addr + ATTR_INLINE, CHUNK_MAX);

	*state |= PART_CHUNKED;
	if (got)
		send_chunk(thread, scratch, kind, 0, ATTR_INLINE, got);
	return got;
}

static __always_inline void take_entry_attr(struct thread *thread, struct scratch *scratch)
{
	u64 wanted = attr_wanted(thread->call.size);
	u64 n = MIN(wanted, ATTR_INLINE);
	struct part *part = begin_part(thread, PART_ATTR_ENTRY, 0);
	u32 state = 0;

	if (!part)
		return;

	u64 got = read_user(thread->attr, n, thread->call.attr_addr, ATTR_INLINE);

	got = forgotten(&scratch->n, got);
	thread->attr_len = got;
	thread->attr_end = field_end(thread->attr, got, n);
	thread->entry_end = thread->attr_end;
	__builtin_memcpy(part + 1, thread->attr, ATTR_INLINE);
	end_part(thread, got);
	if (got == ATTR_INLINE && wanted > ATTR_INLINE)
		got += take_attr_rest(thread, scratch, PART_ATTR_ENTRY, wanted, &state);
	if (got < wanted)
		state |= PART_UNREADABLE;
	part->state = state;
	part->len = got;
	part->wanted = thread->call.size;
}

/* Whether attr at exit is what it was at entry, all len bytes of it. */
static __always_inline bool attr_unchanged(struct thread *thread, struct scratch *scratch, u64 len)
{
	u32 i;

	scratch->got = 1;
	NO_UNROLL
	for (i = 0; i < ATTR_INLINE / 8; i++) {
		u64 before = *((u64 *)thread->attr + i);
		u64 after = *((u64 *)scratch->attr + i);

		if (8 * i >= len)
			break;
		if (before == after)
			continue;
		/* Of the last ones, those behind the end do not count. */
		if (8 * i + 8 <= len || (before ^ after) & ((1ULL << 8 * (len & 7)) - 1)) {
			scratch->got = 0;
			break;
		}
	}
	return scratch->got;
}

/*
 * Leaves in thread->exit_attr_len how many bytes of attr stand in scratch->attr. If at
 * entry there were fewer in memory, these take their place.
 */
static __always_inline void take_exit_attr(struct thread *thread, struct scratch *scratch)
{
	u64 wanted = attr_wanted(thread->call.size);
	u64 n = MIN(wanted, ATTR_INLINE);
	u32 state = 0;
	u64 got = read_user(scratch->attr, n, thread->call.attr_addr, ATTR_INLINE);

	got = forgotten(&scratch->n, got);
	thread->exit_attr_len = got;
	thread->exit_attr_end = field_end(scratch->attr, got, n);
	if (got > thread->attr_len) {
		thread->late = 1;
		thread->attr_len = got;
		thread->attr_end = thread->exit_attr_end;
		__builtin_memcpy(thread->attr, scratch->attr, ATTR_INLINE + 8);
	} else if (got == thread->attr_len && wanted <= ATTR_INLINE &&
	    attr_unchanged(thread, scratch, got))
		return;

	struct part *part = begin_part(thread, PART_ATTR_EXIT, 0);

	if (!part)
		return;
	if (room_for_data(thread) < ATTR_INLINE) {
		thread->call.flags |= CALL_NO_ROOM;
		return;
	}
	got = thread->exit_attr_len;
	__builtin_memcpy(part + 1, scratch->attr, ATTR_INLINE);
	end_part(thread, got);
	if (got == ATTR_INLINE && wanted > ATTR_INLINE)
		got += take_attr_rest(thread, scratch, PART_ATTR_EXIT, wanted, &state);
	if (got < wanted)
		state |= PART_UNREADABLE;
	part->state = state;
	part->len = got;
	part->wanted = thread->call.size;
}

/* A field of attr, zero if it is not known. */
static __always_inline u32 attr_u32(const u8 *attr, u64 end, u64 at)
{
	if (at + 4 > end)
		return 0;
	BARRIER(at);
	return at <= ATTR_INLINE - 4 ? *(u32 *)(attr + at) : 0;
}

static __always_inline u64 attr_u64(const u8 *attr, u64 end, u64 at)
{
	if (at + 8 > end)
		return 0;
	BARRIER(at);
	return at <= ATTR_INLINE - 8 ? *(u64 *)(attr + at) : 0;
}

#ifdef HAVE_OBJECTS
static __always_inline bool one_value_a_cpu(u32 map_type)
{
	return map_type == BPF_MAP_TYPE_PERCPU_HASH || map_type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       map_type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       map_type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

static __always_inline bool walks_by_bucket(u32 map_type)
{
	return map_type == BPF_MAP_TYPE_HASH || map_type == BPF_MAP_TYPE_PERCPU_HASH ||
	       map_type == BPF_MAP_TYPE_LRU_HASH || map_type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       map_type == BPF_MAP_TYPE_HASH_OF_MAPS;
}

/* BPF_F_CPU, BPF_F_ALL_CPUS, since 6.19: there is one value, of one CPU or of all. */
#define ONE_VALUE (1U << 3 | 1U << 4)

/* What keys and values of the command's map are like, as user space passes them. */
static __always_inline void note_sizes(struct thread *thread, struct command_plan *plan,
				       struct object *map)
{
	u32 flags = plan->value_flags;

	if (flags)
		flags = attr_u32(thread->attr, thread->attr_end, flags);
	thread->key_size = map->key_size;
	thread->value_size = map->value_size;
	if (one_value_a_cpu(map->type) && !(flags & ONE_VALUE))
		thread->value_size = ((map->value_size + 7) & ~7U) * POSSIBLE_CPUS;
	thread->cursor_size = walks_by_bucket(map->type) ? 4 : map->key_size;
}

static __always_inline struct object *take_object(struct thread *thread, struct task_struct *task,
						  u32 kind, u32 slot, u32 fd)
{
	struct part *part = begin_part(thread, kind, slot);
	struct object *object = (void *)(part + 1);

	if (!part || !describe(task, fd, object))
		return NULL;
	part->len = sizeof(*object);
	part->wanted = sizeof(*object);
	end_part(thread, sizeof(*object));
	return object;
}
#endif

static __always_inline void take_objects(struct thread *thread, struct command_plan *plan,
					 bool late)
{
#ifdef HAVE_OBJECTS
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	u32 i;

	NO_UNROLL
	for (i = 0; i < FDS_MAX; i++) {
		if (i >= plan->fd_count)
			break;

		u32 at = plan->fds[i];
		u32 fd = attr_u32(thread->attr, thread->attr_end, at);

		/* What was taken at entry stays: the caller may have put another one there. */
		if (late && at + 4 <= thread->entry_end)
			continue;
		if (at >= thread->attr_len || at + 4 > thread->attr_end)
			continue;

		struct object *object = take_object(thread, task, PART_OBJECT, at, fd);

		if (i == 0 && object && object->kind == OBJECT_MAP)
			note_sizes(thread, plan, object);
	}
#endif
}

static __always_inline bool applies(struct memory_row *row, const u8 *attr, u64 end)
{
	u32 choice = attr_u32(attr, end, row->choice);

	return row->choices == ~0ULL || (choice < 64 && row->choices >> choice & 1);
}

static __always_inline u64 unit_of(struct thread *thread, struct memory_row *row)
{
	if (row->unit == UNIT_KEY)
		return thread->key_size;
	if (row->unit == UNIT_VALUE)
		return thread->value_size;
	return row->unit == UNIT_CURSOR ? thread->cursor_size : row->unit;
}

/*
 * The kernel may count more than the caller has room for, and says so; then there is no
 * more than there is room for.
 */
static __always_inline u64 count_of_row(struct thread *thread, struct memory_row *row,
					const u8 *attr, u64 end)
{
	if (row->count == COUNT_ONE)
		return 1;
	if (row->count == COUNT_RETVAL)
		return thread->call.retval > 0 ? thread->call.retval : 0;

	u64 now = attr_u32(attr, end, row->count);
	u64 room = attr_u32(thread->attr, FRESH(thread->attr_end), row->count);

	if (!room && row->when & ROW_NO_LIMIT)
		return now;
	return MIN(now, room);
}

/* The bits of memory_row.when that an outcome stands for. */
static __always_inline u32 outcome(s64 retval)
{
	if (retval >= 0)
		return ROW_SUCCESS;
	if (retval == -2)	/* ENOENT */
		return ROW_ENOENT;
	return retval == -28 ? ROW_ENOSPC : ROW_FAILURE;
}

/*
 * What one pointer leads to. Counts come from attr as it is now, pointers from attr as
 * it was at entry.
 */
static __always_inline void take_counted(struct thread *thread, struct scratch *scratch,
					 struct memory_row *row, u64 src, const u8 *attr,
					 u64 attr_end)
{
	u64 count = forgotten(&scratch->n, count_of_row(thread, row, attr, attr_end));
	u64 unit = forgotten(&scratch->got, unit_of(thread, row));

	scratch->wanted = count * unit;
	if (unit)	/* it is known what there is, and be it nothing */
		take_bytes(thread, scratch, row->pointer, src, row->limit);
}

/* Those that the kernel may overwrite, before it does. */
static __always_inline void take_entry_rows(struct thread *thread, struct scratch *scratch,
					    struct command_plan *plan)
{
	const u8 *attr = thread->attr;
	u32 i;

	NO_UNROLL
	for (i = 0; i < ROWS_MAX; i++) {
		if (i >= plan->row_count)
			break;

		struct memory_row *row = &plan->rows[i];
		u64 attr_end = FRESH(thread->attr_end);
		u64 src = attr_u64(attr, attr_end, row->pointer);

		if (!(row->when & ROW_ENTRY) || row->shape != SHAPE_BYTES || !src)
			continue;
		scratch->state = 0;
		scratch->skipped = 0;
		take_counted(thread, scratch, row, src, attr, attr_end);
		if (scratch->state & PART_UNREADABLE)
			thread->again |= 1 << i;
	}
}

/* Whether a row is to be read now that the call has returned; says so in the state. */
static __always_inline bool due_at_exit(struct thread *thread, struct scratch *scratch,
					struct memory_row *row, u32 number)
{
	if (!(row->when & ROW_ENTRY)) {
		scratch->state = 0;
		return row->when & outcome(FRESH(thread->call.retval));
	}
	scratch->state = PART_AT_EXIT;
	if (FRESH(thread->again) >> number & 1)
		return true;

	/* Taken at entry, if attr told so much of it then. */
	u32 end = FRESH(thread->entry_end);

	return FRESH(thread->late) &&
	       (row->pointer + 8 > end || (row->count < ATTR_INLINE && row->count + 4 > end));
}

static __always_inline void take_exit_rows(struct thread *thread, struct scratch *scratch,
					   struct command_plan *plan)
{
	const u8 *attr = scratch->attr;
	u32 i;

	NO_UNROLL
	for (i = 0; i < ROWS_MAX; i++) {
		if (i >= plan->row_count)
			break;

		struct memory_row *row = &plan->rows[i];

		if (row->shape != SHAPE_BYTES || !due_at_exit(thread, scratch, row, i))
			continue;

		u64 src = attr_u64(thread->attr, FRESH(thread->attr_end), row->pointer);

		if (!src || !applies(row, attr, FRESH(thread->exit_attr_end)))
			continue;
		scratch->skipped = 0;
		take_counted(thread, scratch, row, src, attr, FRESH(thread->exit_attr_end));
	}
}

/* The row of a shape that is not bytes; NULL if the command has none. */
static __always_inline struct memory_row *special_row(struct command_plan *plan, u32 shape)
{
	u64 number = plan->special[shape];

	number--;
	BARRIER(number);
	if (number >= ROWS_MAX)
		return NULL;
	BARRIER(number);	/* the address must not be made before the test */
	return &plan->rows[number];
}

struct bulk {
	struct memory_row *row;
	u64 src;
	u64 wanted;	/* bytes that there are */
	u64 size;	/* and of those to be taken */
};

static __always_inline bool bulk_of(struct thread *thread, struct command_plan *plan,
				    struct bulk *bulk)
{
	const u8 *attr = thread->attr;

	bulk->row = special_row(plan, SHAPE_BULK);
	if (!bulk->row)
		return false;
	bulk->src = attr_u64(attr, thread->attr_end, bulk->row->pointer);
	bulk->wanted = (u64)attr_u32(attr, thread->attr_end, bulk->row->count) * bulk->row->unit;
	bulk->size = MIN(bulk->wanted, bulk->row->limit);
	return bulk->src;
}

/* Some pages of it. Returns whether there are more. */
static __always_inline bool take_bulk_row(struct thread *thread, struct scratch *scratch,
					  struct command_plan *plan, bool at_exit)
{
	struct bulk bulk;

	if (!bulk_of(thread, plan, &bulk) || thread->bulk_done >= bulk.size)
		return false;

	u64 before = thread->bulk_done;

	thread->bulk_state &= ~PART_UNREADABLE;
	take_bulk(thread, scratch, bulk.row->pointer, bulk.src, bulk.size);
	if (at_exit && thread->bulk_done > before)
		thread->bulk_state |= PART_AT_EXIT;
	return thread->bulk_done < bulk.size && !(thread->bulk_state & PART_UNREADABLE);
}

static __always_inline void end_bulk(struct thread *thread, struct command_plan *plan)
{
	struct bulk bulk;

	if (!bulk_of(thread, plan, &bulk))
		return;

	struct part *part = begin_part(thread, PART_MEMORY, bulk.row->pointer);

	if (!part)
		return;
	part->state = thread->bulk_state | PART_CHUNKED | (bulk.size < bulk.wanted ? PART_CUT : 0);
	part->len = thread->bulk_done;
	part->wanted = bulk.wanted;
	end_part(thread, 0);
}

/* As it is after the call. */
static __always_inline void take_log_row(struct thread *thread, struct scratch *scratch,
					 struct command_plan *plan)
{
	struct memory_row *row = special_row(plan, SHAPE_LOG);
	const u8 *attr = scratch->attr;
	u64 attr_end = thread->exit_attr_end;

	if (!row)
		return;

	u64 src = attr_u64(thread->attr, thread->attr_end, row->pointer);
	u64 room = attr_u32(attr, attr_end, row->count);

	if (src)
		take_log(thread, scratch, row->pointer, src, room,
			 attr_u32(attr, attr_end, row->unit), row->limit);
}

/* A pointer that applies to this call and its outcome, or 0. */
static __always_inline u64 special_pointer(struct thread *thread, struct memory_row *row)
{
	const u8 *attr = thread->attr;

	if (!(row->when & outcome(thread->call.retval)) ||
	    !applies(row, attr, thread->attr_end))
		return 0;
	return attr_u64(attr, thread->attr_end, row->pointer);
}

static __always_inline void take_string_row(struct thread *thread, struct scratch *scratch,
					    struct command_plan *plan)
{
	struct memory_row *row = special_row(plan, SHAPE_STRING);
	u64 src = row ? special_pointer(thread, row) : 0;

	if (!src)
		return;
	scratch->state = 0;
	scratch->skipped = 0;
	read_string(scratch, src, row->limit);
	scratch->wanted = scratch->got;
	take_bytes(thread, scratch, row->pointer, src, row->limit);
}

static __always_inline void take_strings_row(struct thread *thread, struct scratch *scratch,
					     struct command_plan *plan)
{
	struct memory_row *row = special_row(plan, SHAPE_STRINGS);
	u64 src = row ? special_pointer(thread, row) : 0;

	if (!src)
		return;
	scratch->state = 0;
	take_strings(thread, scratch, row->pointer, src,
		     attr_u32(thread->attr, thread->attr_end, row->count));
}

static __always_inline void begin_record(struct thread *thread, u64 id, u32 cmd, u32 size,
					 u64 attr_addr)
{
	struct call_record *call = &thread->call;
	u64 uid_gid = bpf_get_current_uid_gid();

	call->kind = RECORD_CALL;
	call->attr_addr = attr_addr;
	call->cmd = cmd;
	call->size = size;
	call->tgid = id >> 32;
	call->tid = id;
	call->uid = uid_gid;
	call->gid = uid_gid >> 32;
	call->cgroup_id = bpf_get_current_cgroup_id();
	call->flags = 0;
	thread->late = 0;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
	read_common(call);
	call->start_ns = bpf_ktime_get_boot_ns();
	thread->parts_len = 0;
	thread->attr_len = 0;
	thread->attr_end = 0;
	thread->entry_end = 0;
	thread->again = 0;
	thread->bulk_done = 0;
	thread->bulk_state = 0;
	thread->key_size = 0;
	thread->value_size = 0;
	thread->cursor_size = 0;
}

/*
 * What is done for few calls, as programs of their own that the others go on to: the
 * verifier does not have to look at all of it together. Those of one table must be run by
 * the same tracepoint.
 */
enum entry_step {
	STEP_PROCESS,
	STEP_ENTER_BULK,
	ENTRY_STEPS,
};
enum exit_step {
	STEP_EXIT_BULK,
	STEP_EXIT_LONG,
	EXIT_STEPS,
};
BPF_PROG_ARRAY(entry_steps, ENTRY_STEPS);
BPF_PROG_ARRAY(exit_steps, EXIT_STEPS);

int enter_bpf(void *ctx)
{
	if (!is_bpf_entry(ctx))
		return 0;

	struct tracer_config *cfg = running();
	u64 id = bpf_get_current_pid_tgid();
	int zero = 0;

	if (!cfg || !wanted_process(cfg, id >> 32))
		return 0;

	u32 cmd = argument(ctx, ENTER_CMD);

	if (!wanted_call(cfg, cmd)) {
		forget_open_call(id);
		return 0;
	}

	struct call_count *count = count_of(cmd);
	struct command_plan *plan = plan_of(cmd);
	struct scratch *scratch = scratch_of(AT_ENTRY);
	u64 *told = announced.lookup(&zero);

	if (!count || !plan || !scratch || !told)
		return 0;
	count->seen++;

	struct thread *thread = thread_of(id);

	if (!thread) {
		lock_xadd(&count->lost, 1);
		return 0;
	}
	begin_record(thread, id, cmd, argument(ctx, ENTER_SIZE),
		     argument(ctx, ENTER_UATTR));
	thread->open = 1;
	take_entry_attr(thread, scratch);
	take_objects(thread, plan, false);
	take_entry_rows(thread, scratch, plan);
#ifdef HAVE_TASK
	identify(&thread->call, (void *)bpf_get_current_task_btf());
	if (!is_told(thread, told))
		entry_steps.call(ctx, STEP_PROCESS);
#endif
	if (plan->special[SHAPE_BULK])
		entry_steps.call(ctx, STEP_ENTER_BULK);
	thread->entered_ns = bpf_ktime_get_boot_ns();
	return 0;
}

#ifdef HAVE_TASK
int step_process(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	int zero = 0;
	struct scratch *scratch = scratch_of(AT_ENTRY);
	u64 *told = announced.lookup(&zero);

	if (!thread || !scratch || !told)
		return 0;
	tell_process(thread, scratch, told);
	/* It does nothing for a command without bulk data. */
	entry_steps.call(ctx, STEP_ENTER_BULK);
	thread->entered_ns = bpf_ktime_get_boot_ns();
	return 0;
}
#endif

int step_enter_bulk(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	struct scratch *scratch = scratch_of(AT_ENTRY);

	if (!thread || !scratch)
		return 0;

	struct command_plan *plan = plan_of(thread->call.cmd);

	if (plan && take_bulk_row(thread, scratch, plan, false))
		entry_steps.call(ctx, STEP_ENTER_BULK);
	thread->entered_ns = bpf_ktime_get_boot_ns();
	return 0;
}

/* The record is complete: it goes its way. */
static __always_inline void send_call(struct thread *thread, u32 tid)
{
	struct call_record *call = &thread->call;
	u64 len = sizeof(*call) + thread->parts_len;
	struct call_count *count = count_of(call->cmd);
	int zero = 0;
	u64 *used = threads_used.lookup(&zero);

	call->parts_len = thread->parts_len;
	BARRIER(len);
	if (len > sizeof(*call) + PARTS_MAX)
		len = sizeof(*call);

	bool lost = calls.ringbuf_output(call, len, 0);

	if (count && lost)
		lock_xadd(&count->lost, 1);
	else if (count && call->flags & CALL_DATA_LOST)
		lock_xadd(&count->incomplete, 1);
	/* When half of the table is in use, threads leave it after each call. */
	if (used && *used > THREADS_MAX / 2)
		forget_thread(tid);
}

int exit_bpf(void *ctx)
{
	if (!is_bpf_exit(ctx))
		return 0;

	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);

	if (!thread || !thread->open)
		return 0;
	thread->open = 0;

	struct call_record *call = &thread->call;
	struct scratch *scratch = scratch_of(AT_EXIT);
	struct command_plan *plan = plan_of(call->cmd);

	if (!scratch || !plan || !is_same_call(call))
		return 0;
	call->duration_ns = bpf_ktime_get_boot_ns() - thread->entered_ns;
	call->retval = result(ctx);

	take_exit_attr(thread, scratch);
	if (thread->late)
		take_objects(thread, plan, true);
#ifdef HAVE_OBJECTS
	if (plan->returns_fd && call->retval >= 0) {
		struct task_struct *task = (void *)bpf_get_current_task_btf();

		take_object(thread, task, PART_RESULT, 0, call->retval);
	}
#endif
	take_exit_rows(thread, scratch, plan);
	if (plan->special[SHAPE_BULK])
		exit_steps.call(ctx, STEP_EXIT_BULK);
	else if (plan->has_special)
		exit_steps.call(ctx, STEP_EXIT_LONG);
	send_call(thread, tid);
	return 0;
}

/* What of it was not in memory at entry. */
int step_exit_bulk(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	struct scratch *scratch = scratch_of(AT_EXIT);

	if (!thread || !scratch)
		return 0;

	struct command_plan *plan = plan_of(thread->call.cmd);

	if (!plan)
		return 0;
	/* The kernel lets programs go on 33 times: more than pages come to. */
	if (take_bulk_row(thread, scratch, plan, true))
		exit_steps.call(ctx, STEP_EXIT_BULK);
	end_bulk(thread, plan);
	exit_steps.call(ctx, STEP_EXIT_LONG);
	return 0;
}

int step_exit_long(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	struct scratch *scratch = scratch_of(AT_EXIT);

	if (!thread || !scratch)
		return 0;

	struct command_plan *plan = plan_of(thread->call.cmd);

	if (plan) {
		take_log_row(thread, scratch, plan);
		take_string_row(thread, scratch, plan);
		take_strings_row(thread, scratch, plan);
	}
	send_call(thread, tid);
	return 0;
}

/* Runs in the parent, before the child can: none of its calls is missed. */
int new_task(void *ctx)
{
	const u64 clone_thread = 0x10000; /* CLONE_THREAD: no process of its own */
	u32 parent = bpf_get_current_pid_tgid() >> 32;
	u32 child = child_pid(ctx);
	struct traced_process *traced = pids.lookup(&parent);

	if (!traced)
		return 0;
	if (clone_flags(ctx) & clone_thread) {
		lock_xadd(&traced->threads, 1);
		return 0;
	}
	if (!(traced->flags & TRACE_CHILDREN))
		return 0;

	struct traced_process process = {
		.flags = TRACE_PROCESS | TRACE_CHILDREN,
		.threads = 1,
	};

	if (pids.update(&child, &process)) {
		int zero = 0;
		u64 *count = unfollowed.lookup(&zero);

		if (count)
			(*count)++;
	}
	return 0;
}

/*
 * A thread that calls execve(2) takes the number of its process's first thread, and its
 * own is never heard of again.
 */
int exec_task(void *ctx)
{
	u32 before = pid_before_exec(ctx);
	u32 now = bpf_get_current_pid_tgid();

	if (before != now)
		forget_thread(before);
	return 0;
}

/* Runs in the thread that ends, while nobody else can have its number. */
int exit_task(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid();

	forget_thread(id);

	u32 tgid = id >> 32;
	struct traced_process *traced = pids.lookup(&tgid);

	if (!traced || (traced->flags & TRACE_NAMED))
		return 0;
	lock_xadd(&traced->threads, -1);
	/* Whoever takes the last one off sees 0; that two may see it does no harm. */
	if (traced->threads <= 0)
		pids.delete(&tgid);
	return 0;
}
