// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf(2) as the syscall tracepoints see it: arguments and attr at entry, attr and
 * result at exit, and what the pointers and descriptors in it lead to; one record
 * a call into a ring buffer.
 *
 * Compiled by BCC from this file as it stands; settings and what is particular to
 * the running kernel come as -D (tracer/loader.py, tracer/facts.py):
 *   PAGE_SIZE, POSSIBLE_CPUS, THREADS_MAX
 *   ENTER_..., EXIT_..., NEWTASK_..., EXEC_..., RAW_TRACEPOINTS, FUNCTION_...
 *                                       where arguments are, see hooks.h
 *   HAVE_REGISTERS, ARG..., COMPAT_..., NR_BPF..., X32_BIT, PT_REGS_NUMBER
 *                                       a system call in struct pt_regs
 *   PREEMPT_DISABLE, PREEMPT_ENABLE     kfuncs, where they are needed
 *   HAVE_KERNEL_READS                   bpf_probe_read_kernel() is permitted
 *   HAVE_TASK, HAVE_PATHS, HAVE_OBJECTS, HAVE_PROG_MAPS, OFF_..., SIZE_...
 *                                       offsets of struct members, from BTF
 * Without HAVE_... it runs all the same and its records say less. How large the rings
 * and the table of processes are is decided when they are made.
 */
#include "wire.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Hides a value from the optimiser, so that the bound tested after it stays. */
#define BARRIER(x) asm volatile("" : "+r"(x))

/*
 * From 7.0 on, tracepoints of system calls can be preempted, and while a thread is in one of
 * our programs the kernel leaves out the runs of others there on that CPU. The two are
 * kfuncs, which clang knows nothing of: tracer/compiler.py makes the calls what they are to be.
 */
#ifdef PREEMPT_DISABLE
#define preemption_off() ((void (*)(void))PREEMPT_DISABLE)()
#define preemption_on() ((void (*)(void))PREEMPT_ENABLE)()
#else
#define preemption_off()
#define preemption_on()
#endif

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
#define KERNEL_PIECES 256

/* In the key of the table of threads: the call that the kernel makes within another one. */
#define INSIDE (1U << 31)

/*
 * What is known of a thread that has called bpf(2). It stays for the thread's next
 * call, which saves the way into the hash and out of it.
 */
struct thread {
	u64 known_start_ns;	/* the process that was told, see announce() */
	u64 known_exec_id;
	u64 known_at;
	u64 bulk_done;
	u64 bulk_wanted;	/* bytes of the kernel's own copy */
	u32 open;		/* between entry and exit */
	u32 copied;		/* attr is the kernel's own */
	u32 reserved;		/* to a multiple of 8 */
	u32 inside;		/* the kernel itself makes a call, see functions.h */
	u32 ring;		/* for what is sent of the call */
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
 * There is one for each program that begins something: some of them can be preempted, from
 * 7.0 on also those of tracepoints of system calls. Another thread on that CPU may then be
 * in another program, but not in the same one, which the kernel passes by (and counts).
 */
enum scratch_user {
	AT_ENTRY,
	AT_EXIT,
#ifdef HAVE_FUNCTIONS
	AT_FUNCTION_ENTRY,
	AT_FUNCTION_EXIT,
	AT_COPY,
	AT_CHECK,
#endif
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

/* What a process has put into the ring for bulk. */
struct bulk_quota {
	u64 since_ns;
	u64 bytes;
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
/*
 * For a call that is seen only when it returns; how many wait for that, having found no room
 * before; and of how many the kernel had passed us by.
 */
BPF_PERCPU_ARRAY(strangers, struct thread, SCRATCH_USERS);
BPF_ARRAY(refused, s64, COMMAND_SLOTS);
BPF_ARRAY(recovered, u64, 1);
BPF_PERCPU_ARRAY(scratches, struct scratch, SCRATCH_USERS);

BPF_ARRAY(announced, u64, 1);
BPF_ARRAY(object_ops, struct object_ops, 1);
BPF_ARRAY(calibrated, struct object, 1);

BPF_PERCPU_ARRAY(counts, struct call_count, COMMAND_SLOTS);

/* By enum ring. */
BPF_RINGBUF_OUTPUT(data_ring, 1);
BPF_RINGBUF_OUTPUT(control_ring, 1);
BPF_RINGBUF_OUTPUT(vital_ring, 1);
BPF_RINGBUF_OUTPUT(bulk_ring, 1);
/*
 * Bytes that were put into the last one, and that user space has taken out: it maps that into
 * its memory, for a call of ours may make the kernel leave out a run for somebody else.
 */
BPF_ARRAY(bulk_sent, u64, 1);
BPF_F_TABLE("array", u32, u64, bulk_taken, 1, BPF_F_MMAPABLE);
BPF_TABLE("lru_hash", u32, struct bulk_quota, bulk_quotas, 4096);

/* By enum own_run. */
BPF_ARRAY(own_runs, u64, OWN_RUNS);

/* Children of traced processes that found no room in pids. */
BPF_PERCPU_ARRAY(unfollowed, u64, 1);

#include "hooks.h"
#include "rings.h"
#include "memory.h"
#include "objects.h"
#include "process.h"
#include "filters.h"
#include "attr.h"
#include "rows.h"

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

static __always_inline void begin_record(struct thread *thread, u64 id, struct arguments *args)
{
	struct call_record *call = &thread->call;
	u64 uid_gid = bpf_get_current_uid_gid();

	call->kind = RECORD_CALL;
	call->attr_addr = args->attr;
	call->cmd = args->cmd;
	call->size = args->size;
	call->common_addr = args->cmd & COMMON_ATTRS ? args->common : 0;
	call->common_size = args->cmd & COMMON_ATTRS ? args->common_size : 0;
	call->tgid = id >> 32;
	call->tid = id;
	call->uid = uid_gid;
	call->gid = uid_gid >> 32;
	call->cgroup_id = bpf_get_current_cgroup_id();
	call->flags = args->flags;
	thread->late = 0;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
#ifdef HAVE_TASK
	identify(call, (void *)bpf_get_current_task_btf());
#endif
	call->start_ns = bpf_ktime_get_boot_ns();
	call->entry_ns = 0;
	call->duration_ns = 0;
	call->retval = 0;
	thread->copied = 0;
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

/* There is no room for what is known of the call now: it will be told when it returns. */
static __always_inline void refuse_entry(u32 cmd)
{
	int slot = command_slot(cmd);
	s64 *waiting = refused.lookup(&slot);

	if (waiting)
		lock_xadd(waiting, 1);
}

/* A call of which the entry was not seen is counted now, if it was not when it was refused. */
static __always_inline void count_late(u32 cmd)
{
	int slot = command_slot(cmd), zero = 0;
	struct call_count *count = count_of(cmd);
	s64 *waiting = refused.lookup(&slot);
	u64 *found = recovered.lookup(&zero);

	if (!count || !waiting || !found)
		return;
	if (*waiting > 0) {
		lock_xadd(waiting, -1);
		return;
	}
	lock_xadd(&count->seen, 1);
	lock_xadd(found, 1);
}

/*
 * A call that returns though its entry was not seen: there was no room, or the kernel had
 * passed us by, or it had begun before we did. Its arguments are still in the registers;
 * attr and what it leads to are read as they are now.
 */
static __always_inline struct thread *stranger(void *ctx, u64 id, int user)
{
	struct tracer_config *cfg = running();
	struct arguments args = {};

	if (!cfg)
		return NULL;
	if (!wanted_process(cfg, id >> 32)) {
		if (is_own())
			note_run(OWN_EXIT);
		return NULL;
	}
	if (!read_arguments(registers(), &args) || !wanted_call(cfg, args.cmd))
		return NULL;

	struct thread *thread = strangers.lookup(&user);

	if (!thread)
		return NULL;
	count_late(args.cmd);
	begin_record(thread, id, &args);
	thread->call.flags |= CALL_NO_ENTRY;
	return thread;
}

/*
 * What is done for few calls, as programs of their own that the others go on to: the
 * verifier does not have to look at all of it together. Those of one table must be run by
 * the same tracepoint.
 */
enum entry_step {
	STEP_ENTER_BULK,
	STEP_ENTER_GIVE_UP,
	STEP_ENTER_AGAIN,
	ENTRY_STEPS,
};
enum exit_step {
	STEP_EXIT_PROCESS,
	STEP_EXIT_BULK,
	STEP_EXIT_LONG,
	STEP_EXIT_GIVE_UP,
	STEP_EXIT_AGAIN,
	EXIT_STEPS,
};
BPF_PROG_ARRAY(entry_steps, ENTRY_STEPS);
BPF_PROG_ARRAY(exit_steps, EXIT_STEPS);

static __always_inline void leave_inside(u32 tid)
{
	struct thread *outer = threads.lookup(&tid);

	if (outer)
		outer->inside = 0;
}

/* The record is complete: it goes its way. */
static __always_inline void send_call(struct thread *thread, u32 tid)
{
	struct call_record *call = &thread->call;
	u64 len = sizeof(*call) + thread->parts_len;
	struct call_count *count = count_of(call->cmd);
	int zero = 0;
	u64 *used = threads_used.lookup(&zero);

	thread->open = 0;
	if (call->flags & CALL_KERNEL)
		leave_inside(tid);
	call->parts_len = thread->parts_len;
	BARRIER(len);
	if (len > sizeof(*call) + PARTS_MAX) {
		len = sizeof(*call);
		call->parts_len = 0;
	}

	bool lost = send(thread->ring, call, len);

	if (count && lost)
		lock_xadd(&count->lost, 1);
	else if (count && call->flags & CALL_DATA_LOST)
		lock_xadd(&count->incomplete, 1);
	/* When half of the table is in use, threads leave it after each call. */
	if (used && *used > THREADS_MAX / 2)
		forget_thread(call->flags & CALL_KERNEL ? tid | INSIDE : tid);
}

/*
 * The kernel may pass an exit by without running us, while another tracing program runs on
 * that CPU. When the thread has got further, what is known of that call goes its way.
 */
static __always_inline void give_up(struct thread *thread)
{
	struct call_record *call = &thread->call;
	struct command_plan *plan = plan_of(call->cmd);

	if (!plan)
		return;
	call->flags |= CALL_NO_EXIT;
	call->duration_ns = bpf_ktime_get_boot_ns() - call->start_ns - call->entry_ns;
	/* Whether it did anything is not known. */
	thread->ring = plan->ring == RING_VITAL ? RING_CONTROL : plan->ring;
	end_bulk(thread, plan);
	send_call(thread, call->tid);
}

static __always_inline bool is_open(u32 tid)
{
	struct thread *thread = threads.lookup(&tid);

	return thread && thread->open;
}

/* The kernel itself makes a call, for the thread; of those only a layer of functions tells. */
static __always_inline bool is_open_inside(u32 tid)
{
#ifdef HAVE_FUNCTIONS
	return is_open(tid | INSIDE);
#else
	return false;
#endif
}

static __always_inline void give_up_open(u32 tid)
{
	struct thread *thread = threads.lookup(&tid);

	if (thread && thread->open)
		give_up(thread);
}

/* Nothing of what the thread did is under way any more. */
static __always_inline void give_up_all(u32 tid)
{
	give_up_open(tid | INSIDE);
	give_up_open(tid);
}

/* What we do at entry is not part of what the call took. */
static __always_inline void end_entry(struct thread *thread)
{
	thread->call.entry_ns = bpf_ktime_get_boot_ns() - thread->call.start_ns;
}

/* What is taken of a call at entry. */
static __always_inline void begin_call(struct thread *thread, u64 id, struct arguments *args,
				       struct command_plan *plan, struct scratch *scratch,
				       bool by_kernel)
{
	begin_record(thread, id, args);
	thread->open = 1;
	thread->inside = 0;
	thread->ring = plan->ring == RING_DATA ? RING_DATA : RING_BULK;
	if (by_kernel)
		take_kernel_entry(thread);
	else
		take_entry_attr(thread, scratch);
	take_objects(thread, plan, false);
	if (!by_kernel)
		take_entry_rows(thread, scratch, plan);
	end_entry(thread);
}

/* The step to go on with, or ENTRY_STEPS. */
static __always_inline int enter(void *ctx)
{
	struct arguments args = {};

	if (!is_bpf_entry(ctx, &args))
		return ENTRY_STEPS;

	struct tracer_config *cfg = running();
	u64 id = bpf_get_current_pid_tgid();

	if (!cfg)
		return ENTRY_STEPS;
	if (!wanted_process(cfg, id >> 32)) {
		if (is_own())
			note_run(OWN_ENTRY);
		return ENTRY_STEPS;
	}
	if (is_open(id) || is_open_inside(id))
		return STEP_ENTER_GIVE_UP;
	if (!wanted_call(cfg, args.cmd))
		return ENTRY_STEPS;

	struct call_count *count = count_of(args.cmd);
	struct command_plan *plan = plan_of(args.cmd);
	struct scratch *scratch = scratch_of(AT_ENTRY);

	if (!count || !plan || !scratch)
		return ENTRY_STEPS;
	lock_xadd(&count->seen, 1);

	struct thread *thread = thread_of(id);

	if (!thread) {
		refuse_entry(args.cmd);
		return ENTRY_STEPS;
	}
	begin_call(thread, id, &args, plan, scratch, false);
#ifdef HAVE_FUNCTIONS
	return ENTRY_STEPS;	/* what the kernel copies of it is better */
#else
	return plan->special[SHAPE_BULK] ? STEP_ENTER_BULK : ENTRY_STEPS;
#endif
}

int enter_bpf(void *ctx)
{
	int step;

	preemption_off();
	step = enter(ctx);
	preemption_on();
	if (step < ENTRY_STEPS)
		entry_steps.call(ctx, step);
	return 0;
}

/* Who made the call that is to be given up, unless the process has become another one since. */
static __always_inline void tell_late(u32 tid)
{
#ifdef HAVE_TASK
	struct thread *thread = threads.lookup(&tid);
	struct scratch *scratch = scratch_of(AT_ENTRY);
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	int zero = 0;
	u64 *told = announced.lookup(&zero);

	if (!thread || !thread->open || !scratch || !told || is_told(thread, told) ||
	    thread->call.exec_id != FIELD(u64, task, OFF_task_struct_self_exec_id))
		return;
	thread->ring = RING_CONTROL;
	tell_process(thread, scratch, told);
#endif
}

/* The steps that give up begin anew what found that there was something to be given up. */
int step_enter_give_up(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();

	preemption_off();
	tell_late(tid);
	give_up_all(tid);
	preemption_on();
	entry_steps.call(ctx, STEP_ENTER_AGAIN);
	return 0;
}

static __always_inline bool take_entry_bulk(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = threads.lookup(&tid);
	struct scratch *scratch = scratch_of(AT_ENTRY);
	struct command_plan *plan = thread ? plan_of(thread->call.cmd) : NULL;

	if (!scratch || !plan)
		return false;

	bool more = take_bulk_row(thread, scratch, plan, false);

	end_entry(thread);
	return more;
}

int step_enter_bulk(void *ctx)
{
	bool more;

	preemption_off();
	more = take_entry_bulk();
	preemption_on();
	if (more)
		entry_steps.call(ctx, STEP_ENTER_BULK);
	return 0;
}

/* The innermost call of a thread that is under way. */
static __always_inline struct thread *under_way(u32 tid)
{
	u32 within = tid | INSIDE;
	struct thread *thread = threads.lookup(&tid);

	if (thread && thread->inside)
		thread = threads.lookup(&within);
	return thread && thread->open ? thread : NULL;
}

/* Whether another call is known of a thread than that which returns. */
static __always_inline bool is_left_open(u32 tid)
{
	struct thread *thread = threads.lookup(&tid);

	return thread && thread->open && !is_same_call(&thread->call);
}

/* The thread whose call returns; NULL if the call is none of ours. */
static __always_inline struct thread *returning(void *ctx, u64 id, int user)
{
	u32 tid = id;
	struct thread *thread = threads.lookup(&tid);

	if (!thread || !thread->open)
		return stranger(ctx, id, user);
	thread->inside = 0;	/* we may have been left out at its end */
	return thread;
}

/* The same in the programs that this one goes on to. */
static __always_inline struct thread *returned(u32 tid, int user)
{
	struct thread *thread = under_way(tid);

	return thread ? thread : strangers.lookup(&user);
}

/* What is short of a call that returns. The step to go on with, or EXIT_STEPS. */
static __always_inline int end_call(struct thread *thread, struct scratch *scratch, s64 retval)
{
	struct call_record *call = &thread->call;
	struct command_plan *plan = plan_of(call->cmd);
	bool by_kernel = call->flags & CALL_KERNEL;
	int zero = 0;
	u64 *told = announced.lookup(&zero);

	if (!plan || !told)
		return EXIT_STEPS;
	call->duration_ns = bpf_ktime_get_boot_ns() - call->start_ns - call->entry_ns;
	call->retval = retval;
	thread->ring = ring_after(plan, call->retval);
	/*
	 * A call of which only the end was seen may never have got into the kernel: seccomp(2)
	 * and ptrace(2) return what they like, at no cost. What came of it has to show.
	 */
	if (call->flags & CALL_NO_ENTRY && thread->ring == RING_VITAL)
		thread->ring = RING_CONTROL;

	if (!by_kernel)
		take_exit_attr(thread, scratch);
	if (thread->late || thread->ring == RING_VITAL)
		take_objects(thread, plan, true);
#ifdef HAVE_OBJECTS
	if (plan->returns_fd && call->retval >= 0) {
		struct task_struct *task = (void *)bpf_get_current_task_btf();

		if (take_object(thread, task, PART_RESULT, 0, call->retval))
			thread->ring = plan->ring;
	}
#endif
	if (!by_kernel)
		take_exit_rows(thread, scratch, plan);
#ifdef HAVE_TASK
	if (!is_told(thread, told))
		return STEP_EXIT_PROCESS;
#endif
	if (plan->special[SHAPE_BULK])
		return STEP_EXIT_BULK;
	return plan->has_special && !by_kernel ? STEP_EXIT_LONG : EXIT_STEPS;
}

/* Steps of programs that go on to others, with the scratch buffer of the first one. */

#ifdef HAVE_TASK
static __always_inline int take_process_step(int user)
{
	struct thread *thread = returned(bpf_get_current_pid_tgid(), user);
	struct scratch *scratch = scratch_of(user);
	int zero = 0;
	u64 *told = announced.lookup(&zero);

	if (!thread || !scratch || !told)
		return EXIT_STEPS;
	tell_process(thread, scratch, told);
	return STEP_EXIT_BULK;
}
#endif

/* What of it was not in memory at entry; nothing, of a command without bulk data. */
static __always_inline int take_bulk_step(int user)
{
	struct thread *thread = returned(bpf_get_current_pid_tgid(), user);
	struct scratch *scratch = scratch_of(user);
	struct command_plan *plan = thread ? plan_of(thread->call.cmd) : NULL;

	if (!scratch || !plan)
		return EXIT_STEPS;

	u32 ring = thread->ring;
	bool more = false;

	thread->ring = RING_BULK;
	if (!(thread->call.flags & CALL_KERNEL))
		more = take_bulk_row(thread, scratch, plan, true);
	thread->ring = ring;
	/* The kernel lets programs go on 33 times: more than pages come to. */
	if (more)
		return STEP_EXIT_BULK;
	end_bulk(thread, plan);
#ifdef HAVE_PROG_MAPS
	if (plan->special[SHAPE_BULK] && thread->call.retval >= 0)
		take_maps(thread);
#endif
	return STEP_EXIT_LONG;
}

static __always_inline void take_long_step(int user)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = returned(tid, user);
	struct scratch *scratch = scratch_of(user);
	struct command_plan *plan = thread ? plan_of(thread->call.cmd) : NULL;

	if (!scratch || !plan)
		return;
	if (!(thread->call.flags & CALL_KERNEL)) {
		take_log_row(thread, scratch, plan);
		take_string_row(thread, scratch, plan);
		take_strings_row(thread, scratch, plan);
	}
	send_call(thread, tid);
}

static __always_inline int exit(void *ctx)
{
	if (!is_bpf_exit(ctx))
		return EXIT_STEPS;

	u64 id = bpf_get_current_pid_tgid();

	if (is_left_open(id) || is_open_inside(id))
		return STEP_EXIT_GIVE_UP;

	struct thread *thread = returning(ctx, id, AT_EXIT);
	struct scratch *scratch = scratch_of(AT_EXIT);

	if (!thread || !scratch)
		return EXIT_STEPS;

	int step = end_call(thread, scratch, result(ctx));

	if (step == EXIT_STEPS)
		send_call(thread, id);
	return step;
}

int exit_bpf(void *ctx)
{
	int step;

	preemption_off();
	step = exit(ctx);
	preemption_on();
	if (step < EXIT_STEPS)
		exit_steps.call(ctx, step);
	return 0;
}

/* What is not that call which returns. */
static __always_inline void give_up_others(u32 tid)
{
	give_up_open(tid | INSIDE);
	if (is_left_open(tid))
		give_up_open(tid);
}

int step_exit_give_up(void *ctx)
{
	preemption_off();
	give_up_others(bpf_get_current_pid_tgid());
	preemption_on();
	exit_steps.call(ctx, STEP_EXIT_AGAIN);
	return 0;
}

#ifdef HAVE_TASK
int step_exit_process(void *ctx)
{
	int step;

	preemption_off();
	step = take_process_step(AT_EXIT);
	preemption_on();
	if (step < EXIT_STEPS)
		exit_steps.call(ctx, step);
	return 0;
}
#endif

int step_exit_bulk(void *ctx)
{
	int step;

	preemption_off();
	step = take_bulk_step(AT_EXIT);
	preemption_on();
	if (step < EXIT_STEPS)
		exit_steps.call(ctx, step);
	return 0;
}

int step_exit_long(void *ctx)
{
	preemption_off();
	take_long_step(AT_EXIT);
	preemption_on();
	return 0;
}

#include "functions.h"

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

	if (before != now) {
		give_up_all(before);
		forget_thread(before);
		forget_thread(before | INSIDE);
	}
	return 0;
}

/* Runs in the thread that ends, while nobody else can have its number. */
int exit_task(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid();

	give_up_all(id);
	forget_thread(id);
	forget_thread((u32)id | INSIDE);

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
