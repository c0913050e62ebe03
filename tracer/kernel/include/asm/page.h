/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef STUB_ASM_PAGE_H
#define STUB_ASM_PAGE_H

/* Ring sizes are counted in pages: the tracer passes -DPAGE_SIZE of this machine. */
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif

#endif
