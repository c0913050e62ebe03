/* SPDX-License-Identifier: GPL-2.0-only */
/* The BPF object behind a file descriptor of the caller. */
#ifndef BPFSNOOP_OBJECTS_H
#define BPFSNOOP_OBJECTS_H

#ifdef HAVE_OBJECTS

/* Reads kernel memory; what cannot be read is zero. */
#define READ(dst, address) bpf_probe_read_kernel(&(dst), sizeof(dst), (void *)(address))

struct file_view {
	u64 ops;
	u64 data;
};

/* 0 if there is no such descriptor. */
static __always_inline u64 file_behind(struct task_struct *task, u32 fd)
{
	void *files = FIELD(void *, task, OFF_task_struct_files);
	void *table = FIELD(void *, files, OFF_files_struct_fdt);
	u32 count = FIELD(u32, table, OFF_fdtable_max_fds);
	u64 array = FIELD(u64, table, OFF_fdtable_fd);
	u64 file = 0;

	if (fd < count)
		READ(file, array + 8 * (u64)fd);
	return file;
}

/*
 * Members of a struct that lie near each other are read at once: what a read costs is
 * the call of the helper.
 */
#define SPAN_MAX 160
#define FILE_FROM MIN(OFF_file_f_op, OFF_file_private_data)
#define FILE_SPAN (MAX(OFF_file_f_op, OFF_file_private_data) + 8 - FILE_FROM)
#define MAP_FROM MIN(OFF_bpf_map_map_type, MIN(OFF_bpf_map_id, OFF_bpf_map_name))
#define MAP_SPAN                                                             \
	(MAX(OFF_bpf_map_map_type + 16,                                      \
	     MAX(OFF_bpf_map_id + 4, OFF_bpf_map_name + OBJECT_NAME_LEN)) -  \
	 MAP_FROM)

static __always_inline void view_file(u64 file, struct file_view *view)
{
#if FILE_SPAN <= SPAN_MAX
	u64 span[(FILE_SPAN + 7) / 8] = {};

	bpf_probe_read_kernel(span, FILE_SPAN, (void *)(file + FILE_FROM));
	view->ops = FIELD(u64, span, OFF_file_f_op - FILE_FROM);
	view->data = FIELD(u64, span, OFF_file_private_data - FILE_FROM);
#else
	READ(view->ops, file + OFF_file_f_op);
	READ(view->data, file + OFF_file_private_data);
#endif
}

static __always_inline u32 kind_of(struct object_ops *known, u64 ops)
{
	u32 kind;

	for (kind = 1; kind < OBJECT_KINDS; kind++)
		if (ops == known->ops[kind])
			return kind;

	/* Links that can be polled have operations of their own, with the same release. */
	u64 release = 0;

	READ(release, ops + OFF_file_operations_release);
	for (kind = 1; kind < OBJECT_KINDS; kind++)
		if (release && release == known->release[kind])
			return kind;
	return 0;
}

static __always_inline void describe_prog(u64 prog, struct object *object)
{
	u64 aux = 0;

	READ(aux, prog + OFF_bpf_prog_aux);
	READ(object->type, prog + OFF_bpf_prog_type);
	READ(object->tag, prog + OFF_bpf_prog_tag);
	READ(object->id, aux + OFF_bpf_prog_aux_id);
	READ(object->name, aux + OFF_bpf_prog_aux_name);
}

static __always_inline void describe_link(u64 link, struct object *object)
{
	u64 prog = 0;
	u64 aux = 0;

	READ(object->id, link + OFF_bpf_link_id);
	READ(object->type, link + OFF_bpf_link_type);
	READ(prog, link + OFF_bpf_link_prog);
	if (!prog)
		return;
	READ(aux, prog + OFF_bpf_prog_aux);
	READ(object->prog_id, aux + OFF_bpf_prog_aux_id);
}

struct map_sizes {
	u32 type, key_size, value_size, max_entries;
};

static __always_inline void describe_map(u64 map, struct object *object)
{
	struct map_sizes sizes = {};

#if MAP_SPAN <= SPAN_MAX
	u64 span[(MAP_SPAN + 7) / 8] = {};

	bpf_probe_read_kernel(span, MAP_SPAN, (void *)(map + MAP_FROM));
	object->id = FIELD(u32, span, OFF_bpf_map_id - MAP_FROM);
	sizes = FIELD(struct map_sizes, span, OFF_bpf_map_map_type - MAP_FROM);
	__builtin_memcpy(object->name, (u8 *)span + OFF_bpf_map_name - MAP_FROM, OBJECT_NAME_LEN);
#else
	READ(object->id, map + OFF_bpf_map_id);
	READ(sizes, map + OFF_bpf_map_map_type);
	READ(object->name, map + OFF_bpf_map_name);
#endif
	object->type = sizes.type;
	object->key_size = sizes.key_size;
	object->value_size = sizes.value_size;
	object->max_entries = sizes.max_entries;
}

/* Returns whether the descriptor leads to a BPF object. */
static __always_inline bool describe(struct task_struct *task, u32 fd, struct object *object)
{
	int zero = 0;
	struct object_ops *known = object_ops.lookup(&zero);
	struct file_view view = {};

	if (!known)
		return false;

	u64 file = file_behind(task, fd);

	if (!file)
		return false;
	view_file(file, &view);

	u32 kind = kind_of(known, view.ops);

	if (!kind)
		return false;
	__builtin_memset(object, 0, sizeof(*object));
	object->kind = kind;
	if (kind == OBJECT_MAP)
		describe_map(view.data, object);
	else if (kind == OBJECT_PROG)
		describe_prog(view.data, object);
	else if (kind == OBJECT_LINK)
		describe_link(view.data, object);
	else
		READ(object->id, view.data + OFF_btf_id);
	return true;
}

#ifdef HAVE_PROG_MAPS
/* The struct bpf_prog, or 0 if that is none. */
static __always_inline u64 prog_behind(struct task_struct *task, u32 fd)
{
	int zero = 0;
	struct object_ops *known = object_ops.lookup(&zero);
	struct file_view view = {};
	u64 file = file_behind(task, fd);

	if (!known || !file)
		return 0;
	view_file(file, &view);
	return view.ops == known->ops[OBJECT_PROG] ? view.data : 0;
}
#endif

/*
 * Run by the tracer for one descriptor of each kind, before it traces: what their
 * operations are cannot be looked up by name on every kernel. Leaves what it makes
 * of the descriptor, for the tracer to compare.
 */
int calibrate(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	u32 fd = ctx->args[1];
	int zero = 0;
	struct object_ops *known = object_ops.lookup(&zero);
	struct object *object = calibrated.lookup(&zero);
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct file_view view = {};

	if (!known || !object || kind >= OBJECT_KINDS)
		return 0;

	u64 file = file_behind(task, fd);

	if (!file)
		return 0;
	view_file(file, &view);
	known->ops[kind] = view.ops;
	READ(known->release[kind], view.ops + OFF_file_operations_release);
	describe(task, fd, object);
	return 0;
}

#endif
#endif
