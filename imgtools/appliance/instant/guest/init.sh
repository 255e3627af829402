#!/bin/bash
# The instant appliance's short boot, for a launch that no template fits (another memory size).
# The helper, which is /init, has mounted /proc, /sys, /dev and /run and made what udevd needs; what
# follows is the stock /init's order, coldplug only for what a disk tool looks at.
export PATH=/sbin:/usr/sbin:/bin:/usr/bin RUNLEVEL=S PREVLEVEL=N LVM_SYSTEM_DIR=/tmp/lvm

for udevd in /lib/systemd/systemd-udevd /usr/lib/systemd/systemd-udevd /sbin/udevd; do
  [ -x "$udevd" ] && break
done
: >/run/imgtools-labels
"$udevd" --daemon
udevadm trigger --subsystem-match=block --subsystem-match=virtio-ports --subsystem-match=misc
udevadm settle --timeout=600

shopt -s nullglob
for file in /sys/block/sd*/device/timeout; do echo 300 >"$file"; done
for file in /sys/block/[sv]d*/queue/scheduler; do echo none >"$file"; done

modprobe dm_mod
imgtools-helper scan
if [[ $(</proc/cmdline) == *guestfs_verbose=1* ]]; then
  guestfsd --verbose
else
  guestfsd
fi
sync
reboot -f
