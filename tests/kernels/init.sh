#!/busybox sh
# SPDX-License-Identifier: Apache-2.0
# What the kernel starts, in its initramfs: makes the host's files the root, and
# goes on to inside.sh there. What is written stays in memory.
set -e
/busybox mkdir -p /bin /dev /host /fresh /root
/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1

for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module"
done
mount -t virtiofs -o ro host /host
mount -t tmpfs fresh /fresh
mkdir /fresh/upper /fresh/work
mount -t overlay -o lowerdir=/host,upperdir=/fresh/upper,workdir=/fresh/work root /root
mount -t tmpfs run /root/run
cp -a /guest /busybox /root/run
mount --move /dev /root/dev
exec switch_root /root /run/guest/inside.sh
