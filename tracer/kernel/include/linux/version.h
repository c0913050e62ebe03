/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef STUB_LINUX_VERSION_H
#define STUB_LINUX_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
/* Nothing of ours asks for a version; BCC's helpers.h only compares it with old ones. */
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)

#endif
