/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile loader of BPF programs does, one word an act, and nothing that lasts:
 *
 *   helper:N     asks for a raw tracepoint program that calls helper N (of no use: all its
 *                arguments are zero) and returns
 *   type:N       the next programs are of this type
 *   name:TEXT    and have this name
 *   pad:N        the next programs have N instructions more, all of them before the rest
 *   log:N        and a log of N bytes for the verifier
 *   comm:TEXT    calls itself this
 *   load         asks for a program that returns 0
 *   nested       asks for one that itself makes a bpf(2) call
 *   reject:N     N times for one that the verifier refuses
 *   map:TEXT     makes an array of this name
 *   maps:N       makes N arrays, and opens each by its id
 *   info:N       asks N times about the last object
 *   tracepoint:T attaches the last program to the raw tracepoint T
 *   link:N       attaches it to interface 1, attach type N
 *   pin:PATH     pins the last object, and takes the pin away again
 *   write:N      opens the map with id N, and tries to write behind its end
 *   unlink:PATH  removes a file
 *   user:N       becomes this user
 *
 * Each act is printed with what came of the last call: a number, or -errno. Those that the kernel
 * refuses are left behind, for that is what attackers do.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAP_CREATE, MAP_UPDATE = 2, PROG_LOAD = 5, OBJ_PIN, MAP_BY_ID = 14, INFO = 15,
       RAW_TRACEPOINT = 17, LINK_CREATE = 28 };
enum { CALL = 0x85, EXIT = 0x95, MOV64_IMM = 0xb7, ARRAY = 2, RAW_TRACEPOINT_PROG = 17 };

struct insn { uint8_t code, registers; int16_t off; int32_t imm; };

static uint32_t type = RAW_TRACEPOINT_PROG, flags, padding, log_size;
static char log_text[4096];
static char name[16];
static int last = -1;	/* descriptor of the last program or map that was made */
static int result;

static int bpf(int cmd, void *attr, unsigned int size)
{
	int got = syscall(SYS_bpf, cmd, attr, size);

	result = got < 0 ? -errno : got;
	return got;
}

static void load(struct insn *insns, uint32_t count)
{
	struct {
		uint32_t type, count;
		uint64_t insns, license;
		uint32_t log_level, log_size;
		uint64_t log;
		uint32_t kern_version, flags;
		char name[16];
	} attr = { .type = type, .count = count, .insns = (uintptr_t)insns,
		   .license = (uintptr_t)"GPL", .flags = flags };

	if (log_size) {
		attr.log_level = 1;
		attr.log_size = log_size;
		attr.log = (uintptr_t)log_text;
	}

	memcpy(attr.name, name, sizeof(name));
	last = bpf(PROG_LOAD, &attr, sizeof(attr));
}

static void load_helper(int helper)
{
	struct insn *insns = calloc(8 + padding, sizeof(*insns));
	uint32_t at = 0;

	while (at < padding)
		insns[at++] = (struct insn){ MOV64_IMM, 0, 0, 0 };

	for (int reg = 1; helper && reg <= 5; reg++)
		insns[at++] = (struct insn){ MOV64_IMM, reg, 0, 0 };
	if (helper)
		insns[at++] = (struct insn){ CALL, 0, 0, helper };
	insns[at++] = (struct insn){ MOV64_IMM, 0, 0, 0 };
	insns[at++] = (struct insn){ EXIT, 0, 0, 0 };
	load(insns, at);
	free(insns);
}

/* Of type SYSCALL; it is never run. */
static void load_nested(void)
{
	struct insn insns[] = {
		{ 0x7a, 0x0a, -8, 0 },		/* *(u64 *)(r10 - 8) = 0 */
		{ MOV64_IMM, 1, 0, 100 },
		{ 0xbf, 0xa2, 0, 0 },		/* r2 = r10 */
		{ 0x07, 2, 0, -8 },		/* r2 += -8 */
		{ MOV64_IMM, 3, 0, 8 },
		{ CALL, 0, 0, 166 },
		{ MOV64_IMM, 0, 0, 0 },
		{ EXIT, 0, 0, 0 },
	};

	type = 31;
	flags = 16;	/* BPF_F_SLEEPABLE */
	load(insns, 8);
}

/* Nothing sets r0, which the verifier minds; long enough to be no probe of a library's. */
static void load_rejected(int times)
{
	struct insn insns[12];

	for (int at = 0; at < 11; at++)
		insns[at] = (struct insn){ MOV64_IMM, 1 + at % 5, 0, at };
	insns[11] = (struct insn){ EXIT, 0, 0, 0 };
	while (times--)
		load(insns, 12);
}

static int map(const char *called)
{
	struct {
		uint32_t type, key, value, entries, flags, inner, node;
		char name[16];
	} attr = { .type = ARRAY, .key = 4, .value = 8, .entries = 1 };

	strncpy(attr.name, called, sizeof(attr.name) - 1);
	return bpf(MAP_CREATE, &attr, sizeof(attr));
}

static void about(int times)
{
	char info[256];
	struct { uint32_t fd, len; uint64_t info; } attr = { last, 0, (uintptr_t)info };

	while (times-- > 0) {
		attr.len = sizeof(info);
		memset(info, 0, sizeof(info));
		bpf(INFO, &attr, sizeof(attr));
	}
}

static int by_id(uint32_t id)
{
	uint32_t attr[3] = { id };

	return bpf(MAP_BY_ID, attr, sizeof(attr));
}

static void maps(int times)
{
	while (times-- > 0) {
		char info[80] = { 0 };
		struct { uint32_t fd, len; uint64_t info; } attr = { 0, sizeof(info), (uintptr_t)info };

		attr.fd = last = map("many");
		bpf(INFO, &attr, sizeof(attr));
		by_id(*(uint32_t *)(info + 4));
	}
}

static void write_to(uint32_t id)
{
	uint32_t key = 0;
	uint64_t value[512] = { 0 };
	struct { uint32_t fd, pad; uint64_t key, value, flags; } attr = {
		by_id(id), 0, (uintptr_t)&key, (uintptr_t)value, 2 /* BPF_EXIST: of no such key */
	};

	key = -1;
	bpf(MAP_UPDATE, &attr, sizeof(attr));
}

static void pin(const char *path)
{
	struct { uint64_t path; uint32_t fd, flags; } attr = {
		.path = (uintptr_t)path, .fd = last };

	if (bpf(OBJ_PIN, &attr, sizeof(attr)) == 0)
		unlink(path);
}

static void act(const char *word)
{
	const char *value = strchr(word, ':') ? strchr(word, ':') + 1 : "";
	int number = atoi(value);

#define IS(verb) (strncmp(word, verb, strlen(verb)) == 0)
	if (IS("helper:")) {
		load_helper(number);
	} else if (IS("type:")) {
		type = number;
	} else if (IS("name:")) {
		strncpy(name, value, sizeof(name) - 1);
	} else if (IS("pad:")) {
		padding = number;
	} else if (IS("log:")) {
		log_size = number;
	} else if (IS("comm:")) {
		prctl(PR_SET_NAME, value);
	} else if (IS("load")) {
		load_helper(0);
	} else if (IS("nested")) {
		load_nested();
	} else if (IS("reject:")) {
		load_rejected(number);
	} else if (IS("maps:")) {
		maps(number);
	} else if (IS("map:")) {
		last = map(value);
	} else if (IS("info:")) {
		about(number);
	} else if (IS("tracepoint:")) {
		struct { uint64_t name; uint32_t fd, pad; uint64_t cookie; } attr = {
			.name = (uintptr_t)value, .fd = last };

		bpf(RAW_TRACEPOINT, &attr, 16);
	} else if (IS("link:")) {
		uint32_t attr[16] = { last, 1, number };

		bpf(LINK_CREATE, attr, sizeof(attr));
	} else if (IS("pin:")) {
		pin(value);
	} else if (IS("write:")) {
		write_to(number);
	} else if (IS("unlink:")) {
		unlink(value);
	} else if (IS("user:")) {
		(void)!setuid(number);
	} else {
		exit(2);
	}
}

int main(int argc, char **argv)
{
	for (int at = 1; at < argc; at++) {
		act(argv[at]);
		printf("%s %d\n", argv[at], result);
		fflush(stdout);
	}
	return 0;
}
