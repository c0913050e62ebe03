/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One bpf(2) call and the end: BPF_MAP_FREEZE of no map. With a descriptor's number as the
 * only argument behind "wait", a line is read from standard input first.
 */
#include <unistd.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
	unsigned int map_fd = -1;
	char byte;

	if (argc > 1 && argv[1][0] == 'w')
		(void)!read(0, &byte, 1);
	syscall(SYS_bpf, 22, &map_fd, sizeof(map_fd));
	if (argc > 1 && argv[1][0] == 'w')
		(void)!read(0, &byte, 1);
	return 0;
}
