/* SPDX-License-Identifier: GPL-2.0-only */
/* Which ring a record goes into, and whether there is room for it. */
#ifndef BPFSNOOP_RINGS_H
#define BPFSNOOP_RINGS_H

/* Returns 0, or an error if there is no room. */
static __always_inline long send(u32 ring, void *record, u64 len)
{
	if (ring == RING_DATA)
		return data_ring.ringbuf_output(record, len, 0);
	if (ring == RING_CONTROL)
		return control_ring.ringbuf_output(record, len, 0);
	if (ring == RING_VITAL)
		return vital_ring.ringbuf_output(record, len, 0);
	/* It is of no use before its call comes. */
	return bulk_ring.ringbuf_output(record, len, BPF_RB_NO_WAKEUP);
}

static __always_inline u32 ring_after(struct command_plan *plan, s64 retval)
{
	return plan->ring == RING_VITAL && retval < 0 ? RING_CONTROL : plan->ring;
}

/* Whether a process may send len bytes of bulk, so that there is room left for others. */
static __always_inline bool within_quota(struct tracer_config *cfg, u32 tgid, u64 now, u64 len)
{
	int zero = 0;
	struct bulk_quota *quota = bulk_quotas.lookup(&tgid);
	u64 *sent = bulk_sent.lookup(&zero);
	u64 *taken = bulk_taken.lookup(&zero);

	if (!sent || !taken)
		return false;
	/* Another thread's clock may have been read before ours. */
	if (!quota || (s64)(now - quota->since_ns) > (s64)BULK_WINDOW_NS) {
		struct bulk_quota begun = { .since_ns = now, .bytes = len };

		bulk_quotas.update(&tgid, &begun);
		return true;
	}
	if (quota->bytes > cfg->bulk_size / BULK_SHARES &&
	    (s64)(*sent - *taken) > (s64)(cfg->bulk_size / 2))
		return false;
	lock_xadd(&quota->bytes, len);
	return true;
}

/* Returns 0, or an error if there is no room. */
static __always_inline long send_bulk(void *record, u64 len, u32 tgid)
{
	int zero = 0;
	struct tracer_config *cfg = config.lookup(&zero);
	u64 *sent = bulk_sent.lookup(&zero);

	if (!cfg || !sent || !within_quota(cfg, tgid, bpf_ktime_get_boot_ns(), len))
		return -1;
	if (send(RING_BULK, record, len))
		return -1;
	lock_xadd(sent, len);
	return 0;
}

#endif
