# SPDX-License-Identifier: Apache-2.0
"""What travels through the house: calls, events, their spellings. No I/O, no clock."""
