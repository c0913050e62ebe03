// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf(2) as the syscall tracepoints see it: arguments and attr at entry, attr
 * and result at exit, one record a call into a ring buffer.
 *
 * Compiled by BCC from this file as it stands. Settings come as -D:
 *   RING_PAGES       size of the ring, a power of two of PAGE_SIZE
 *   PAGE_SIZE        of this machine
 *   FOLLOW_CHILDREN  processes forked by a traced one may be traced too
 *   ARG4_OFFSET, ARG5_OFFSET
 *                    where struct pt_regs of this architecture keeps system
 *                    call arguments 4 and 5; without them they are not read
 */
#include "wire.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Hides a value from the optimiser, so that the bound tested after it stays. */
#define BARRIER(x) asm volatile("" : "+r"(x))

/*
 * attr is at most 168 bytes in Linux 7.2, so this much of it waits for the exit
 * in every call, and only oversize ones need a slot in attr_rest as well.
 */
#define ATTR_INLINE 192
#define ATTR_REST (ATTR_MAX - ATTR_INLINE)

/* A call between its entry and its exit. */
struct open_call {
	u64 start_ns;
	u64 attr_addr;
	u64 common_addr;
	u32 common_size;
	u32 cmd;
	u32 size;
	u32 attr_len;
	u8 attr[ATTR_INLINE];
};

struct rest {
	u8 attr[ATTR_REST];
};

/*
 * Where they are put together. copy_attr() writes at most ATTR_MAX bytes, but
 * the verifier adds up the bounds of its two reads: hence the slack.
 */
struct open_draft {
	struct open_call call;
	struct rest rest;
	u8 slack[ATTR_MAX];
};

struct call_draft {
	struct call_record call;
	u8 attr[2 * ATTR_MAX];
	u8 slack[ATTR_MAX];
};

struct comm {
	u8 name[COMM_LEN];
};

/*
 * All tables are preallocated, as kernels before 6.1 want it of tracing programs:
 * a few MB together.
 */
#define PIDS_MAX 16384
#define UIDS_MAX 256
#define COMMS_MAX 256

/* Threads in the middle of bpf(2) at one time, and those with an oversize attr. */
#define OPEN_CALLS_MAX 4096
#define ATTR_REST_MAX 256

BPF_ARRAY(config, struct tracer_config, 1);
BPF_HASH(pids, u32, struct traced_process, PIDS_MAX);
BPF_HASH(uids, u32, u8, UIDS_MAX);
BPF_HASH(comms, struct comm, u8, COMMS_MAX);

BPF_HASH(open_calls, u64, struct open_call, OPEN_CALLS_MAX);
BPF_HASH(attr_rest, u64, struct rest, ATTR_REST_MAX);

BPF_PERCPU_ARRAY(open_drafts, struct open_draft, 1);
BPF_PERCPU_ARRAY(call_drafts, struct call_draft, 1);

BPF_PERCPU_ARRAY(counts, struct call_count, COMMAND_SLOTS);
BPF_RINGBUF_OUTPUT(calls, RING_PAGES);

/* Children of traced processes that found no room in pids. */
BPF_PERCPU_ARRAY(unfollowed, u64, 1);

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
	return true;
}

/*
 * The kernel may pass an exit by without running us (while another tracing
 * program runs on that CPU). What was kept of that call must not be taken for
 * the thread's next one, nor stay when the thread ends.
 */
static __always_inline void forget_open_call(u64 id)
{
	if (!open_calls.lookup(&id))
		return;
	open_calls.delete(&id);
	attr_rest.delete(&id);
}

static __always_inline struct call_count *count_of(u32 cmd)
{
	int slot = command_slot(cmd);

	return counts.lookup(&slot);
}

/*
 * Copies n bytes of user memory, at most ATTR_MAX, and when a page of them is
 * not there, those before it. Returns how many arrived.
 *
 * A read that faults brings nothing, so the bytes on either side of a page
 * boundary are read apart: attr may end where the mapping ends, and tracepoints
 * cannot fault a page in.
 */
static __always_inline u64 copy_attr(u8 *dst, u64 n, u64 src)
{
	u64 head = PAGE_SIZE - (src & (PAGE_SIZE - 1));

	if (head > n)
		head = n;
	BARRIER(head);
	if (head > ATTR_MAX)
		return 0;
	if (bpf_probe_read_user(dst, head, (void *)src))
		return 0;

	u64 tail = n - head;

	if (!tail)
		return head;
	BARRIER(tail);
	if (tail > ATTR_MAX)
		return head;
	if (bpf_probe_read_user(dst + head, tail, (void *)(src + head)))
		return head;
	return head + tail;
}

static __always_inline u64 attr_wanted(u32 size)
{
	return size < ATTR_MAX ? size : ATTR_MAX;
}

/* Arguments 4 and 5 are no part of the tracepoint before bpf(2) took five. */
static __always_inline void read_common(struct open_call *open)
{
	open->common_addr = 0;
	open->common_size = 0;
#ifdef ARG4_OFFSET
	if (open->cmd & COMMON_ATTRS) {
		u64 regs = bpf_task_pt_regs(bpf_get_current_task_btf());
		u64 size = 0;

		bpf_probe_read_kernel(&open->common_addr, 8, (void *)(regs + ARG4_OFFSET));
		bpf_probe_read_kernel(&size, 8, (void *)(regs + ARG5_OFFSET));
		open->common_size = size;
	}
#endif
}

TRACEPOINT_PROBE(syscalls, sys_enter_bpf)
{
	struct tracer_config *cfg = running();
	u64 id = bpf_get_current_pid_tgid();
	u32 cmd = args->cmd;

	if (!cfg || !wanted_process(cfg, id >> 32))
		return 0;
	if (!wanted_call(cfg, cmd)) {
		forget_open_call(id);
		return 0;
	}

	int zero = 0;
	struct open_draft *draft = open_drafts.lookup(&zero);
	struct call_count *count = count_of(cmd);

	if (!draft || !count)
		return 0;
	count->seen++;

	struct open_call *open = &draft->call;

	open->attr_addr = (u64)args->uattr;
	open->cmd = cmd;
	open->size = args->size;
	read_common(open);
	open->attr_len = copy_attr(open->attr, attr_wanted(open->size), open->attr_addr);
	if (open->attr_len > ATTR_INLINE && attr_rest.update(&id, &draft->rest))
		open->attr_len = ATTR_INLINE;
	open->start_ns = bpf_ktime_get_boot_ns();
	if (open_calls.update(&id, open)) {
		count->lost++;
		attr_rest.delete(&id);
	}
	return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_bpf)
{
	u64 id = bpf_get_current_pid_tgid();
	struct open_call *open = open_calls.lookup(&id);

	if (!open)
		return 0;

	int zero = 0;
	u64 end_ns = bpf_ktime_get_boot_ns();
	struct call_draft *draft = call_drafts.lookup(&zero);
	struct call_count *count = count_of(open->cmd);

	if (!draft || !count)
		return 0;

	struct call_record *call = &draft->call;
	u64 uid_gid = bpf_get_current_uid_gid();

	call->kind = RECORD_CALL;
	call->cpu = bpf_get_smp_processor_id();
	call->start_ns = open->start_ns;
	call->duration_ns = end_ns - open->start_ns;
	call->retval = args->ret;
	call->cgroup_id = bpf_get_current_cgroup_id();
	call->attr_addr = open->attr_addr;
	call->common_addr = open->common_addr;
	call->common_size = open->common_size;
	call->cmd = open->cmd;
	call->size = open->size;
	call->tgid = id >> 32;
	call->tid = id;
	call->uid = uid_gid;
	call->gid = uid_gid >> 32;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
	call->reserved = 0;

	u64 entry_len = open->attr_len;

	__builtin_memcpy(draft->attr, open->attr, ATTR_INLINE);
	if (entry_len > ATTR_INLINE) {
		struct rest *rest = attr_rest.lookup(&id);

		if (rest)
			bpf_probe_read_kernel(draft->attr + ATTR_INLINE, ATTR_REST, rest->attr);
		else
			entry_len = ATTR_INLINE;
		attr_rest.delete(&id);
	}
	BARRIER(entry_len);
	if (entry_len > ATTR_MAX)
		entry_len = ATTR_MAX;
	call->entry_len = entry_len;

	u64 exit_len = copy_attr(draft->attr + entry_len, attr_wanted(open->size),
				 open->attr_addr);

	BARRIER(exit_len);
	if (exit_len > ATTR_MAX)
		exit_len = ATTR_MAX;
	call->exit_len = exit_len;

	u64 len = sizeof(*call) + entry_len + exit_len;

	BARRIER(len);
	if (len > sizeof(*call) + 2 * ATTR_MAX)
		len = sizeof(*call);
	if (calls.ringbuf_output(draft, len, 0))
		count->lost++;
	open_calls.delete(&id);
	return 0;
}

#ifdef FOLLOW_CHILDREN
/* Runs in the parent, before the child can: none of its calls is missed. */
TRACEPOINT_PROBE(task, task_newtask)
{
	const u64 clone_thread = 0x10000; /* CLONE_THREAD: no process of its own */
	u32 parent = bpf_get_current_pid_tgid() >> 32;
	u32 child = args->pid;
	struct traced_process *traced = pids.lookup(&parent);

	if (!traced)
		return 0;
	if (args->clone_flags & clone_thread) {
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
#endif

/* Runs in the thread that ends, while nobody else can have its number. */
TRACEPOINT_PROBE(sched, sched_process_exit)
{
	u64 id = bpf_get_current_pid_tgid();

	forget_open_call(id);
#ifdef FOLLOW_CHILDREN
	u32 tgid = id >> 32;
	struct traced_process *traced = pids.lookup(&tgid);

	if (!traced || (traced->flags & TRACE_NAMED))
		return 0;
	lock_xadd(&traced->threads, -1);
	/* Whoever takes the last one off sees 0; that two may see it does no harm. */
	if (traced->threads <= 0)
		pids.delete(&tgid);
#endif
	return 0;
}
