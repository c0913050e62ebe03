#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the command that the host wants, and tells it how that went (outcome in guest.py).
# The device of a virtio port, by the name that the host gave it.
port() {
    for directory in /sys/class/virtio-ports/*; do
        [ "$(cat "$directory/name")" != "$1" ] || echo "/dev/${directory##*/}"
    done
}
exec 3>"$(port status)"
if sh /run/guest/prepare 3>&-; then
    echo "started $(uname -r)" >&3
    sh /run/guest/command </dev/null >"$(port out)" 2>"$(port err)" 3>&-
    status=$?
    [ ! -e /run/report ] || cat /run/report >"$(port report)"
    echo "ended $status" >&3
else
    echo unprepared >&3
fi
/run/busybox reboot -f
