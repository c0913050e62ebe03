// SPDX-License-Identifier: Apache-2.0
/*
 * Programs that want to be overlooked, misread or to drown others; one subcommand each.
 *
 * Every bpf(2) call that is made is a JSON object on a line of standard output, in the order
 * of the calls of a thread: what a tracer has to have seen. What the kernel really made comes
 * from OBJ_GET_INFO_BY_FD or from /proc, in the fields behind "retval". flood only counts.
 *
 * Exits with 0 if the attack was carried out, with 77 and a reason if this kernel does not
 * offer the means, with 1 if something went wrong. Nothing is left behind.
 *
 *	gcc -O1 -pthread -o hostile tests/hostile.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>

/* Nothing takes this long: it hangs. */
#define PATIENCE_S 300

#define MISSING 77

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The bytes of union bpf_attr up to the end of a member, whatever the headers append to it. */
#define UP_TO(member) \
	(offsetof(union bpf_attr, member) + sizeof(((union bpf_attr *)0)->member))
#define MAP_CREATE_SIZE UP_TO(map_extra)
#define PROG_LOAD_SIZE UP_TO(core_relo_rec_size)

#define INSN(op, d, s, o, i) \
	((struct bpf_insn){ .code = (op), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define MOV_REG(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define ADD_IMM(dst, imm) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define STORE_DW(dst, off, src) INSN(BPF_STX | BPF_MEM | BPF_DW, dst, src, off, 0)
#define CALL(helper) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* The address of the value of an array's only element. */
#define LOAD_MAP_VALUE(dst, fd) \
	INSN(BPF_LD | BPF_IMM | BPF_DW, dst, BPF_PSEUDO_MAP_VALUE, 0, fd), INSN(0, 0, 0, 0, 0)

static const struct bpf_insn BENIGN[] = { MOV_IMM(0, 0), EXIT };
static const struct bpf_insn EVIL[] = { MOV_IMM(1, 0xe71), MOV_IMM(0, 0), EXIT };
/* What r0 is, nobody knows. */
static const struct bpf_insn REFUSED[] = { MOV_IMM(1, 1), MOV_REG(2, 1), EXIT };

static const char GPL[] = "GPL";

static long page_size;

/* --- Ways to end ----------------------------------------------------------------------- */

static void __attribute__((noreturn, format(printf, 2, 3)))
end(int status, const char *reason, ...)
{
	va_list more;

	fflush(stdout);
	va_start(more, reason);
	vfprintf(stderr, reason, more);
	va_end(more);
	fputc('\n', stderr);
	/* Not exit(): other threads may be in the middle of something. */
	_exit(status);
}

#define fail(...) end(EXIT_FAILURE, __VA_ARGS__)
#define missing(...) end(MISSING, __VA_ARGS__)

static void out_of_patience(int number)
{
	static const char reason[] = "it hangs\n";

	(void)number;
	(void)!write(STDERR_FILENO, reason, sizeof(reason) - 1);
	_exit(EXIT_FAILURE);
}

static void be_patient(unsigned int seconds)
{
	signal(SIGALRM, out_of_patience);
	alarm(seconds);
}

/* --- The system call, and what is told of it ------------------------------------------- */

struct made {
	const char *what;
	__u64 attr_addr;
	unsigned int cmd;
	unsigned int size;
	long retval;
	pid_t pid;
	pid_t tid;
};

/* The result or -errno, as the kernel gives it. */
static long result(long returned)
{
	return returned < 0 ? -errno : returned;
}

static struct made begin(const char *what, unsigned int cmd, const void *attr, unsigned int size)
{
	return (struct made){
		.what = what,
		.attr_addr = (unsigned long)attr,
		.cmd = cmd,
		.size = size,
		.pid = getpid(),
		.tid = syscall(SYS_gettid),
	};
}

/* One bpf(2) call, no more and no less. */
static struct made bpf(const char *what, unsigned int cmd, const void *attr, unsigned int size)
{
	struct made made = begin(what, cmd, attr, size);

	made.retval = result(syscall(SYS_bpf, cmd, attr, size));
	return made;
}

/* The fd or whatever it returned; what has to succeed. */
static int succeeded(const struct made *made)
{
	if (made->retval == -EPERM)
		missing("%s: bpf(2) is not permitted", made->what);
	if (made->retval < 0)
		fail("%s: %s", made->what, strerror(-made->retval));
	return made->retval;
}

static void __attribute__((format(printf, 2, 3)))
tell_more(const struct made *made, const char *format, ...)
{
	va_list more;

	flockfile(stdout);
	printf("{\"what\": \"%s\", \"pid\": %d, \"tid\": %d, \"cmd\": %u, \"attr_addr\": %llu, "
	       "\"size\": %u, \"retval\": %ld", made->what, made->pid, made->tid, made->cmd,
	       (unsigned long long)made->attr_addr, made->size, made->retval);
	va_start(more, format);
	vprintf(format, more);
	va_end(more);
	puts("}");
	funlockfile(stdout);
}

static void tell(const struct made *made)
{
	tell_more(made, "%s", "");
}

/* A line that is not about a call: those who started us wait for it. */
static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

/* Two hexadecimal digits for each byte; to must have room for them. */
static const char *hex(char *to, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sprintf(to + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
	return to;
}

/* --- What is made ---------------------------------------------------------------------- */

static union bpf_attr array_attr(const char *name, unsigned int max_entries)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 8;
	attr.max_entries = max_entries;
	memcpy(attr.map_name, name, strnlen(name, BPF_OBJ_NAME_LEN - 1));
	return attr;
}

static union bpf_attr prog_attr(const char *name, const struct bpf_insn *insns, size_t count)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT;
	attr.insns = (unsigned long)insns;
	attr.insn_cnt = count;
	attr.license = (unsigned long)GPL;
	memcpy(attr.prog_name, name, strnlen(name, BPF_OBJ_NAME_LEN - 1));
	return attr;
}

static struct made map_create(const char *name, unsigned int max_entries)
{
	union bpf_attr attr = array_attr(name, max_entries);

	return bpf(name, BPF_MAP_CREATE, &attr, MAP_CREATE_SIZE);
}

static struct made prog_load(const char *name, const struct bpf_insn *insns, size_t count)
{
	union bpf_attr attr = prog_attr(name, insns, count);

	return bpf(name, BPF_PROG_LOAD, &attr, PROG_LOAD_SIZE);
}

/* What the kernel says of an object; info is cleared before. */
static struct made about(int fd, void *info, unsigned int len)
{
	union bpf_attr attr;
	struct made made;

	memset(&attr, 0, sizeof(attr));
	memset(info, 0, len);
	attr.info.bpf_fd = fd;
	attr.info.info_len = len;
	attr.info.info = (unsigned long)info;
	made = bpf("info", BPF_OBJ_GET_INFO_BY_FD, &attr, UP_TO(info));
	succeeded(&made);
	return made;
}

/* Tells of a call that made a map, and then of the one that asked for the truth. */
static void tell_map(const struct made *made, const char *shown)
{
	struct bpf_map_info info;
	struct made asked = about(succeeded(made), &info, sizeof(info));

	tell_more(made, ", \"id\": %u, \"name\": \"%s\", \"max_entries\": %u%s", info.id,
		  info.name, info.max_entries, shown);
	tell(&asked);
}

static void tell_prog(const struct made *made, const char *shown)
{
	struct bpf_prog_info info;
	struct made asked = about(succeeded(made), &info, sizeof(info));
	char tag[2 * BPF_TAG_SIZE + 1];

	tell_more(made, ", \"id\": %u, \"name\": \"%s\", \"tag\": \"%s\", \"insn_cnt\": %zu%s",
		  info.id, info.name, hex(tag, info.tag, BPF_TAG_SIZE),
		  info.xlated_prog_len / sizeof(struct bpf_insn), shown);
	tell(&asked);
}

/* The id of the program behind a descriptor, without a bpf(2) call. */
static unsigned int prog_id(int fd)
{
	unsigned int id = 0;
	char line[128];
	FILE *file;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	file = fopen(line, "re");
	if (!file)
		fail("%s: %s", line, strerror(errno));
	while (!id && fgets(line, sizeof(line), file))
		sscanf(line, "prog_id: %u", &id);
	fclose(file);
	return id;
}

/* --- swap: one thread calls, another one changes what is read ---------------------------- */

/*
 * The name begins at byte 28 of attr. With attr at byte 4 it is at a multiple of 8: it is
 * changed as a whole, and the kernel hardly ever copies half of each.
 */
#define SWAP_AT 4

static union {
	char bytes[512];
	_Atomic __u64 words[64];
} swapped __attribute__((aligned(64)));
static atomic_bool flipping, enough;

static void *flip(void *unused)
{
	static const union {
		char name[8];
		__u64 word;
	} names[] = { { "benign" }, { "evil" } };
	_Atomic __u64 *name =
		&swapped.words[(SWAP_AT + offsetof(union bpf_attr, map_name)) / sizeof(__u64)];

	flipping = true;
	for (unsigned int i = 0; !enough; i++)
		atomic_store_explicit(name, names[i % 2].word, memory_order_relaxed);
	return unused;
}

static int swap(const unsigned long *args)
{
	union bpf_attr attr = array_attr("benign", 1);
	pthread_t flipper;

	memcpy(swapped.bytes + SWAP_AT, &attr, MAP_CREATE_SIZE);
	if (pthread_create(&flipper, NULL, flip, NULL))
		fail("no second thread");
	while (!flipping)
		sched_yield();
	for (unsigned long i = 0; i < args[0]; i++) {
		struct made made = bpf("swap", BPF_MAP_CREATE, swapped.bytes + SWAP_AT,
				       MAP_CREATE_SIZE);

		tell_map(&made, "");
		close(made.retval);
	}
	enough = true;
	pthread_join(flipper, NULL);
	return 0;
}

/* --- Traps: the kernel stops where it reads ---------------------------------------------- */

/*
 * A trap is a page that is not there yet. When the kernel comes to read it in the middle of a
 * bpf(2) call, the call waits until a second thread has put something there, and until then
 * that thread may change everything that the kernel has not read, or has read already.
 */
struct step {
	char *page;		/* where the kernel comes next */
	const void *content;	/* what it finds there; zeros follow */
	size_t len;
	void (*act)(void *scene);	/* meanwhile */
};

#define STEPS_MAX 3

struct trap {
	struct step steps[STEPS_MAX];
	unsigned int count;
	void *scene;
	int uffd;
	atomic_uint sprung;
	pthread_t thread;
};

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	/* Without UFFD_USER_MODE_ONLY: it is the kernel that is to stop. */
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd < 0)
		missing("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api))
		missing("UFFDIO_API: %s", strerror(errno));
	return uffd;
}

/* The first of the pages is there, what follows is not. */
static char *pages(unsigned int count)
{
	size_t len = count * page_size;
	char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	/* Else the first one might bring the others. Refused where there are no huge pages. */
	madvise(memory, len, MADV_NOHUGEPAGE);
	*(volatile char *)memory = 0;
	return memory;
}

static void set_trap(int uffd, char *memory, unsigned int count)
{
	struct uffdio_register range = {
		.range = { .start = (unsigned long)memory, .len = count * page_size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &range))
		missing("UFFDIO_REGISTER: %s", strerror(errno));
}

/* Takes a page that is registered away: the next one to read it is stopped. */
static void take_away(char *page)
{
	if (madvise(page, page_size, MADV_DONTNEED))
		fail("MADV_DONTNEED: %s", strerror(errno));
}

/* Waits until somebody is stopped: where, and if asked for at open_uffd() who. */
static char *await_fault(int uffd, pid_t *tid)
{
	struct uffd_msg msg;

	if (read(uffd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
		fail("userfaultfd: no fault");
	if (tid)
		*tid = msg.arg.pagefault.feat.ptid;
	return (char *)(unsigned long)(msg.arg.pagefault.address & -page_size);
}

/* Puts something there; all who were stopped there go on. */
static void resolve(int uffd, char *page, const void *content, size_t len)
{
	char *whole = calloc(1, page_size);
	struct uffdio_copy copy = {
		.dst = (unsigned long)page,
		.src = (unsigned long)whole,
		.len = page_size,
	};

	if (!whole)
		fail("no memory");
	memcpy(whole, content, len);
	if (ioctl(uffd, UFFDIO_COPY, &copy))
		fail("UFFDIO_COPY: %s", strerror(errno));
	free(whole);
}

static void *spring(void *argument)
{
	struct trap *trap = argument;

	for (unsigned int i = 0; i < trap->count; i++) {
		const struct step *step = &trap->steps[i];
		char *page = await_fault(trap->uffd, NULL);

		if (page != step->page)
			fail("the kernel came to %p instead of %p", page, step->page);
		step->act(trap->scene);
		trap->sprung++;
		resolve(trap->uffd, step->page, step->content, step->len);
	}
	return NULL;
}

/* Makes a call that has to run into all of the traps. */
static struct made trapped(struct trap *trap, const char *what, unsigned int cmd,
			   const void *attr, unsigned int size)
{
	struct made made;

	if (pthread_create(&trap->thread, NULL, spring, trap))
		fail("no second thread");
	made = bpf(what, cmd, attr, size);
	if (trap->sprung != trap->count)
		fail("%s: %s after %u stops instead of %u", what,
		     made.retval < 0 ? strerror(-made.retval) : "done", trap->sprung, trap->count);
	pthread_join(trap->thread, NULL);
	close(trap->uffd);
	return made;
}

/*
 * attr of a call that is stopped before attr is copied: it ends where a page does, but is said
 * to go on. What goes on behind sizeof(union bpf_attr) has to be zeros, and the kernel looks
 * at that first. It is larger than any attr so far, so that the copy does not touch the next
 * page, and all of attr can be read before and after the call.
 */
#define SHOWN_LEN 256
#define SAID_LEN 512

static char *attr_before(char *page, const union bpf_attr *attr, size_t len)
{
	memcpy(page - SHOWN_LEN, attr, len);
	return page - SHOWN_LEN;
}

/* --- stall, stall-tail: what is loaded was not to be read before nor after ---------------- */

struct stall {
	char *attr;
	char *insns;
	union bpf_attr benign, evil;
};

/* Nothing of it has been copied yet. */
static void stall_shows_evil(void *scene)
{
	struct stall *stall = scene;

	memcpy(stall->attr, &stall->evil, PROG_LOAD_SIZE);
	memcpy(stall->insns, EVIL, sizeof(BENIGN));
}

/* All has been copied but the third instruction. */
static void stall_shows_benign(void *scene)
{
	struct stall *stall = scene;

	memcpy(stall->attr, &stall->benign, PROG_LOAD_SIZE);
	memcpy(stall->insns, BENIGN, sizeof(BENIGN));
}

/* The same, and of the tail there is as little as there was before. */
static void stall_hides_tail(void *scene)
{
	struct stall *stall = scene;

	stall_shows_benign(stall);
	take_away(stall->attr + SHOWN_LEN);
}

static int stall_with(const char *what, void (*last)(void *scene))
{
	char *attr_pages = pages(2), *insn_pages = pages(2);
	/* The third instruction is the first thing on a page that is not there. */
	struct stall scene = { .insns = insn_pages + page_size - sizeof(BENIGN) };
	struct trap trap = {
		.steps = {
			{ attr_pages + page_size, "", 0, stall_shows_evil },
			{ insn_pages + page_size, &EVIL[COUNT(BENIGN)],
			  sizeof(EVIL) - sizeof(BENIGN), last },
		},
		.count = 2,
		.scene = &scene,
		.uffd = open_uffd(0),
	};
	char shown_insns[2 * sizeof(BENIGN) + 1], insns[2 * sizeof(EVIL) + 1], shown[256];
	struct made made;

	scene.benign = prog_attr("benign", (void *)scene.insns, COUNT(BENIGN));
	scene.evil = prog_attr("evil", (void *)scene.insns, COUNT(EVIL));
	scene.attr = attr_before(attr_pages + page_size, &scene.benign, PROG_LOAD_SIZE);
	memcpy(scene.insns, BENIGN, sizeof(BENIGN));

	/* For comparison, what it pretends to be. */
	made = prog_load("benign", BENIGN, COUNT(BENIGN));
	tell_prog(&made, "");
	close(made.retval);

	set_trap(trap.uffd, attr_pages + page_size, 1);
	set_trap(trap.uffd, insn_pages + page_size, 1);
	made = trapped(&trap, what, BPF_PROG_LOAD, scene.attr, SAID_LEN);
	snprintf(shown, sizeof(shown), ", \"shown_name\": \"benign\", \"shown_insns\": \"%s\", "
		 "\"insns\": \"%s\"", hex(shown_insns, BENIGN, sizeof(BENIGN)),
		 hex(insns, EVIL, sizeof(EVIL)));
	tell_prog(&made, shown);
	close(made.retval);
	return 0;
}

static int stall(const unsigned long *args)
{
	(void)args;
	return stall_with("stall", stall_shows_benign);
}

static int stall_tail(const unsigned long *args)
{
	(void)args;
	return stall_with("stall-tail", stall_hides_tail);
}

/* --- stall-map: the same where the kernel reads nothing but attr ------------------------- */

/*
 * Nothing that the kernel reads later tells that it has copied attr, so attr itself lies
 * across the boundary, behind the last field of MAP_CREATE but before the end of the union.
 */
#define ACROSS_LEN 128

struct stall_map {
	char *front;
	char *back;
	char *attr;
	char evil[ACROSS_LEN];
};

/* While the kernel is to see that the tail is zero. */
static void stall_map_hides_front(void *scene)
{
	struct stall_map *stall = scene;

	take_away(stall->front);
}

/* It has seen the tail and copies now, first of all the front. */
static void stall_map_hides_back(void *scene)
{
	struct stall_map *stall = scene;

	take_away(stall->back);
}

/* The front has been copied. */
static void stall_map_shows_benign(void *scene)
{
	struct stall_map *stall = scene;
	union bpf_attr benign = array_attr("benign", 1);

	memcpy(stall->attr, &benign, MAP_CREATE_SIZE);
}

static int stall_map(const unsigned long *args)
{
	union bpf_attr benign = array_attr("benign", 1), evil = array_attr("evil", 23);
	char *front = pages(2), *back = front + page_size;
	char *evil_page = calloc(1, page_size);
	struct stall_map scene = { .front = front, .back = back, .attr = back - ACROSS_LEN };
	struct trap trap = {
		.steps = {
			{ back, "", 0, stall_map_hides_front },
			{ front, evil_page, page_size, stall_map_hides_back },
			{ back, "", 0, stall_map_shows_benign },
		},
		.count = 3,
		.scene = &scene,
		.uffd = open_uffd(0),
	};
	struct made made;

	(void)args;
	memcpy(scene.attr, &benign, MAP_CREATE_SIZE);
	if (!evil_page)
		fail("no memory");
	memcpy(evil_page + page_size - ACROSS_LEN, &evil, MAP_CREATE_SIZE);
	set_trap(trap.uffd, front, 2);
	made = trapped(&trap, "stall-map", BPF_MAP_CREATE, scene.attr, SAID_LEN);
	tell_map(&made, ", \"shown_name\": \"benign\", \"shown_max_entries\": 1");
	close(made.retval);
	free(evil_page);
	return 0;
}

/* --- fdswap: the descriptor leads elsewhere meanwhile ------------------------------------ */

struct fdswap {
	int fd;			/* what attr names */
	int benign;
	int evil;
	char *name;		/* NULL: what was swapped stays so */
	unsigned int during;
};

static const char TRACEPOINT[] = "task_rename";

static void fdswap_shows_evil(void *scene)
{
	struct fdswap *swap = scene;

	if (dup2(swap->evil, swap->fd) < 0)
		fail("dup2: %s", strerror(errno));
	swap->during = prog_id(swap->fd);
	if (swap->name)
		take_away(swap->name);
}

/* The program has been taken from the descriptor when the name is read. */
static void fdswap_shows_benign(void *scene)
{
	struct fdswap *swap = scene;

	if (dup2(swap->benign, swap->fd) < 0)
		fail("dup2: %s", strerror(errno));
}

static struct fdswap fdswap_scene(int benign, int evil)
{
	struct fdswap scene = { .fd = dup(benign), .benign = benign, .evil = evil };

	if (scene.fd < 0)
		fail("dup: %s", strerror(errno));
	return scene;
}

static unsigned int maps_of(int fd)
{
	struct bpf_prog_info info;
	struct made asked = about(fd, &info, sizeof(info));

	tell(&asked);
	return info.nr_map_ids;
}

/* Swapped before it is used, and left so. */
static void fdswap_bind(int benign, int evil, int map_fd)
{
	struct fdswap scene = fdswap_scene(benign, evil);
	unsigned int before = prog_id(scene.fd);
	char *tail = pages(2) + page_size;
	struct trap trap = {
		.steps = { { tail, "", 0, fdswap_shows_evil } },
		.count = 1,
		.scene = &scene,
		.uffd = open_uffd(0),
	};
	union bpf_attr attr;
	struct made made;

	memset(&attr, 0, sizeof(attr));
	attr.prog_bind_map.prog_fd = scene.fd;
	attr.prog_bind_map.map_fd = map_fd;
	set_trap(trap.uffd, tail, 1);
	made = trapped(&trap, "bind", BPF_PROG_BIND_MAP,
		       attr_before(tail, &attr, UP_TO(prog_bind_map)), SAID_LEN);
	succeeded(&made);
	tell_more(&made, ", \"fd\": %d, \"before\": %u, \"during\": %u, \"after\": %u", scene.fd,
		  before, scene.during, prog_id(scene.fd));
	if (maps_of(benign) != 0 || maps_of(evil) != 1)
		fail("bind: the map went to the wrong program");
	close(scene.fd);
}

/* Swapped before it is used, and back before the call ends. */
static void fdswap_open(int benign, int evil)
{
	struct fdswap scene = fdswap_scene(benign, evil);
	unsigned int before = prog_id(scene.fd);
	char *tail = pages(2) + page_size, *name = pages(1);
	struct trap trap = {
		.steps = {
			{ tail, "", 0, fdswap_shows_evil },
			{ name, TRACEPOINT, sizeof(TRACEPOINT), fdswap_shows_benign },
		},
		.count = 2,
		.scene = &scene,
		.uffd = open_uffd(0),
	};
	struct bpf_link_info info;
	union bpf_attr attr;
	struct made made, asked;

	scene.name = strcpy(name, TRACEPOINT);
	memset(&attr, 0, sizeof(attr));
	attr.raw_tracepoint.name = (unsigned long)name;
	attr.raw_tracepoint.prog_fd = scene.fd;
	set_trap(trap.uffd, tail, 1);
	set_trap(trap.uffd, name, 1);
	made = trapped(&trap, "open", BPF_RAW_TRACEPOINT_OPEN,
		       attr_before(tail, &attr, UP_TO(raw_tracepoint)), SAID_LEN);
	asked = about(succeeded(&made), &info, sizeof(info));
	tell_more(&made, ", \"fd\": %d, \"before\": %u, \"during\": %u, \"after\": %u, "
		  "\"link_id\": %u, \"prog_id\": %u", scene.fd, before, scene.during,
		  prog_id(scene.fd), info.id, info.prog_id);
	tell(&asked);
	close(made.retval);
	close(scene.fd);
}

static int fdswap(const unsigned long *args)
{
	struct made benign, evil, map;

	(void)args;
	benign = prog_load("benign", BENIGN, COUNT(BENIGN));
	tell_prog(&benign, "");
	evil = prog_load("evil", EVIL, COUNT(EVIL));
	tell_prog(&evil, "");
	map = map_create("bound", 1);
	tell_map(&map, "");
	fdswap_bind(benign.retval, evil.retval, map.retval);
	fdswap_open(benign.retval, evil.retval);
	return 0;
}

/* --- int80, x32: other doors into the kernel --------------------------------------------- */

#ifdef __x86_64__
#define INT80_BPF 357
#define INT80_GETPID 20
#define X32_BIT 0x40000000L

static long int80(long number, unsigned long first, unsigned long second, unsigned long third)
{
	long returned;

	asm volatile("int $0x80" : "=a"(returned)
		     : "a"(number), "b"(first), "c"(second), "d"(third)
		     : "memory", "r8", "r9", "r10", "r11");
	return (int)returned;
}

static long int80_bpf(unsigned int cmd, const void *attr, unsigned int size)
{
	return int80(INT80_BPF, cmd, (unsigned long)attr, size);
}

static long x32_bpf(unsigned int cmd, const void *attr, unsigned int size)
{
	return result(syscall(SYS_bpf | X32_BIT, cmd, attr, size));
}

/* Memory with addresses of 32 bits: attr, instructions and license. */
struct low {
	union bpf_attr attr;
	struct bpf_insn insns[COUNT(EVIL)];
	char license[sizeof(GPL)];
};

static struct made through(long (*door)(unsigned int, const void *, unsigned int),
			   const char *what, unsigned int cmd, const void *attr,
			   unsigned int size)
{
	struct made made = begin(what, cmd, attr, size);

	made.retval = door(cmd, attr, size);
	return made;
}

static int through_all(long (*door)(unsigned int, const void *, unsigned int), const char *via)
{
	struct low *low = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct made made;
	char more[64];

	if (low == MAP_FAILED)
		missing("MAP_32BIT: %s", strerror(errno));
	snprintf(more, sizeof(more), ", \"via\": \"%s\"", via);
	strcpy(low->license, GPL);

	low->attr = array_attr("other_door", 1);
	made = through(door, "map", BPF_MAP_CREATE, &low->attr, MAP_CREATE_SIZE);
	tell_map(&made, more);
	close(made.retval);

	memcpy(low->insns, EVIL, sizeof(EVIL));
	low->attr = prog_attr("other_door", low->insns, COUNT(EVIL));
	low->attr.license = (unsigned long)low->license;
	made = through(door, "prog", BPF_PROG_LOAD, &low->attr, PROG_LOAD_SIZE);
	tell_prog(&made, more);
	close(made.retval);

	low->attr = array_attr("refused", 0);
	made = through(door, "refused", BPF_MAP_CREATE, &low->attr, MAP_CREATE_SIZE);
	tell_more(&made, "%s", more);
	return made.retval == -EINVAL ? 0 : 1;
}

/* Whether the door exists: a kernel without it may kill those who try. */
static bool has_int80(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		prctl(PR_SET_DUMPABLE, 0);
		_exit(int80(INT80_GETPID, 0, 0, 0) != getpid());
	}
	return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static int through_int80(const unsigned long *args)
{
	(void)args;
	if (!has_int80())
		missing("no system calls by int $0x80 (CONFIG_IA32_EMULATION)");
	return through_all(int80_bpf, "int80");
}

static int through_x32(const unsigned long *args)
{
	(void)args;
	if (syscall(SYS_getpid | X32_BIT) != getpid())
		missing("no system calls of x32 (CONFIG_X86_X32_ABI, syscall.x32=y)");
	return through_all(x32_bpf, "x32");
}
#else
static int through_int80(const unsigned long *args)
{
	(void)args;
	missing("int $0x80 is of x86");
}

static int through_x32(const unsigned long *args)
{
	(void)args;
	missing("x32 is of x86");
}
#endif

/* --- loader: the calls are made by a program in the kernel ------------------------------- */

/* The value of the loader's map: what the inner calls point to is there, too. */
struct loader_data {
	union bpf_attr map, prog;
	struct bpf_insn insns[COUNT(EVIL)];
	char license[sizeof(GPL)];
};

/* The loader's context: what the inner calls returned. */
struct loader_ctx {
	long long map, prog;
};

static struct made data_map(void)
{
	union bpf_attr attr = array_attr("loader_data", 1);

	attr.value_size = sizeof(struct loader_data);
	attr.map_flags = BPF_F_MMAPABLE;
	return bpf("loader_data", BPF_MAP_CREATE, &attr, MAP_CREATE_SIZE);
}

static void fill_data(int map_fd)
{
	struct loader_data *data = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
					map_fd, 0);

	if (data == MAP_FAILED)
		fail("mmap of a map: %s", strerror(errno));
	data->map = array_attr("inner_map", 5);
	data->prog = prog_attr("inner_prog", NULL, COUNT(EVIL));
	memcpy(data->insns, EVIL, sizeof(EVIL));
	memcpy(data->license, GPL, sizeof(GPL));
	munmap(data, page_size);
}

#define DATA(member) offsetof(struct loader_data, member)

/* data (in r6) + where = address of data + target */
#define POINT(where, target) \
	MOV_REG(1, 6), ADD_IMM(1, target), STORE_DW(6, where, 1)

/* ctx (in r7) + where = bpf_sys_bpf(cmd, data + attr, size) */
#define SYS_BPF(cmd, attr, size, where) \
	MOV_IMM(1, cmd), MOV_REG(2, 6), ADD_IMM(2, attr), MOV_IMM(3, size), \
	CALL(BPF_FUNC_sys_bpf), STORE_DW(7, where, 0)

static struct made load_loader(int map_fd)
{
	const struct bpf_insn insns[] = {
		MOV_REG(7, 1),
		LOAD_MAP_VALUE(6, map_fd),
		POINT(DATA(prog.insns), DATA(insns)),
		POINT(DATA(prog.license), DATA(license)),
		SYS_BPF(BPF_MAP_CREATE, DATA(map), MAP_CREATE_SIZE,
			offsetof(struct loader_ctx, map)),
		SYS_BPF(BPF_PROG_LOAD, DATA(prog), PROG_LOAD_SIZE,
			offsetof(struct loader_ctx, prog)),
		MOV_IMM(0, 0),
		EXIT,
	};
	union bpf_attr attr = prog_attr("loader", insns, COUNT(insns));

	attr.prog_type = BPF_PROG_TYPE_SYSCALL;
	attr.prog_flags = BPF_F_SLEEPABLE;
	return bpf("loader", BPF_PROG_LOAD, &attr, PROG_LOAD_SIZE);
}

/* A call that bpf_sys_bpf() made; its attr has no address in our memory. */
static struct made inner(const char *what, unsigned int cmd, unsigned int size, long retval)
{
	struct made made = begin(what, cmd, NULL, size);

	made.retval = retval;
	return made;
}

static int loader(const unsigned long *args)
{
	struct loader_ctx ctx = { .map = -1, .prog = -1 };
	struct made data, prog, run, map_inside, prog_inside;
	union bpf_attr attr;

	(void)args;
	data = data_map();
	tell_map(&data, "");
	fill_data(data.retval);
	prog = load_loader(data.retval);
	tell_prog(&prog, "");

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = prog.retval;
	attr.test.ctx_in = (unsigned long)&ctx;
	attr.test.ctx_size_in = sizeof(ctx);
	run = bpf("run", BPF_PROG_TEST_RUN, &attr, UP_TO(test));
	succeeded(&run);
	map_inside = inner("inner_map", BPF_MAP_CREATE, MAP_CREATE_SIZE, ctx.map);
	prog_inside = inner("inner_prog", BPF_PROG_LOAD, PROG_LOAD_SIZE, ctx.prog);
	/* A call is told when it ends. */
	tell_map(&map_inside, ", \"via\": \"kernel\"");
	tell_prog(&prog_inside, ", \"via\": \"kernel\"");
	tell(&run);
	return 0;
}

/* --- common: arguments 4 and 5 ----------------------------------------------------------- */

#define COMMON_ATTRS (1U << 16)

struct common_attr {
	__u64 log_buf;
	__u32 log_size;
	__u32 log_level;
	__u32 log_true_size;
	__u32 unused;
};

static void tell_with_log(const struct made *made, const struct common_attr *common,
			  const char *log)
{
	char printable[1024];
	size_t len = 0;

	/* A verifier's log is text; what JSON would have escaped becomes spaces. */
	for (; log[len] && len < sizeof(printable) - 1; len++)
		printable[len] = log[len] < ' ' || strchr("\"\\\x7f", log[len]) ? ' ' : log[len];
	printable[len] = '\0';
	tell_more(made, ", \"common_addr\": %llu, \"common_size\": %zu, \"log_true_size\": %u, "
		  "\"log\": \"%s\"", (unsigned long long)(unsigned long)common,
		  sizeof(*common), common->log_true_size, printable);
}

static void call_with_common(const char *what, unsigned int cmd, const union bpf_attr *attr,
			     unsigned int size)
{
	char log[1024] = "";
	struct common_attr common = {
		.log_buf = (unsigned long)log,
		.log_size = sizeof(log),
		.log_level = 1,
	};
	struct made made = begin(what, cmd | COMMON_ATTRS, attr, size);

	made.retval = result(syscall(SYS_bpf, made.cmd, attr, size, &common, sizeof(common)));
	tell_with_log(&made, &common, log);
	if (made.retval >= 0)
		close(made.retval);
}

static int common(const unsigned long *args)
{
	union bpf_attr map = array_attr("common_map", 1);
	union bpf_attr bad_map = array_attr("common_bad_map", 1);
	union bpf_attr prog = prog_attr("common_refused", REFUSED, COUNT(REFUSED));

	(void)args;
	/* One of the few mistakes for which MAP_CREATE writes a log. */
	bad_map.map_flags = BPF_F_NUMA_NODE;
	bad_map.numa_node = 1 << 20;
	call_with_common("map", BPF_MAP_CREATE, &map, MAP_CREATE_SIZE);
	call_with_common("bad_map", BPF_MAP_CREATE, &bad_map, MAP_CREATE_SIZE);
	call_with_common("refused", BPF_PROG_LOAD, &prog, PROG_LOAD_SIZE);
	return 0;
}

/* --- flood: many cheap calls, so that others are lost ------------------------------------ */

/* What one process does and has done, shared with the one that started it. */
struct flooder {
	const char *what;
	unsigned int cmd;
	unsigned int size;
	long expected;
	union bpf_attr attr;
	pid_t pid;
	unsigned long calls;
	unsigned long others;	/* those whose result was not the expected one */
	bool denied;
};

struct flood {
	atomic_bool enough;
	atomic_uint running;
	struct flooder flooders[3];
};

/* From here on bpf(2) returns 0 to us and never gets into the kernel. */
static void have_seccomp_answer(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = COUNT(filter), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail("seccomp: %s", strerror(errno));
}

static void flood_until_told(struct flood *flood, struct flooder *flooder)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (flooder->denied)
		have_seccomp_answer();
	do {
		long retval = result(syscall(SYS_bpf, flooder->cmd, &flooder->attr,
					     flooder->size));

		flooder->others += retval != flooder->expected;
		if (flooder->calls++ == 0)
			flood->running++;
	} while (!flood->enough);
	_exit(0);
}

/* Until standard input is closed or so many seconds have passed. */
static void wait_for_end(unsigned long seconds)
{
	struct timespec now, end;
	char bytes[64];

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	for (;;) {
		struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
		long left_ms;

		clock_gettime(CLOCK_MONOTONIC, &now);
		left_ms = (end.tv_sec - now.tv_sec) * 1000 +
			  (end.tv_nsec - now.tv_nsec) / 1000000;
		if (left_ms <= 0 || poll(&input, 1, left_ms) == 0)
			return;
		if (input.revents && read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0)
			return;
	}
}

static void set_up_flood(struct flood *flood, int map_fd, void *key_and_value)
{
	struct flooder lookup = {
		.what = "lookup",
		.cmd = BPF_MAP_LOOKUP_ELEM,
		.size = UP_TO(flags),
		.expected = 0,
	};
	struct flooder load = {
		.what = "load",
		.cmd = BPF_PROG_LOAD,
		.size = PROG_LOAD_SIZE,
		.expected = -EACCES,
		.attr = prog_attr("flood", REFUSED, COUNT(REFUSED)),
	};

	lookup.attr.map_fd = map_fd;
	lookup.attr.key = (unsigned long)key_and_value;
	lookup.attr.value = (unsigned long)key_and_value + 8;
	flood->flooders[0] = flood->flooders[1] = lookup;
	flood->flooders[2] = load;
}

static int flood_with(const unsigned long *args, bool denied)
{
	struct flood *flood = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	__u64 key_and_value[2] = { 0 };
	struct made map = map_create("flood", 1);

	be_patient(PATIENCE_S + args[0]);
	if (flood == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	tell_map(&map, "");
	fflush(stdout);
	set_up_flood(flood, map.retval, key_and_value);
	for (size_t i = 0; denied && i < COUNT(flood->flooders); i++) {
		flood->flooders[i] = flood->flooders[COUNT(flood->flooders) - 1];
		flood->flooders[i].expected = 0;
		flood->flooders[i].denied = true;
	}
	for (size_t i = 0; i < COUNT(flood->flooders); i++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork: %s", strerror(errno));
		if (child == 0)
			flood_until_told(flood, &flood->flooders[i]);
		flood->flooders[i].pid = child;
	}
	while (flood->running != COUNT(flood->flooders))
		usleep(1000);
	say("ready");
	wait_for_end(args[0]);
	flood->enough = true;
	for (size_t i = 0; i < COUNT(flood->flooders); i++) {
		struct flooder *flooder = &flood->flooders[i];
		struct made made = begin(flooder->what, flooder->cmd, &flooder->attr,
					 flooder->size);
		int status;

		if (waitpid(flooder->pid, &status, 0) != flooder->pid || status)
			fail("%s: it ended with %x", flooder->what, status);
		made.retval = flooder->expected;
		made.pid = made.tid = flooder->pid;
		tell_more(&made, ", \"calls\": %lu, \"others\": %lu", flooder->calls,
			  flooder->others);
	}
	return 0;
}

/* --- loads: programs of which none is like another --------------------------------------- */

static int loads(const unsigned long *args)
{
	unsigned long count = args[1] ? args[1] : COUNT(EVIL);
	struct bpf_insn *insns = calloc(count, sizeof(*insns));
	char name[BPF_OBJ_NAME_LEN];

	if (!insns)
		fail("no memory");
	if (count < COUNT(EVIL))
		fail("a program has %zu instructions at least", COUNT(EVIL));
	for (unsigned long i = 0; i < count; i++)
		insns[i] = MOV_IMM(0, 0);
	insns[count - 1] = EXIT;
	for (unsigned int i = 0; i < args[0]; i++) {
		struct made made;

		insns[0] = MOV_IMM(1, i);
		snprintf(name, sizeof(name), "load%u", i);
		made = prog_load(name, insns, count);
		made.what = "load";
		tell_prog(&made, "");
		close(made.retval);
	}
	free(insns);
	return 0;
}

/* --- park: more threads in the middle of a call than anybody reckons with ----------------- */

#define STACK_SIZE 32768L

struct parked {
	pthread_t thread;
	char *attr;
	struct made made;
};

static void *park_one(void *argument)
{
	struct parked *parked = argument;

	parked->made = bpf("park", BPF_MAP_CREATE, parked->attr, MAP_CREATE_SIZE);
	if (parked->made.retval >= 0)
		close(parked->made.retval);
	return NULL;
}

static void start_threads(struct parked *all, unsigned long count, char *attr)
{
	long least = sysconf(_SC_THREAD_STACK_MIN);
	/* Each has a descriptor for a moment. */
	struct rlimit files = { count + 64, count + 64 };
	pthread_attr_t options;

	if (setrlimit(RLIMIT_NOFILE, &files))
		missing("RLIMIT_NOFILE: %s", strerror(errno));
	pthread_attr_init(&options);
	pthread_attr_setguardsize(&options, 0);
	if (pthread_attr_setstacksize(&options, least > STACK_SIZE ? least : STACK_SIZE))
		fail("no such stacks");
	for (unsigned long i = 0; i < count; i++) {
		int error;

		all[i].attr = attr;
		error = pthread_create(&all[i].thread, &options, park_one, &all[i]);
		if (error)
			missing("%lu threads and no more: %s", i, strerror(error));
	}
	pthread_attr_destroy(&options);
}

/*
 * Each thread that is stopped is heard of, even where all of them are stopped by one page;
 * one that a signal wakes for a moment is heard of again.
 */
static void wait_for_all(int uffd, unsigned long count)
{
	/* By number of thread, as high as it may be. */
	unsigned char *stopped = calloc(1, 1 << 22);
	unsigned long number = 0;

	if (!stopped)
		fail("no memory");
	while (number < count) {
		pid_t tid;

		await_fault(uffd, &tid);
		number += !stopped[tid];
		stopped[tid] = 1;
	}
	free(stopped);
}

static int park(const unsigned long *args)
{
	unsigned long count = args[0], succeeded_calls = 0;
	struct parked *all = calloc(count, sizeof(*all));
	union bpf_attr attr = array_attr("parked", 1);
	int uffd = open_uffd(UFFD_FEATURE_THREAD_ID);
	char *page = pages(2) + page_size;
	char word[32], bytes[64];

	if (!all)
		fail("no memory");
	set_trap(uffd, page, 1);
	start_threads(all, count, page);
	wait_for_all(uffd, count);
	snprintf(word, sizeof(word), "parked %lu", count);
	say(word);
	while (read(STDIN_FILENO, bytes, sizeof(bytes)) > 0)
		;
	resolve(uffd, page, &attr, MAP_CREATE_SIZE);
	for (unsigned long i = 0; i < count; i++) {
		pthread_join(all[i].thread, NULL);
		tell(&all[i].made);
		succeeded_calls += all[i].made.retval >= 0;
	}
	printf("{\"what\": \"returned\", \"succeeded\": %lu, \"failed\": %lu}\n", succeeded_calls,
	       count - succeeded_calls);
	free(all);
	return 0;
}

static int flood(const unsigned long *args)
{
	return flood_with(args, false);
}

/* Loads that cost nothing, and succeed as it seems. */
static int denied(const unsigned long *args)
{
	return flood_with(args, true);
}

/* --- The program ------------------------------------------------------------------------- */

static const struct subcommand {
	const char *name;
	int (*run)(const unsigned long *args);
	const char *args;
	int least;
	int most;
} SUBCOMMANDS[] = {
	{ "swap", swap, "N", 1, 1 },
	{ "stall", stall, "", 0, 0 },
	{ "stall-tail", stall_tail, "", 0, 0 },
	{ "stall-map", stall_map, "", 0, 0 },
	{ "fdswap", fdswap, "", 0, 0 },
	{ "int80", through_int80, "", 0, 0 },
	{ "x32", through_x32, "", 0, 0 },
	{ "loader", loader, "", 0, 0 },
	{ "common", common, "", 0, 0 },
	{ "flood", flood, "SECONDS", 1, 1 },
	{ "denied", denied, "SECONDS", 1, 1 },
	{ "loads", loads, "N [INSNS]", 1, 2 },
	{ "park", park, "N", 1, 1 },
};

int main(int argc, char **argv)
{
	unsigned long args[2] = { 0 };

	page_size = sysconf(_SC_PAGESIZE);
	be_patient(PATIENCE_S);
	for (size_t i = 0; argc > 1 && i < COUNT(SUBCOMMANDS); i++) {
		const struct subcommand *subcommand = &SUBCOMMANDS[i];
		int given = argc - 2;

		if (strcmp(argv[1], subcommand->name))
			continue;
		if (given < subcommand->least || given > subcommand->most)
			break;
		for (int arg = 0; arg < given; arg++)
			args[arg] = strtoul(argv[2 + arg], NULL, 10);
		return subcommand->run(args);
	}
	for (size_t i = 0; i < COUNT(SUBCOMMANDS); i++)
		fprintf(stderr, "hostile %s %s\n", SUBCOMMANDS[i].name, SUBCOMMANDS[i].args);
	return EXIT_FAILURE;
}
