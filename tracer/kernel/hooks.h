/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs our programs, and where their arguments are: in the record of a tracepoint, as
 * tracefs describes it; or, with RAW_TRACEPOINTS, in what the kernel passes to the
 * tracepoint itself, which BTF describes. The raw ones of system calls are run for every
 * system call of every process, those of 32-bit programs included.
 *
 * With HAVE_FUNCTIONS some run at functions of the kernel too; FUNCTION_... says where
 * arguments and result of these are.
 */
#ifndef BPFSNOOP_HOOKS_H
#define BPFSNOOP_HOOKS_H

/* The arguments of bpf(2), and CALL_... that say by which way they came. */
struct arguments {
	u64 attr;
	u64 common;
	u32 cmd;
	u32 size;
	u32 common_size;
	u32 flags;
};

#ifdef HAVE_REGISTERS

static __always_inline u64 registers(void)
{
	return bpf_task_pt_regs(bpf_get_current_task_btf());
}

/*
 * From the registers of a system call, where they stand until it returns. Returns whether
 * it is bpf(2); 32-bit programs have another number for it, and other registers.
 */
static __always_inline bool read_arguments(u64 regs, struct arguments *args)
{
	u32 number = FIELD(u64, regs, PT_REGS_NUMBER);
#ifdef COMPAT_OFFSET
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	if (FIELD(u32, task, COMPAT_OFFSET) & COMPAT_BITS) {
		if (number != NR_BPF_COMPAT)
			return false;
		args->cmd = FIELD(u64, regs, COMPAT_ARG1_OFFSET);
		args->attr = FIELD(u32, regs, COMPAT_ARG2_OFFSET);
		args->size = FIELD(u64, regs, COMPAT_ARG3_OFFSET);
		args->common = FIELD(u32, regs, COMPAT_ARG4_OFFSET);
		args->common_size = FIELD(u64, regs, COMPAT_ARG5_OFFSET);
		args->flags = CALL_COMPAT;
		return true;
	}
#endif
	if ((number & ~X32_BIT) != NR_BPF)
		return false;
	args->cmd = FIELD(u64, regs, ARG1_OFFSET);
	args->attr = FIELD(u64, regs, ARG2_OFFSET);
	args->size = FIELD(u64, regs, ARG3_OFFSET);
	args->common = FIELD(u64, regs, ARG4_OFFSET);
	args->common_size = FIELD(u64, regs, ARG5_OFFSET);
	args->flags = number & X32_BIT ? CALL_COMPAT : 0;
	return true;
}

#else

static __always_inline u64 registers(void)
{
	return 0;
}

static __always_inline bool read_arguments(u64 regs, struct arguments *args)
{
	return false;
}

#endif

#ifdef RAW_TRACEPOINTS

/* TP_PROTO of include/trace/events/: its n-th argument. */
#define RAW(n) (((u64 *)ctx)[n])

/* Most system calls are others: that they are must be found out fast. */
static __always_inline bool may_be_bpf(u32 number)
{
	return (number & ~X32_BIT) == NR_BPF || number == NR_BPF_COMPAT;
}

static __always_inline bool is_bpf_entry(void *ctx, struct arguments *args)
{
	return may_be_bpf(RAW(1)) && read_arguments(RAW(0), args);
}

static __always_inline bool is_bpf_exit(void *ctx)
{
	return may_be_bpf(FIELD(u64, RAW(0), PT_REGS_NUMBER));
}

static __always_inline s64 result(void *ctx)
{
	return RAW(1);
}

static __always_inline u32 child_pid(void *ctx)
{
	return FIELD(u32, RAW(0), OFF_task_struct_pid);
}

static __always_inline u64 clone_flags(void *ctx)
{
	return RAW(1);
}

static __always_inline u32 pid_before_exec(void *ctx)
{
	return RAW(1);
}

#else

/* Arguments 4 and 5 are no part of the tracepoint before bpf(2) took five. */
static __always_inline bool is_bpf_entry(void *ctx, struct arguments *args)
{
	args->cmd = FIELD(u64, ctx, ENTER_CMD);
	args->attr = FIELD(u64, ctx, ENTER_UATTR);
	args->size = FIELD(u64, ctx, ENTER_SIZE);
	args->common = 0;
	args->common_size = 0;
	args->flags = 0;
#ifdef HAVE_REGISTERS
	if (args->cmd & COMMON_ATTRS) {
		u64 regs = registers();

		args->common = FIELD(u64, regs, ARG4_OFFSET);
		args->common_size = FIELD(u64, regs, ARG5_OFFSET);
	}
#endif
	return true;
}

static __always_inline bool is_bpf_exit(void *ctx)
{
	return true;
}

static __always_inline s64 result(void *ctx)
{
	return FIELD(s64, ctx, EXIT_RET);
}

static __always_inline u32 child_pid(void *ctx)
{
	return FIELD(u32, ctx, NEWTASK_PID);
}

static __always_inline u64 clone_flags(void *ctx)
{
	return FIELD(u64, ctx, NEWTASK_CLONE_FLAGS);
}

static __always_inline u32 pid_before_exec(void *ctx)
{
	return FIELD(u32, ctx, EXEC_OLD_PID);
}

#endif
#endif
