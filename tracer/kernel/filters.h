/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose calls are wanted, and which. */
#ifndef BPFSNOOP_FILTERS_H
#define BPFSNOOP_FILTERS_H

static __always_inline struct tracer_config *running(void)
{
	int zero = 0;
	struct tracer_config *cfg = config.lookup(&zero);

	return cfg && cfg->running ? cfg : NULL;
}

/* Our own calls are not recorded; they show the tracer that its programs are run. */
static __always_inline bool is_own(void)
{
	int zero = 0;
	struct tracer_config *cfg = config.lookup(&zero);

	return cfg && cfg->self == bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void note_run(int run)
{
	u64 *runs = own_runs.lookup(&run);

	if (runs)
		lock_xadd(runs, 1);
}

static __always_inline void note_outcome(s64 outcome)
{
	int last = OWN_OUTCOME;
	u64 *place = own_runs.lookup(&last);

	if (place)
		*place = outcome;
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

static __always_inline bool wanted_cgroup(struct tracer_config *cfg)
{
	u32 i;

	NO_UNROLL
	for (i = 0; i < CGROUPS_MAX; i++) {
		if (i >= cfg->cgroups)
			break;
		if (cgroups.check_current_task(i) == 1)
			return true;
	}
	return false;
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
	if (cfg->filters & FILTER_PIDNS) {
		struct bpf_pidns_info ids;

		if (bpf_get_ns_current_pid_tgid(cfg->nsfs, cfg->pid_namespace, &ids, sizeof(ids)))
			return false;
	}
	return !(cfg->filters & FILTER_CGROUP) || wanted_cgroup(cfg);
}

#endif
