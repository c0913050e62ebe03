/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes one kind of system call as fast as it can and prints what one takes, in ns:
 * CPU time, then time by the clock. Each is the least over short runs, since other
 * work on the machine only adds.
 *
 *   calls lookup|load|getppid RUNS
 */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLS_PER_RUN = 5000, LOADS_PER_RUN = 200, INSNS = 64 };

static int map_fd;

static void lookup(void)
{
	uint32_t key = 0;
	uint64_t value;
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = map_fd;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, 32);
}

/* A program of ordinary size, and the descriptor closed again. */
static void load(void)
{
	static struct bpf_insn insns[INSNS];
	union bpf_attr attr;

	for (int i = 0; i < INSNS - 1; i++)
		insns[i] = (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K };
	insns[INSNS - 1] = (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insn_cnt = INSNS;
	attr.insns = (uintptr_t)insns;
	attr.license = (uintptr_t)"GPL";
	close(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, 144));
}

static void other(void)
{
	syscall(SYS_getppid);
}

static double now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "lookup";
	void (*call)(void) = !strcmp(name, "getppid") ? other : !strcmp(name, "load") ? load : lookup;
	int calls = call == load ? LOADS_PER_RUN : CALLS_PER_RUN;
	int runs = argc > 2 ? atoi(argv[2]) : 20;
	double least_cpu = 1e18, least_clock = 1e18;

	if (call == lookup) {
		union bpf_attr attr = {
			.map_type = BPF_MAP_TYPE_ARRAY,
			.key_size = 4,
			.value_size = 8,
			.max_entries = 1,
		};

		map_fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
		if (map_fd < 0) {
			perror("BPF_MAP_CREATE");
			return 1;
		}
	}
	for (int run = 0; run < runs; run++) {
		double clock = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);

		for (int i = 0; i < calls; i++)
			call();
		cpu = (now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) / calls;
		clock = (now_ns(CLOCK_MONOTONIC) - clock) / calls;
		if (cpu < least_cpu)
			least_cpu = cpu;
		if (clock < least_clock)
			least_clock = clock;
	}
	printf("%.1f %.1f\n", least_cpu, least_clock);
	return 0;
}
