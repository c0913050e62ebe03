/* SPDX-License-Identifier: GPL-2.0-only */
/* Who calls: what every record says of it, and what is said once a process. */
#ifndef BPFSNOOP_PROCESS_H
#define BPFSNOOP_PROCESS_H

#ifdef HAVE_TASK

static __always_inline u32 pid_namespace(struct task_struct *task)
{
	void *pid = FIELD(void *, task, OFF_task_struct_thread_pid);
	u32 level = FIELD(u32, pid, OFF_pid_level);

	if (level == 0) {
		void *first = FIELD(void *, pid, OFF_pid_numbers + OFF_upid_ns);

		return FIELD(u32, first, OFF_pid_namespace_ns_inum);
	}
#ifdef HAVE_KERNEL_READS
	u64 numbers = (u64)pid + OFF_pid_numbers;
	u64 space = 0;
	u32 inum = 0;

	bpf_probe_read_kernel(&space, sizeof(space),
			      (void *)(numbers + SIZE_upid * (u64)level + OFF_upid_ns));
	bpf_probe_read_kernel(&inum, sizeof(inum), (void *)(space + OFF_pid_namespace_ns_inum));
	return inum;
#else
	return 0;
#endif
}

static __always_inline void identify(struct call_record *call, struct task_struct *task)
{
	void *leader = FIELD(void *, task, OFF_task_struct_group_leader);
	void *cred = FIELD(void *, task, OFF_task_struct_cred);
	void *spaces = FIELD(void *, task, OFF_task_struct_nsproxy);
	void *mounts = FIELD(void *, spaces, OFF_nsproxy_mnt_ns);

	call->process_start_ns = FIELD(u64, leader, OFF_task_struct_start_boottime);
	call->exec_id = FIELD(u64, task, OFF_task_struct_self_exec_id);
	call->capabilities = FIELD(u64, cred, OFF_cred_cap_effective);
	call->euid = FIELD(u32, cred, OFF_cred_euid);
#ifdef OFF_task_struct_loginuid
	call->login_uid = FIELD(u32, task, OFF_task_struct_loginuid);
#else
	call->login_uid = -1;
#endif
	call->pid_namespace = pid_namespace(task);
	call->mount_namespace = FIELD(u32, mounts, OFF_mnt_namespace_ns_inum);
#ifdef HAVE_USER_NAMESPACE
	void *users = FIELD(void *, cred, OFF_cred_user_ns);

	call->user_namespace = FIELD(u32, users, OFF_user_namespace_ns_inum);
#endif
}

#ifdef HAVE_PATHS

struct place {
	u64 dentry;
	u64 mount;	/* struct mount, not the struct vfsmount in it */
};

/* The name of a directory entry behind those that are there. Returns whether it fits. */
static __always_inline bool add_name(struct process_record *process, u8 *names, u64 dentry)
{
	u64 len = FRESH(process->exe_len);
	u64 name = 0;

	BARRIER(len);
	if (len > EXE_MAX - NAME_ROOM)
		return false;
	bpf_probe_read_kernel(&name, 8, (void *)(dentry + OFF_dentry_d_name_name));

	s64 got = bpf_probe_read_kernel_str(names + len, NAME_ROOM, (void *)name);

	if (got <= 0)
		return false;
	process->exe_len += got;
	return true;
}

/*
 * The names on the way from a file to the root of its mount namespace, behind each
 * other in names. Their length is kept in memory, where the verifier does not follow
 * each of its values.
 *
 * Both kinds of step are read in every round: with a branch for each, clang puts one of
 * them in front of the loop's head, and kernels like 6.1 refuse to fall into a loop.
 */
static __always_inline void read_path(struct process_record *process, u8 *names,
				      struct place place)
{
	u32 cut = PROCESS_EXE_CUT;
	u32 i;

	NO_UNROLL
	for (i = 0; i < PATH_STEPS; i++) {
		u64 parent = 0, root = 0, outer = 0, point = 0;

		bpf_probe_read_kernel(&parent, 8, (void *)(place.dentry + OFF_dentry_d_parent));
		bpf_probe_read_kernel(&root, 8, (void *)(place.mount + OFF_mount_mnt +
							 OFF_vfsmount_mnt_root));
		bpf_probe_read_kernel(&outer, 8, (void *)(place.mount + OFF_mount_mnt_parent));
		bpf_probe_read_kernel(&point, 8, (void *)(place.mount + OFF_mount_mnt_mountpoint));

		/* The root of a mount: on with what it is mounted on, if it is. */
		bool crosses = place.dentry == root;

		if (crosses ? !outer || outer == place.mount : place.dentry == parent) {
			cut = 0;
			break;
		}
		if (!crosses && !add_name(process, names, place.dentry))
			break;
		place.dentry = crosses ? point : parent;
		place.mount = crosses ? outer : place.mount;
	}
	process->flags |= cut;
}

static __always_inline void read_exe(struct process_record *process, u8 *names, void *file)
{
	struct place place = {
		.dentry = FIELD(u64, file, OFF_file_f_path_dentry),
		.mount = FIELD(u64, file, OFF_file_f_path_mnt) - OFF_mount_mnt,
	};
	u64 parent = 0, hashed = 0, name = 0;

	bpf_probe_read_kernel(&parent, 8, (void *)(place.dentry + OFF_dentry_d_parent));
	bpf_probe_read_kernel(&hashed, 8, (void *)(place.dentry + OFF_dentry_d_hash_pprev));
	if (!hashed)
		process->flags |= PROCESS_EXE_GONE;
	if (parent == place.dentry) {
		/* A file without a directory: its name is all there is. */
		process->flags |= PROCESS_EXE_PSEUDO;
		bpf_probe_read_kernel(&name, 8, (void *)(place.dentry + OFF_dentry_d_name_name));

		s64 got = bpf_probe_read_kernel_str(names, NAME_ROOM, (void *)name);

		if (got > 0)
			process->exe_len = got;
	} else {
		read_path(process, names, place);
	}
}

#ifdef HAVE_EXE

/*
 * Which file it is, and who can write to it. The namespace is that of the mount which the
 * path goes through, not the task's: a file may be executed by its descriptor from
 * elsewhere, where anything may be mounted at any path.
 */
static __always_inline void identify_exe(struct process_record *process, void *file)
{
	void *inode = FIELD(void *, file, OFF_file_f_inode);
	void *super = FIELD(void *, inode, OFF_inode_i_sb);
	u64 mount = FIELD(u64, file, OFF_file_f_path_mnt) - OFF_mount_mnt;
	u64 space = 0;

	process->exe_ino = FIELD(u64, inode, OFF_inode_i_ino);
	process->exe_uid = FIELD(u32, inode, OFF_inode_i_uid);
	process->exe_mode = FIELD(u16, inode, OFF_inode_i_mode);
	process->exe_dev = FIELD(u32, super, OFF_super_block_s_dev);
	bpf_probe_read_kernel(&space, sizeof(space), (void *)(mount + OFF_mount_mnt_ns));
	if (space)
		bpf_probe_read_kernel(&process->exe_mount_namespace, sizeof(u32),
				      (void *)(space + OFF_mnt_namespace_ns_inum));
}

#endif
#endif

static __always_inline bool is_told(struct thread *thread, u64 *told)
{
	struct call_record *call = &thread->call;

	return thread->known_start_ns == call->process_start_ns &&
	       thread->known_exec_id == call->exec_id && *told - thread->known_at < ANNOUNCE_AGAIN;
}

/* Sends struct process_record. */
static __always_inline void tell_process(struct thread *thread, struct scratch *scratch, u64 *told)
{
	struct call_record *call = &thread->call;
	struct process_record *process = &scratch->process;
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	void *parent = FIELD(void *, task, OFF_task_struct_real_parent);
	void *parent_leader = FIELD(void *, parent, OFF_task_struct_group_leader);
	void *mm = FIELD(void *, task, OFF_task_struct_mm);
	u64 exe_len = 0, args_len = 0;

	process->kind = RECORD_PROCESS;
	process->tgid = call->tgid;
	process->start_ns = call->process_start_ns;
	process->exec_id = call->exec_id;
	process->parent_start_ns = FIELD(u64, parent_leader, OFF_task_struct_start_boottime);
	process->parent_tgid = FIELD(u32, parent, OFF_task_struct_tgid);
	process->flags = 0;
	process->exe_ino = 0;
	process->exe_uid = 0;
	process->exe_mode = 0;
	process->exe_dev = 0;
	process->exe_mount_namespace = 0;
	process->exe_len = 0;
	process->reserved = 0;
	__builtin_memset(process->parent_comm, 0, COMM_LEN);
#ifdef HAVE_KERNEL_READS
	bpf_probe_read_kernel(process->parent_comm, COMM_LEN,
			      (void *)((u64)parent_leader + OFF_task_struct_comm));
#endif
	if (!mm) {
		process->flags |= PROCESS_KERNEL;
	} else {
#ifdef HAVE_PATHS
		void *file = FIELD(void *, mm, OFF_mm_struct_exe_file);

		if (file)
			read_exe(process, scratch->names, file);
#ifdef HAVE_EXE
		if (file)
			identify_exe(process, file);
#endif
#endif
		u64 start = FIELD(u64, mm, OFF_mm_struct_arg_start);
		u64 size = FIELD(u64, mm, OFF_mm_struct_arg_end) - start;
		u64 n = size;

		exe_len = process->exe_len;
		if (n > ARGS_MAX) {
			n = ARGS_MAX;
			process->flags |= PROCESS_ARGS_CUT;
		}
		BARRIER(exe_len);
		if (exe_len > EXE_MAX)
			exe_len = EXE_MAX;
		args_len = read_user(scratch->names + exe_len, n, start, ARGS_MAX);
		if (args_len < n)
			process->flags |= PROCESS_ARGS_UNREAD;
	}
	process->args_len = args_len;

	u64 len = sizeof(*process) + exe_len + args_len;

	BARRIER(len);
	if (len > sizeof(*process) + EXE_MAX + ARGS_MAX)
		return;
	if (send(thread->ring, scratch, len))
		return;
	thread->known_start_ns = call->process_start_ns;
	thread->known_exec_id = call->exec_id;
	thread->known_at = *told;
	lock_xadd(told, 1);
}

#endif
#endif
