# SPDX-License-Identifier: Apache-2.0
"""Sigma's YAML in, rules out. Only tracer/rule_child.py, a process of its own, imports this:
pySigma is large, and what parses files of others should hold no privileges that matter.
"""
