/* SPDX-License-Identifier: GPL-2.0-only */
/* The arguments of a call, and the union bpf_attr that one of them points to. */
#ifndef BPFSNOOP_ATTR_H
#define BPFSNOOP_ATTR_H

static __always_inline bool has_arguments(struct call_record *call, struct arguments *args)
{
	return args->attr == call->attr_addr && args->size == call->size &&
	       args->cmd == call->cmd && args->flags == (call->flags & CALL_COMPAT);
}

/*
 * The kernel may have left us out at an exit, and then at an entry. Whether the call that
 * returns is the one that is known; what the kernel itself called has no registers.
 */
static __always_inline bool is_same_call(struct call_record *call)
{
#ifdef HAVE_REGISTERS
	struct arguments args = {};

	return read_arguments(registers(), &args) && has_arguments(call, &args);
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
	u32 ring = thread->ring;

	*state |= PART_CHUNKED;
	thread->ring = RING_BULK;
	if (got)
		send_chunk(thread, scratch, kind, 0, ATTR_INLINE, got);
	thread->ring = ring;
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
	if (got > thread->attr_len && !thread->copied) {
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

/* attr of a call that the kernel makes itself. */
static __always_inline void take_kernel_entry(struct thread *thread)
{
	u64 n = MIN(thread->call.size, ATTR_INLINE);
	struct part *part = begin_part(thread, PART_ATTR_ENTRY, 0);

	BARRIER(n);
	if (!part || n > ATTR_INLINE)
		return;
	if (bpf_probe_read_kernel(thread->attr, n, (void *)thread->call.attr_addr))
		n = 0;
	thread->attr_len = n;
	thread->attr_end = field_end(thread->attr, n, n);
	thread->entry_end = thread->attr_end;
	__builtin_memcpy(part + 1, thread->attr, ATTR_INLINE);
	part->len = n;
	part->wanted = thread->call.size;
	end_part(thread, n);
}

#ifdef HAVE_FUNCTIONS
/*
 * The kernel's own copy of attr. From here on it is what counts: where pointers in it lead
 * is where the kernel goes.
 */
static __always_inline void take_kernel_attr(struct thread *thread, struct scratch *scratch,
					     u64 src, u32 size)
{
	u64 n = forgotten(&scratch->n, MIN(size, ATTR_INLINE));

	BARRIER(n);
	if (n > ATTR_INLINE || bpf_probe_read_kernel(scratch->attr, n, (void *)src))
		return;
	n = FRESH(scratch->n);
	thread->copied = 1;
	if (thread->attr_len >= n && attr_unchanged(thread, scratch, n)) {
		thread->call.flags |= CALL_SAME_ATTR;
		return;
	}

	struct part *part = begin_part(thread, PART_ATTR_KERNEL, 0);

	if (!part)
		return;
	if (room_for_data(thread) < ATTR_INLINE) {
		thread->call.flags |= CALL_NO_ROOM;
		return;
	}
	n = FRESH(scratch->n);
	if (thread->attr_len < n)
		thread->late = 1;
	thread->attr_len = n;
	thread->attr_end = field_end(scratch->attr, n, n);
	__builtin_memcpy(thread->attr, scratch->attr, ATTR_INLINE + 8);
	__builtin_memcpy(part + 1, scratch->attr, ATTR_INLINE);
	part->len = n;
	part->wanted = n;
	end_part(thread, n);
}
#endif

#endif
