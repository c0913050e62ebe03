#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command as a container of packaging/kubernetes/daemonset.yaml does, as far as that needs
# no container runtime: container.sh CAPABILITIES DIRECTORY COMMAND...
#
# CAPABILITIES are setpriv's for --bounding-set; to DIRECTORY it can write.
set -e
if [ "$1" != inside ]; then
    exec unshare --mount --propagation private sh "$0" inside "$@"
fi
capabilities=$2 directory=$3
shift 3

# What the node has.
mount -t tmpfs node /mnt
mkdir /mnt/tracing
mount -t tracefs tracing /mnt/tracing

# What the runtime gives each container, and then what the manifest asks for.
read_only() {
    mount -o remount,bind,ro "$1"
}
mount --bind "$directory" "$directory"
read_only /
umount --recursive --lazy /sys
mount -t sysfs container /sys && read_only /sys
mount --bind /mnt/tracing /sys/kernel/tracing && read_only /sys/kernel/tracing
mount -t cgroup2 container /sys/fs/cgroup && read_only /sys/fs/cgroup
umount -l /mnt
exec setpriv --no-new-privs --inh-caps=-all --bounding-set="-all,$capabilities" "$@"
