/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs at functions of the kernel, by fentry, LSM or kprobe: the kernel's own copies of
 * attr and of instructions, which the caller cannot change any more, and calls that no
 * tracepoint shows. FUNCTION_ARG0 to FUNCTION_ARG3 and FUNCTION_RESULT are offsets in ctx.
 */
#ifndef BPFSNOOP_FUNCTIONS_H
#define BPFSNOOP_FUNCTIONS_H

#ifdef HAVE_FUNCTIONS

enum inside_step {
	INSIDE_GIVE_UP,
	INSIDE_AGAIN,
	INSIDE_STEPS,
};
BPF_PROG_ARRAY(inside_entry_steps, INSIDE_STEPS);
BPF_PROG_ARRAY(inside_steps, EXIT_STEPS);

/* Volatile: clang would rather compute where to read, and that the verifier forbids. */
#define FUNCTION_ARG(n) (*(volatile u64 *)((u64)ctx + FUNCTION_ARG##n))

/* Kernels like 6.1 let no program touch an argument that is a pointer to a pointer. */
static __always_inline u64 first_argument(void *ctx)
{
#ifdef FUNCTIONS_BY_BTF
	u64 value = 0;

	bpf_get_func_arg(ctx, 0, &value);
	return value;
#else
	return FUNCTION_ARG(0);
#endif
}

static __always_inline struct thread *begin_inside(u32 tid, struct call_count *count)
{
	struct thread *outer = thread_of(tid);
	struct thread *thread = thread_of(tid | INSIDE);

	if (!outer || !thread) {
		lock_xadd(&count->lost, 1);
		return NULL;
	}
	outer->inside = 1;
	return thread;
}

static __always_inline void note_inside(u32 tid, bool by_kernel)
{
	struct thread *outer = threads.lookup(&tid);

	if (outer)
		outer->inside = by_kernel;
}

static __always_inline bool is_unshown(struct arguments *args)
{
#ifdef RAW_TRACEPOINTS
	return false;
#else
	return args->flags & CALL_COMPAT;
#endif
}

static __always_inline bool is_unshown_call(void)
{
	struct arguments args = {};

	return read_arguments(registers(), &args) && is_unshown(&args);
}

/* The kernel passed us by where others are seen to begin. */
static __always_inline bool is_late(u32 tid, struct arguments *args)
{
#ifdef PREEMPT_DISABLE
	struct thread *thread = threads.lookup(&tid);

	/* What the kernel has copied is that of a call before this one, with the same arguments. */
	return !thread || !thread->open || thread->copied || !has_arguments(&thread->call, args);
#else
	return false;
#endif
}

/* A call that no tracepoint shows, or showed; false if one did. */
static __always_inline bool arguments_inside(void *ctx, u32 tid, struct arguments *args)
{
	u32 cmd = FUNCTION_ARG(0);
	u64 attr = FUNCTION_ARG(1);
	u32 size = FUNCTION_ARG(3);

	/* bpfptr_t is passed in two: the pointer, and whether it is the kernel's. */
	if (FUNCTION_ARG(2) & 1) {
		args->cmd = cmd;
		args->attr = attr;
		args->size = size;
		args->flags = CALL_KERNEL;
		return true;
	}
	if (!read_arguments(registers(), args))
		return false;
	return is_unshown(args) || is_late(tid, args);
}

/* The step to go on with, or INSIDE_STEPS. */
static __always_inline int enter_function(void *ctx)
{
	struct tracer_config *cfg = running();
	u64 id = bpf_get_current_pid_tgid();
	struct arguments args = {};

	if (is_own())
		note_run(OWN_INSIDE);
	if (!cfg || !wanted_process(cfg, id >> 32) || !arguments_inside(ctx, id, &args))
		return INSIDE_STEPS;

	bool by_kernel = args.flags & CALL_KERNEL;
	bool late = !by_kernel && !is_unshown(&args);

	if (is_open((u32)id | INSIDE) || (!by_kernel && is_open(id)))
		return INSIDE_GIVE_UP;
	/* What the kernel calls is not the thread's own call, whether it is wanted or not. */
	note_inside(id, by_kernel);
	if (!wanted_call(cfg, args.cmd))
		return INSIDE_STEPS;

	struct call_count *count = count_of(args.cmd);
	struct command_plan *plan = plan_of(args.cmd);
	struct scratch *scratch = scratch_of(AT_FUNCTION_ENTRY);

	if (!count || !plan || !scratch)
		return INSIDE_STEPS;
	if (!late)
		lock_xadd(&count->seen, 1);

	struct thread *thread = by_kernel ? begin_inside(id, count) : thread_of(id);

	if (!thread) {
		if (!by_kernel && !late)
			refuse_entry(args.cmd);
		return INSIDE_STEPS;
	}
	if (late)
		count_late(args.cmd);
	begin_call(thread, id, &args, plan, scratch, by_kernel);
	return INSIDE_STEPS;
}

/* int __sys_bpf(int cmd, bpfptr_t uattr, unsigned int size) */
int enter_inside(void *ctx)
{
	int step;

	preemption_off();
	step = enter_function(ctx);
	preemption_on();
	if (step < INSIDE_STEPS)
		inside_entry_steps.call(ctx, step);
	return 0;
}

int enter_give_up(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	bool by_kernel = FUNCTION_ARG(2) & 1;

	preemption_off();
	give_up_open(tid | INSIDE);
	if (!by_kernel)
		give_up_open(tid);
	preemption_on();
	inside_entry_steps.call(ctx, INSIDE_AGAIN);
	return 0;
}

/* It may be the thread's own call, if we were left out where the inner one returned. */
static __always_inline bool is_inner_return(void *ctx)
{
#ifdef FUNCTIONS_BY_BTF
	return FUNCTION_ARG(2) & 1;
#else
	return true;	/* a kretprobe does not know */
#endif
}

static __always_inline struct thread *returning_inside(void *ctx, u64 id)
{
	u32 tid = id;
	struct thread *outer = threads.lookup(&tid);

	if (outer && outer->inside && is_inner_return(ctx)) {
		struct thread *inner = under_way(tid);

		if (!inner)	/* one that is not wanted */
			outer->inside = 0;
		return inner;
	}
	return is_unshown_call() ? returning(ctx, id, AT_FUNCTION_EXIT) : NULL;
}

static __always_inline int exit_function(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	s64 retval = (s32)*(volatile u64 *)((u64)ctx + FUNCTION_RESULT);

	if (is_own()) {
		note_run(OWN_RETURN);
		note_outcome(retval);
	}

	if (is_unshown_call() && is_left_open(id))
		return STEP_EXIT_GIVE_UP;

	struct thread *thread = returning_inside(ctx, id);
	struct scratch *scratch = scratch_of(AT_FUNCTION_EXIT);

	if (!thread || !scratch)
		return EXIT_STEPS;

	int step = end_call(thread, scratch, retval);

	if (step == EXIT_STEPS)
		send_call(thread, id);
	return step;
}

int exit_inside(void *ctx)
{
	int step;

	preemption_off();
	step = exit_function(ctx);
	preemption_on();
	if (step < EXIT_STEPS)
		inside_steps.call(ctx, step);
	return 0;
}

#ifdef HAVE_TASK
int inside_process(void *ctx)
{
	int step;

	preemption_off();
	step = take_process_step(AT_FUNCTION_EXIT);
	preemption_on();
	if (step < EXIT_STEPS)
		inside_steps.call(ctx, step);
	return 0;
}
#endif

int inside_give_up(void *ctx)
{
	preemption_off();
	give_up_others(bpf_get_current_pid_tgid());
	preemption_on();
	inside_steps.call(ctx, STEP_EXIT_AGAIN);
	return 0;
}

int inside_bulk(void *ctx)
{
	int step;

	preemption_off();
	step = take_bulk_step(AT_FUNCTION_EXIT);
	preemption_on();
	if (step < EXIT_STEPS)
		inside_steps.call(ctx, step);
	return 0;
}

int inside_long(void *ctx)
{
	preemption_off();
	take_long_step(AT_FUNCTION_EXIT);
	preemption_on();
	return 0;
}

/* The call that is known may be one before this one, if we were left out in between. */
static __always_inline struct thread *checked(struct thread *thread)
{
	if (!thread || thread->call.flags & CALL_KERNEL || is_same_call(&thread->call))
		return thread;
	return NULL;
}

/* int security_bpf(int cmd, union bpf_attr *attr, unsigned int size): the kernel's copy. */
int copied_attr(void *ctx)
{
	preemption_off();

	u32 tid = bpf_get_current_pid_tgid();
	u64 attr = FUNCTION_ARG(1);
	u32 size = FUNCTION_ARG(2);
	struct thread *thread = checked(under_way(tid));
	struct scratch *scratch = scratch_of(AT_COPY);

	if (is_own())
		note_run(OWN_COPIED);
	if (thread && !thread->copied && scratch)
		take_kernel_attr(thread, scratch, attr, size);
	preemption_on();
	return 0;
}

/*
 * Whether bpf_check() works for the load that is known: of two with the same arguments we may
 * have been left out where the one ended, and until here in the other. Behind these fields of
 * attr the kernel has put right what the caller left out.
 */
#define CHECKED_ATTR 68

static __always_inline bool is_checked_attr(struct thread *thread, struct scratch *scratch,
					    u64 attr)
{
#ifdef PREEMPT_DISABLE
	if (bpf_probe_read_kernel(scratch->attr, CHECKED_ATTR, (void *)attr))
		return true;
	return attr_unchanged(thread, scratch, MIN(thread->attr_len, CHECKED_ATTR));
#else
	return true;
#endif
}

static __always_inline void take_checked_insns(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 where = first_argument(ctx);
	u64 attr = FUNCTION_ARG(1);
	struct thread *thread = checked(under_way(tid));
	struct scratch *scratch = scratch_of(AT_CHECK);
	u64 prog = 0;
	u32 len = 0;

	if (is_own())
		note_run(OWN_CHECKED);
	if (!thread || !scratch || !is_checked_attr(thread, scratch, attr))
		return;

	struct command_plan *plan = plan_of(thread->call.cmd);
	struct memory_row *row = plan ? special_row(plan, SHAPE_BULK) : NULL;

	if (!row)
		return;
	if (bpf_probe_read_kernel(&prog, sizeof(prog), (void *)where) ||
	    bpf_probe_read_kernel(&len, sizeof(len), (void *)(prog + OFF_bpf_prog_len)) || !len)
		return;
	thread->bulk_wanted = 8 * (u64)len;
	thread->bulk_state = PART_KERNEL;
	take_kernel_bulk(thread, scratch, row->pointer, prog + OFF_bpf_prog_insnsi,
			 MIN(thread->bulk_wanted, row->limit));
}

/*
 * int bpf_check(struct bpf_prog **prog, union bpf_attr *attr, ...): the instructions, before the
 * verifier looks at them.
 */
int checked_insns(void *ctx)
{
	preemption_off();
	take_checked_insns(ctx);
	preemption_on();
	return 0;
}

#endif
#endif
