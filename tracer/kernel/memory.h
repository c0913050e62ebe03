/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory of the caller, into the parts of a call's record or into chunks. */
#ifndef BPFSNOOP_MEMORY_H
#define BPFSNOOP_MEMORY_H

/*
 * Copies n bytes of user memory, at most max, and when a page of them is not
 * there, those before it. Returns how many arrived.
 *
 * A read that faults brings nothing, so the bytes on either side of a page
 * boundary are read apart: memory may end where the mapping ends, and tracepoints
 * cannot fault a page in. n spans two pages at most.
 */
static __always_inline u64 read_user(u8 *dst, u64 n, u64 src, const u64 max)
{
	u64 head = PAGE_SIZE - (src & (PAGE_SIZE - 1));

	if (head > n)
		head = n;
	BARRIER(head);
	if (head > max)
		return 0;
	if (bpf_probe_read_user(dst, head, (void *)src))
		return 0;

	u64 tail = n - head;

	if (!tail)
		return head;
	BARRIER(tail);
	if (tail > max)
		return head;
	if (bpf_probe_read_user(dst + head, tail, (void *)(src + head)))
		return head;
	return head + tail;
}

/* What is copied next; kept in memory so that the verifier forgets how it came about. */
static __always_inline u64 forgotten(u64 *place, u64 value)
{
	FRESH(*place) = value;
	return FRESH(*place);
}

/*
 * Finds out how long a string is: with its NUL, or max if it is longer, or as much as
 * is there. Leaves the string in scratch->data, the length in scratch->got.
 */
static __always_inline void read_string(struct scratch *scratch, u64 src, u64 max)
{
	u64 head = PAGE_SIZE - (src & (PAGE_SIZE - 1));

	scratch->got = 0;
	if (head > max)
		head = max;
	BARRIER(head);
	if (head > CHUNK_MAX)
		return;

	s64 got = bpf_probe_read_user_str(scratch->data, head, (void *)src);

	if (got < 0) {
		scratch->state |= PART_UNREADABLE;
		return;
	}
	scratch->got = got;
	if (got < head)
		return;

	/* The helper ends what it copies with a NUL, which need not be the caller's. */
	u8 last = 0;

	bpf_probe_read_user(&last, 1, (void *)(src + head - 1));
	if (last == 0)
		return;
	head = FRESH(scratch->got) - 1;
	BARRIER(head);
	if (head > CHUNK_MAX)
		return;
	scratch->data[head] = last;
	head++;

	u64 tail = max - head;

	if (!tail) {
		scratch->state |= PART_CUT;
		return;
	}
	BARRIER(tail);
	if (tail > CHUNK_MAX)
		return;
	got = bpf_probe_read_user_str(scratch->data + head, tail, (void *)(src + head));
	if (got < 0)
		scratch->state |= PART_UNREADABLE;
	else
		scratch->got = head + got;
	if (got == tail) {
		bpf_probe_read_user(&last, 1, (void *)(src + head + tail - 1));
		if (last)
			scratch->state |= PART_CUT;
	}
}

/* The next part of the record: kind, slot and state; NULL if there is no room. */
static __always_inline struct part *part_at(struct thread *thread, u64 off)
{
	BARRIER(off);
	if (off > PARTS_MAX - sizeof(struct part))
		return NULL;
	BARRIER(off);	/* the sum must not be made before the test */
	return (struct part *)(thread->parts + off);
}

static __always_inline struct part *begin_part(struct thread *thread, u32 kind, u32 slot)
{
	struct part *part = part_at(thread, thread->parts_len);

	if (!part) {
		thread->call.flags |= CALL_NO_ROOM;
		return NULL;
	}
	part->kind = kind;
	part->state = 0;
	part->slot = slot;
	part->len = 0;
	part->wanted = 0;
	return part;
}

static __always_inline u64 room_for_data(struct thread *thread)
{
	u64 used = thread->parts_len + sizeof(struct part);

	return used < PARTS_MAX ? PARTS_MAX - used : 0;
}

/* len bytes of data stand behind the part's header. */
static __always_inline void end_part(struct thread *thread, u64 len)
{
	thread->parts_len += sizeof(struct part) + ((len + 7) & ~7ULL);
}

/*
 * Sends what stands in the scratch buffer ahead of the call. If there is no room, it is
 * missed by whoever puts it together.
 */
static __always_inline void send_chunk(struct thread *thread, struct scratch *scratch,
				       u32 kind, u32 slot, u32 offset, u64 len)
{
	struct chunk_record *chunk = &scratch->chunk;

	BARRIER(len);
	if (len > CHUNK_MAX)
		return;
	chunk->kind = RECORD_CHUNK;
	chunk->tid = thread->call.tid;
	chunk->start_ns = thread->call.start_ns;
	chunk->part = kind;
	chunk->reserved = 0;
	chunk->slot = slot;
	chunk->offset = offset;
	chunk->len = len;
	chunk->reserved2 = 0;
	len += sizeof(*chunk);
	if (thread->ring == RING_BULK ? send_bulk(scratch, len, thread->call.tgid)
				      : send(thread->ring, scratch, len))
		thread->call.flags |= CALL_DATA_LOST;
}

/*
 * scratch->wanted bytes at src, or the first limit of them: behind the header of the
 * part if they are few, else in a chunk.
 */
static __always_inline void take_bytes(struct thread *thread, struct scratch *scratch, u32 kind,
				       u32 slot, u64 src, u64 limit)
{
	u64 room = room_for_data(thread);
	struct part *part = begin_part(thread, kind, slot);
	u64 n = scratch->wanted;

	if (!part)
		return;
	if (limit > CHUNK_MAX)
		limit = CHUNK_MAX;
	if (n > limit) {
		n = limit;
		scratch->state |= PART_CUT;
	}
	n = forgotten(&scratch->n, n);
	if (n <= INLINE_MAX && n <= room) {
		scratch->got = read_user((u8 *)(part + 1), n, src, INLINE_MAX);
		end_part(thread, scratch->got);
	} else {
		u64 got = read_user(scratch->data, n, src, CHUNK_MAX);

		got = forgotten(&scratch->got, got);
		scratch->state |= PART_CHUNKED;
		if (got)
			send_chunk(thread, scratch, kind, slot, 0, got);
		end_part(thread, 0);
	}
	if (scratch->got < n)
		scratch->state |= PART_UNREADABLE;
	part->state = scratch->state;
	part->len = scratch->got;
	part->wanted = scratch->wanted + scratch->skipped;
}

/* Strings that an array of pointers leads to, one behind the other with their NULs. */
static __always_inline void take_strings(struct thread *thread, struct scratch *scratch, u32 slot,
					 u64 src, u64 count)
{
	struct part *part = begin_part(thread, PART_MEMORY, slot);
	u32 i;

	if (!part)
		return;
	scratch->got = 0;
	NO_UNROLL
	for (i = 0; i < STRINGS_MAX; i++) {
		u64 string = 0;
		u64 off = scratch->got;

		if (i >= count)
			break;
		BARRIER(off);
		if (off > CHUNK_MAX - STRING_MAX) {
			scratch->state |= PART_CUT;
			break;
		}
		if (bpf_probe_read_user(&string, sizeof(string), (void *)(src + 8 * i))) {
			scratch->state |= PART_UNREADABLE;
			break;
		}

		s64 got = bpf_probe_read_user_str(scratch->data + off, STRING_MAX, (void *)string);

		if (got < 0) {
			scratch->state |= PART_UNREADABLE;
			break;
		}
		scratch->got = off + got;
		if (got == STRING_MAX) {
			u8 last = 0;

			bpf_probe_read_user(&last, 1, (void *)(string + STRING_MAX - 1));
			if (last)
				scratch->state |= PART_CUT;
		}
	}
	if (count > STRINGS_MAX)
		scratch->state |= PART_CUT;

	u64 len = scratch->got;

	if (len)
		send_chunk(thread, scratch, PART_MEMORY, slot, 0, len);
	end_part(thread, 0);
	part->state = scratch->state | PART_CHUNKED;
	part->len = len;
	part->wanted = count;
}

/*
 * The end of a log: of a string whose length the kernel told, or which ends
 * somewhere within size bytes.
 */
static __always_inline void take_log(struct thread *thread, struct scratch *scratch, u32 slot,
				     u64 src, u64 size, u64 told, u64 limit)
{
	u32 i;

	scratch->state = 0;
	scratch->wanted = told;
	if (!told) {
		NO_UNROLL
		for (i = 0; i < LOG_STEPS_MAX; i++) {
			u64 len = scratch->wanted;

			if (len >= size)
				break;

			s64 got = bpf_probe_read_user_str(scratch->data, CHUNK_MAX,
							  (void *)(src + len));

			if (got < 0)
				scratch->state |= PART_UNREADABLE;
			if (got <= 0)
				break;
			scratch->wanted = len + got;
			if (got < CHUNK_MAX)
				break;
			scratch->wanted--;	/* the helper's NUL */
		}
		/* It goes on behind what was looked at. */
		if (i == LOG_STEPS_MAX)
			scratch->state |= PART_CUT;
	}
	scratch->skipped = 0;
	if (scratch->wanted > size) {
		/* The kernel kept what there was room for: of a verifier's log the end. */
		scratch->wanted = size;
		scratch->state |= PART_TAIL;
	}
	if (scratch->wanted > limit) {
		scratch->skipped = scratch->wanted - limit;
		scratch->wanted = limit;
		scratch->state |= PART_TAIL;
	}
	take_bytes(thread, scratch, PART_MEMORY, slot, src + scratch->skipped, limit);
}

/*
 * Long data, a page of the caller's memory after the other. How far it went is kept in
 * memory, where the verifier does not follow each of its values.
 */
static __always_inline void take_bulk(struct thread *thread, struct scratch *scratch, u32 slot,
				      u64 src, u64 size)
{
	u32 i;

	scratch->wanted = size;
	NO_UNROLL
	for (i = 0; i < BULK_PIECES; i++) {
		u64 done = FRESH(thread->bulk_done);
		u64 rest = FRESH(scratch->wanted) - done;

		if (!rest)
			break;

		u64 at = src + done;
		u64 n = CHUNK_MAX - (at & (CHUNK_MAX - 1));

		n = forgotten(&scratch->n, MIN(n, rest));
		BARRIER(n);
		if (n > CHUNK_MAX)
			break;
		if (bpf_probe_read_user(scratch->data, n, (void *)at)) {
			thread->bulk_state |= PART_UNREADABLE;
			break;
		}
		send_chunk(thread, scratch, PART_MEMORY, slot, done, n);
		thread->bulk_done = done + n;
	}
}

#ifdef HAVE_FUNCTIONS
/* The same of the kernel's memory, all of which is there. */
static __always_inline void take_kernel_bulk(struct thread *thread, struct scratch *scratch,
					     u32 slot, u64 src, u64 size)
{
	u32 i;

	thread->bulk_done = 0;
	scratch->wanted = size;
	NO_UNROLL
	for (i = 0; i < KERNEL_PIECES; i++) {
		u64 done = FRESH(thread->bulk_done);
		u64 n = FRESH(scratch->wanted) - done;

		if (!n)
			break;
		n = forgotten(&scratch->n, MIN(n, CHUNK_MAX));
		BARRIER(n);
		if (n > CHUNK_MAX)
			break;
		if (bpf_probe_read_kernel(scratch->data, n, (void *)(src + done)))
			break;
		send_chunk(thread, scratch, PART_MEMORY, slot, done, n);
		thread->bulk_done = done + n;
	}
}
#endif

#endif
