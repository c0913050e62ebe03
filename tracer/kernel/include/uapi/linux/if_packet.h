/* SPDX-License-Identifier: GPL-2.0-only */
/* BCC only wants it to exist. */
