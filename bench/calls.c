/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes one kind of system call as fast as it can and prints the CPU time of one,
 * in ns: the least over short runs, since other work on the machine only adds.
 *
 *   calls lookup|getppid RUNS
 */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLS_PER_RUN = 5000 };

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

static void other(void)
{
	syscall(SYS_getppid);
}

static double cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

int main(int argc, char **argv)
{
	void (*call)(void) = argc > 1 && !strcmp(argv[1], "getppid") ? other : lookup;
	int runs = argc > 2 ? atoi(argv[2]) : 20;
	double least = 1e18;

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
		double start = cpu_ns();

		for (int i = 0; i < CALLS_PER_RUN; i++)
			call();

		double each = (cpu_ns() - start) / CALLS_PER_RUN;

		if (each < least)
			least = each;
	}
	printf("%.1f\n", least);
	return 0;
}
