#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a guest with Debian in it: leaves told.sh for when all is up, and becomes systemd.
units=/run/systemd/system
mkdir -p "$units/multi-user.target.wants"
cat >"$units/guest.service" <<UNIT
[Unit]
After=multi-user.target

[Service]
Environment=HOME=/root LANG=C.UTF-8
ExecStart=/bin/sh /run/guest/told.sh
UNIT
ln -s ../guest.service "$units/multi-user.target.wants"
exec /lib/systemd/systemd
