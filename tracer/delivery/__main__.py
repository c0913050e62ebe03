# SPDX-License-Identifier: Apache-2.0
"""``python -P -m bpfsnoop.tracer.delivery FD [--user UID:GID:GROUPS]``: the daemon starts it so."""

import argparse
import sys

from .. import heap
from ..rights import Account, give_up
from . import process

parser = argparse.ArgumentParser(prog="bpfsnoop-delivery")
parser.add_argument("connection", type=int, help="descriptor of a stream socket to the daemon")
parser.add_argument("--user", type=Account.parse, metavar="UID:GID:GROUPS", help="who to be")
arguments = parser.parse_args()
give_up(arguments.user, 0)
heap.give_back()
sys.exit(process.main(arguments.connection))
