/* SPDX-License-Identifier: GPL-2.0-only */
/* What fields of attr lead to, as the command's plan has it: objects and memory. */
#ifndef BPFSNOOP_ROWS_H
#define BPFSNOOP_ROWS_H

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

	if (!part)
		return NULL;
	if (room_for_data(thread) < sizeof(*object)) {
		thread->call.flags |= CALL_NO_ROOM;
		return NULL;
	}
	if (!describe(task, fd, object))
		return NULL;
	part->len = sizeof(*object);
	part->wanted = sizeof(*object);
	end_part(thread, sizeof(*object));
	return object;
}
#endif

/*
 * At exit those that attr told of too late; and once more all, if the call changed
 * something: a descriptor may lead elsewhere by the time that the kernel looks.
 */
static __always_inline void take_objects(struct thread *thread, struct command_plan *plan,
					 bool at_exit)
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
		u32 kind = PART_OBJECT;

		if (at_exit && at + 4 <= thread->entry_end) {
			if (thread->ring != RING_VITAL)
				continue;
			kind = PART_OBJECT_EXIT;
		}
		if (at >= thread->attr_len || at + 4 > thread->attr_end)
			continue;

		struct object *object = take_object(thread, task, kind, at, fd);

		if (kind == PART_OBJECT && i == 0 && object && object->kind == OBJECT_MAP)
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
	u32 kind = row->when & ROW_ASIDE ? PART_ASIDE : PART_MEMORY;

	scratch->wanted = count * unit;
	if (unit)	/* it is known what there is, and be it nothing */
		take_bytes(thread, scratch, kind, row->pointer, src, row->limit);
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

/* What a pointer leads to that itself stands where another one leads, as does its count. */
static __always_inline void take_inside(struct thread *thread, struct scratch *scratch,
					struct memory_row *row)
{
	u64 base = attr_u64(thread->attr, FRESH(thread->attr_end), row->choice);
	u64 src = 0;
	u32 count = 0;

	if (!base || bpf_probe_read_user(&src, sizeof(src), (void *)(base + row->pointer)) ||
	    bpf_probe_read_user(&count, sizeof(count), (void *)(base + row->count)) || !src)
		return;
	scratch->wanted = (u64)count * row->unit;
	scratch->skipped = 0;
	take_bytes(thread, scratch, PART_ASIDE, SLOT_INSIDE | row->pointer, src, row->limit);
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
		if (row->when & ROW_INSIDE) {
			take_inside(thread, scratch, row);
			continue;
		}

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

	if (thread->bulk_state & PART_KERNEL || !bulk_of(thread, plan, &bulk) ||
	    thread->bulk_done >= bulk.size)
		return false;

	u64 before = thread->bulk_done;

	thread->bulk_state &= ~PART_UNREADABLE;
	take_bulk(thread, scratch, bulk.row->pointer, bulk.src, bulk.size);
	if (at_exit && thread->bulk_done > before)
		thread->bulk_state |= PART_AT_EXIT;
	return thread->bulk_done < bulk.size && !(thread->bulk_state & PART_UNREADABLE);
}

#ifdef HAVE_PROG_MAPS
/* What a program that was loaded refers to. Those are held by it and do not change. */
static __always_inline void take_maps(struct thread *thread)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct part *part = begin_part(thread, PART_MAPS, 0);
	u32 *ids = (void *)(part + 1);
	u64 prog, aux = 0, maps = 0, map;
	u32 count = 0, i;

	if (!part || room_for_data(thread) < 4 * PROG_MAPS_MAX)
		return;
	prog = prog_behind(task, thread->call.retval);
	if (!prog)
		return;
	READ(aux, prog + OFF_bpf_prog_aux);
	READ(count, aux + OFF_bpf_prog_aux_used_map_cnt);
	READ(maps, aux + OFF_bpf_prog_aux_used_maps);
	part->wanted = count;
	NO_UNROLL
	for (i = 0; i < PROG_MAPS_MAX && i < count; i++) {
		map = 0;
		READ(map, maps + 8 * (u64)i);
		READ(ids[i], map + OFF_bpf_map_id);
	}
	part->len = 4 * i;
	end_part(thread, part->len);
}
#endif

static __always_inline void end_bulk(struct thread *thread, struct command_plan *plan)
{
	struct bulk bulk;

	if (!bulk_of(thread, plan, &bulk))
		return;

	struct part *part = begin_part(thread, PART_MEMORY, bulk.row->pointer);

	if (!part)
		return;
	part->state = thread->bulk_state | PART_CHUNKED;
	part->len = thread->bulk_done;
	part->wanted = bulk.wanted;
	if (thread->bulk_state & PART_KERNEL)
		part->wanted = thread->bulk_wanted;
	else if (bulk.size < bulk.wanted)
		part->state |= PART_CUT;
	if (thread->bulk_state & PART_KERNEL && part->len < part->wanted)
		part->state |= PART_CUT;
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
	take_bytes(thread, scratch, PART_MEMORY, row->pointer, src, row->limit);
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

#endif
