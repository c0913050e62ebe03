#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a guest: runs the command that the host wants, and tells it how that went
# (outcome in guest.py).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t securityfs security /sys/kernel/security
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
/run/busybox ifconfig lo up

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
