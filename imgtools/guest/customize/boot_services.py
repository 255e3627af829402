"""What runs the scripts of the first boot, for the init systems of guests.

systemd.unit(5); LSB init scripts and their links in rcN.d, of which insserv or update-rc.d must
hear where the order is made from dependencies (.depend.start); OpenRC's runlevels.
"""

from __future__ import annotations

from imgtools.errors import GuestOperationError
from imgtools.guest.customize.chroot import run_checked
from imgtools.guest.customize.placing import put_file, put_link
from imgtools.guest.customize.system import System
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

NAME = b"imgtools-firstboot"
FOLDER = b"/usr/lib/" + NAME
SCRIPTS = FOLDER + b"/scripts"
RUNNER = FOLDER + b"/run"
LOG = b"/root/virt-sysprep-firstboot.log"
UNIT = b"/etc/systemd/system/" + NAME + b".service"
WANTED = b"/etc/systemd/system/multi-user.target.wants"
INIT_SCRIPT = b"/etc/init.d/" + NAME
_LEVELS = (b"2", b"3", b"4", b"5")

RUNNER_TEXT = b"""\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          imgtools-firstboot
# Required-Start:    $remote_fs
# Should-Start:      $all
# Required-Stop:
# Should-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Run scripts once at the first boot
### END INIT INFO
# Made by imgtools customize.  What the scripts say is in the log.

name=imgtools-firstboot
folder=/usr/lib/$name
log=/root/virt-sysprep-firstboot.log

main() {
    HOME=/root
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export HOME PATH
    cd / || exit 1
    (umask 077; mkdir -p /root; : >> "$log")
    # Not through a pipe: a daemon that a script starts would keep it open for ever.
    run_all >> "$log" 2>&1
    cat "$log"
    set -- "$folder"/scripts/*
    if [ ! -e "$1" ]; then
        if [ -e /etc/init.d/.depend.start ]; then
            { insserv -r "$name" || update-rc.d -f "$name" remove; } > /dev/null 2>&1
        fi
        rm -rf "/etc/systemd/system/multi-user.target.wants/$name.service" \\
            "/etc/systemd/system/$name.service" "/etc/systemd/system/$name.service.d" \\
            /etc/rc?.d/S99"$name" /etc/rc.d/rc?.d/S99"$name" /etc/init.d/rc?.d/S99"$name" \\
            "/etc/runlevels/default/$name" "/etc/init.d/$name" "$folder"
    fi
}

run_all() {
    mkdir -p "$folder/running" || return
    for script in "$folder"/scripts/*; do
        [ -f "$script" ] || continue
        now="$folder/running/${script##*/}"
        if ! mv "$script" "$now"; then
            echo "=== $script cannot be moved, so it does not run"
            continue
        fi
        echo "=== Running ${script##*/}"
        "$now" < /dev/null
        echo "=== ${script##*/} ended with status $?"
        rm -f "$now"
    done
}

case "${1:-start}" in
    start) main ;;
esac
exit 0
"""

UNIT_TEXT = b"""\
[Unit]
Description=Run scripts once at the first boot (imgtools customize)
After=network.target network-online.target

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/lib/imgtools-firstboot/run start
RemainAfterExit=yes
StandardOutput=journal+console
StandardError=inherit

[Install]
WantedBy=multi-user.target
"""

ONLINE_TEXT = b"""\
[Unit]
Wants=network-online.target
"""

OPENRC_TEXT = b"""\
#!/sbin/openrc-run
description="Run scripts once at the first boot"

depend() {
    need localmount
    after *
}

start() {
    ebegin "Running scripts of the first boot"
    /bin/sh /usr/lib/imgtools-firstboot/run start
    eend 0
}
"""


def is_installed(tree: GuestTree) -> bool:
    """Whether something is there that will run the scripts."""
    return tree.exists(RUNNER) and (tree.exists(UNIT) or tree.exists(INIT_SCRIPT))


def install_service(guest: GuestFiles, system: System, option: str, *, online: bool) -> list[Done]:
    """Install and enable what runs the scripts; ``online``: after the network is up.

    The init system is one that `require_supported` takes.
    """
    done = put_file(guest, RUNNER, RUNNER_TEXT, 0o755)
    if system.init == "systemd":
        return done + _systemd(guest, online=online)
    if system.init == "openrc":
        done += put_file(guest, INIT_SCRIPT, OPENRC_TEXT, 0o755)
        return done + put_link(guest, b"/etc/runlevels/default/" + NAME, INIT_SCRIPT)
    return done + _sysv(guest, option, _levels(guest))


def require_supported(tree: GuestTree, system: System, option: str) -> None:
    """Raise GuestOperationError for an init system that is not supported."""
    if system.init in ("systemd", "openrc"):
        return
    if system.init in ("sysvinit", "upstart") and _levels(tree):
        return
    raise GuestOperationError(
        f"{option}: scripts at the first boot are not supported for {system.name}"
        f" (init system: {system.init or 'unknown'})",
        hint="systemd, System V init, Upstart and OpenRC are",
    )


def _systemd(guest: GuestFiles, *, online: bool) -> list[Done]:
    done = []
    if online:
        done += put_file(guest, UNIT + b".d/network.conf", ONLINE_TEXT)
    done += put_file(guest, UNIT, UNIT_TEXT)
    return done + put_link(guest, WANTED + b"/" + NAME + b".service", UNIT)


def _levels(tree: GuestTree) -> bytes:
    """What lies before ``N.d`` in the folders of run levels; empty where there are none."""
    for start in b"/etc/rc.d/rc", b"/etc/init.d/rc", b"/etc/rc":
        if tree.is_dir(start + b"3.d"):
            return start
    return b""


def _sysv(guest: GuestFiles, option: str, levels: bytes) -> list[Done]:
    done = put_link(guest, INIT_SCRIPT, RUNNER)
    for level in _LEVELS:
        if guest.is_dir(levels + level + b".d"):
            done += put_link(guest, levels + level + b".d/S99" + NAME, INIT_SCRIPT)
    if done and guest.exists(b"/etc/init.d/.depend.start"):
        script = b"update-rc.d " + NAME + b" defaults 2>&1 || insserv " + NAME
        run_checked(guest, script, what=f"{option}: ordering the services of the guest")
    return done
