/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What runs our programs, and where their arguments are: in the record of a tracepoint, as
 * tracefs describes it; or, with RAW_TRACEPOINTS, in what the kernel passes to the
 * tracepoint itself, which BTF describes. The raw ones of system calls are run for every
 * system call of every process.
 */
#ifndef BPFSNOOP_HOOKS_H
#define BPFSNOOP_HOOKS_H

#ifdef RAW_TRACEPOINTS

/* TP_PROTO of include/trace/events/: its n-th argument. */
#define RAW(n) (((u64 *)ctx)[n])

static __always_inline bool is_bpf_entry(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	/* Calls of 32-bit programs are numbered otherwise. */
	return RAW(1) == NR_BPF && !(FIELD(u32, task, COMPAT_OFFSET) & COMPAT_BITS);
}

static __always_inline bool is_bpf_exit(void *ctx)
{
	return (u32)FIELD(u64, RAW(0), PT_REGS_NUMBER) == NR_BPF;
}

static __always_inline u64 argument(void *ctx, u32 offset)
{
	return FIELD(u64, RAW(0), offset);
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

static __always_inline bool is_bpf_entry(void *ctx)
{
	return true;
}

static __always_inline bool is_bpf_exit(void *ctx)
{
	return true;
}

static __always_inline u64 argument(void *ctx, u32 offset)
{
	return FIELD(u64, ctx, offset);
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
