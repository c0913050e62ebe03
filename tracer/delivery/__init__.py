# SPDX-License-Identifier: Apache-2.0
"""The process that carries lines away: to files, syslog, sockets and Kafka.

It has no rights but those of an ordinary user, is the only one that speaks to a network, and
imports nothing of the tracer outside this package but words, a version and how to give up rights.
"""
