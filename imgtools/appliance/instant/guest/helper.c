/* The instant appliance's helper inside the guest: one static program under several names.
 *
 * Copyright (C) 2026 the imgtools authors.  GPL-3.0-or-later.
 *
 *   guestfsd   runs the real guestfsd.  While a template is built it first warms the guest up and
 *              puts itself in the place of "ls", which is the first program guestfsd runs.
 *   ls         tells the builder that the guest is ready and waits.  The machine is saved in this
 *              wait and every launch resumes in it: set the clock, reseed the random generator,
 *              make a new machine-id, find the disks, assemble what lies on them as the stock
 *              /init does, and at last become the real ls.
 *   udevadm    "settle" without the 0.1 s that starting the real udevadm takes under TCG; all else,
 *              udevd itself too (a link to it), is the real one's.
 *   init       goes on to the stock /init, or for a plain launch without a template to init.sh,
 *              which does the same in less time; "imgtools-helper scan" is one of its steps.
 *
 * What the host says comes in a fw_cfg file of one line, "go key=value ...".  Its content does not
 * travel with a saved machine, so that the next look at it sees what this launch was given.
 * Progress goes to the console as lines that begin with MARK; the host reads them there.
 *
 * Sources of outside knowledge: random(4) and random(7) for the ioctls; udevd's control protocol in
 * systemd's src/udev/udev-ctrl.c; on-disk signatures in md(4) and linux/raid/md_p.h, DDF 1.2
 * section 5.2, mdadm's super-intel.c, lvm2's lib/label/label.h, linux-ntfs's LDM documentation.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARK "imgtools-instant: "
#define GO_FILE "/sys/firmware/qemu_fw_cfg/by_name/opt/org.imgtools/go/raw"
#define GO_SIZE 4096
#define SELF "/usr/sbin/imgtools-helper"
#define SHIM "/usr/sbin/ls"
#define REAL_LS "/bin/ls"
#define STOCK_INIT "/init.stock"
#define TRIMMED_INIT "/init.trimmed"
#define REAL_UDEVADM "/usr/bin/udevadm.real"
#define REAL_DAEMON "/usr/sbin/guestfsd.real"
#define RESTART "/run/imgtools-restart"
#define LABELS "/run/imgtools-labels"     /* udev's rules look for these two */
#define RESUMING "/run/imgtools-resuming"
#define STEP_MS 60000 /* longest wait for a disk or for udev */

/* ---- small things ------------------------------------------------------------------------- */

static void say(const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (console >= 0) {
        dprintf(console, MARK "%s\n", text);
        close(console);
    }
}

/* Give up: the host sees the machine end and starts a stock appliance instead. */
static void die(const char *what)
{
    say("failed: %s: %s", what, strerror(errno));
    sync();
    reboot(RB_AUTOBOOT); /* qemu runs with -no-reboot */
    _exit(1);
}

static void sleep_ms(long ms)
{
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&wait, NULL);
}

static int write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        return -1;
    ssize_t length = strlen(text), written = write(file, text, length);
    return close(file) == 0 && written == length ? 0 : -1;
}

/* Read a small file as a string; its length, or -1. */
static ssize_t read_file(const char *path, char *buffer, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t length = read(file, buffer, size - 1);
    close(file);
    if (length >= 0)
        buffer[length] = 0;
    return length;
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

static int on_command_line(const char *word)
{
    char line[4096];
    return read_file("/proc/cmdline", line, sizeof line) > 0 && strstr(line, word) != NULL;
}

/* Run a program with its output on the console; stdout may be a pipe that guestfsd reads. */
static void run(const char *const argv[])
{
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        int console = open("/dev/console", O_WRONLY | O_NOCTTY);
        if (console >= 0) {
            dup2(console, 1);
            dup2(console, 2);
        }
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

/* ---- identity ----------------------------------------------------------------------------- */

static void make_machine_id(void)
{
    unsigned char raw[16];
    char text[40];
    if (getentropy(raw, sizeof raw) < 0)
        die("getentropy");
    for (int i = 0; i < 16; i++)
        sprintf(text + 2 * i, "%02x", raw[i]);
    strcpy(text + 32, "\n");
    write_file("/etc/machine-id", text);
}

/* The kernel makes its boot id once, when it is first read, which was before the machine was saved:
 * put another file in its place. */
static void make_boot_id(void)
{
    unsigned char raw[16];
    char text[40];
    if (getentropy(raw, sizeof raw) < 0)
        die("getentropy");
    raw[6] = (raw[6] & 0x0f) | 0x40; /* RFC 4122, version 4 */
    raw[8] = (raw[8] & 0x3f) | 0x80;
    char *next = text;
    for (int i = 0; i < 16; i++)
        next += sprintf(next, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", raw[i]);
    strcpy(next, "\n");
    if (write_file("/run/imgtools-boot-id", text) < 0 ||
        mount("/run/imgtools-boot-id", "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) < 0)
        die("the boot id");
}

/* Credit the host's bytes and make the kernel's generator use them before it gives out more. */
static void reseed(const char *hex)
{
    struct {
        struct rand_pool_info head;
        unsigned char bytes[64];
    } seed = {{0, 0}, {0}};
    int size = 0;
    for (; size < 64 && hex[0] && hex[1]; hex += 2, size++) {
        unsigned value;
        if (sscanf(hex, "%2x", &value) != 1)
            break;
        seed.bytes[size] = value;
    }
    errno = EINVAL;
    if (size < 32)
        die("the seed is too short");
    seed.head.entropy_count = size * 8;
    seed.head.buf_size = size;
    int random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (random < 0 || ioctl(random, RNDADDENTROPY, &seed) < 0 || ioctl(random, RNDRESEEDCRNG) < 0)
        die("reseeding the random generator");
    close(random);
    explicit_bzero(&seed, sizeof seed);
}

static void set_clock(const char *text)
{
    double seconds = atof(text);
    struct timeval now = {(time_t)seconds, (suseconds_t)((seconds - (time_t)seconds) * 1e6)};
    errno = EINVAL;
    if (seconds < 1e9 || settimeofday(&now, NULL) < 0)
        die("setting the clock");
}

/* ---- udev --------------------------------------------------------------------------------- */

struct control { /* struct udev_ctrl_msg_wire */
    char version[16];
    unsigned magic;
    int type;
    union {
        int number;
        char text[256];
    } value;
};

enum { CTRL_END = 0, CTRL_STOP_EXEC_QUEUE = 2, CTRL_START_EXEC_QUEUE = 3, CTRL_PING = 7 };

/* Send udevd a message and wait until it has taken it in; 0 if it did. */
static int tell_udevd(int type)
{
    struct sockaddr_un address = {AF_UNIX, "/run/udev/control"};
    int peer = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (peer < 0)
        return -1;
    struct control message;
    memset(&message, 0, sizeof message);
    strcpy(message.version, "udev-252");
    message.magic = 0xdead1dea;
    message.type = type;
    int failed = connect(peer, (struct sockaddr *)&address, sizeof address) < 0 ||
                 send(peer, &message, sizeof message, MSG_NOSIGNAL) < 0;
    message.type = CTRL_END;
    failed = failed || send(peer, &message, sizeof message, MSG_NOSIGNAL) < 0;
    struct pollfd answer = {peer, POLLIN, 0};
    failed = failed || poll(&answer, 1, STEP_MS) <= 0;
    close(peer);
    return failed ? -1 : 0;
}

/* What "udevadm settle" does; 0 when settled, -1 if this udevd does not answer such a ping. */
static int settle(const char *exit_if)
{
    if (exit_if && exists(exit_if))
        return 0;
    if (tell_udevd(CTRL_PING) < 0) /* it has then read what the kernel sent before */
        return -1;
    for (long waited = 0; waited < STEP_MS; waited += 2) {
        if (!exists("/run/udev/queue") || (exit_if && exists(exit_if)))
            return 0;
        sleep_ms(2);
    }
    return 1;
}

static int udevadm(int argc, char **argv)
{
    int verb = argc > 1 && strcmp(argv[1], "--debug") == 0 ? 2 : 1; /* a verbose guestfsd's way */
    if (strstr(argv[0], "udevadm") && argc > verb && strcmp(argv[verb], "settle") == 0) {
        const char *exit_if = NULL;
        int known = 1;
        for (int i = verb + 1; i < argc; i++) {
            if (strncmp(argv[i], "--exit-if-exists=", 17) == 0)
                exit_if = argv[i] + 17;
            else if (strcmp(argv[i], "-E") == 0 && i + 1 < argc)
                exit_if = argv[++i];
            else if (strncmp(argv[i], "--timeout=", 10) != 0)
                known = 0;
        }
        if (known && settle(exit_if) == 0)
            return 0;
    }
    execv(REAL_UDEVADM, argv);
    return 127;
}

static void settle_or_die(void)
{
    if (settle(NULL) == 0)
        return;
    RUN(REAL_UDEVADM, "settle", "--timeout=60");
    errno = ETIMEDOUT;
    if (exists("/run/udev/queue") || !exists("/run/udev/control"))
        die("udev");
}

/* ---- what lies on the disks ----------------------------------------------------------------- */

enum { HAS_MD = 1, HAS_LVM = 2, HAS_LDM = 4 };

static ssize_t read_at(int disk, void *buffer, size_t size, off_t offset)
{
    return offset < 0 ? -1 : pread(disk, buffer, size, offset);
}

static int has_md(int disk, off_t size)
{
    static const uint32_t magic = 0xa92b4efc;
    off_t sectors = size / 512;
    off_t places[] = {
        0, 4096,                            /* 1.1, 1.2 */
        ((sectors - 16) & ~(off_t)7) * 512, /* 1.0 */
        (size & ~(off_t)65535) - 65536,     /* 0.90 */
    };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        uint32_t little;
        if (read_at(disk, &little, 4, places[i]) == 4 &&
            (little == magic || little == __builtin_bswap32(magic)))
            return 1;
    }
    char tail[512];
    if (read_at(disk, tail, 512, size - 512) == 512 && memcmp(tail, "\xde\x11\xde\x11", 4) == 0)
        return 1; /* DDF */
    for (int sector = 512; sector <= 4096; sector *= 8)
        if (read_at(disk, tail, 512, size - 2 * sector) == 512 &&
            memcmp(tail, "Intel Raid ISM Cfg Sig. ", 24) == 0)
            return 1;
    return 0;
}

static int has_lvm(int disk)
{
    char head[4 * 512];
    ssize_t length = read_at(disk, head, sizeof head, 0);
    for (int i = 0; i + 8 <= length; i += 512)
        if (memcmp(head + i, "LABELONE", 8) == 0)
            return 1;
    return 0;
}

static int has_ldm(int disk)
{
    /* The GPT type of an LDM metadata partition, 5808C8AA-7E8F-42E0-85D2-E1E90434CFB3. */
    static const unsigned char type[16] = {0xaa, 0xc8, 0x08, 0x58, 0x8f, 0x7e, 0xe0, 0x42,
                                           0x85, 0xd2, 0xe1, 0xe9, 0x04, 0x34, 0xcf, 0xb3};
    static unsigned char head[65536];
    ssize_t length = read_at(disk, head, sizeof head, 0);
    for (int sector = 512; sector <= 4096; sector *= 8)
        if (6 * sector + 8 <= length && memcmp(head + 6 * sector, "PRIVHEAD", 8) == 0)
            return 1;
    for (ssize_t i = 1024; i + 16 <= length; i += 128)
        if (memcmp(head + i, type, 16) == 0)
            return 1;
    return 0;
}

/* What any disk, partition or array carries.  Reading a few sectors takes less than starting one
 * program; a signature too many only costs a scan, as every launch of the stock appliance does. */
static int find_members(void)
{
    int found = 0;
    struct dirent *entry;
    DIR *devices = opendir("/sys/class/block");
    if (!devices)
        die("/sys/class/block");
    while ((entry = readdir(devices))) {
        const char *name = entry->d_name;
        if (name[0] == '.' || strncmp(name, "vda", 3) == 0 || strncmp(name, "loop", 4) == 0)
            continue;
        char path[300];
        snprintf(path, sizeof path, "/dev/%s", name);
        int disk = open(path, O_RDONLY | O_CLOEXEC);
        if (disk < 0)
            continue;
        off_t size = lseek(disk, 0, SEEK_END);
        found |= has_md(disk, size) ? HAS_MD : 0;
        found |= has_lvm(disk) ? HAS_LVM : 0;
        found |= has_ldm(disk) ? HAS_LDM : 0;
        close(disk);
    }
    closedir(devices);
    return found;
}

/* The stock /init's steps in its order, those left out that would find nothing. */
static void scan(void)
{
    setenv("LVM_SYSTEM_DIR", "/tmp/lvm", 1);
    int found = find_members();
    if (found & HAS_MD) {
        say("assembling arrays");
        RUN("mdadm", "-As", "--auto=yes", "--no-degraded");
        settle_or_die();
        found |= find_members();
    }
    if (found & HAS_LVM) {
        say("activating volume groups");
        RUN("lvm", "pvscan", "--cache", "--activate", "ay");
        settle_or_die();
        found |= find_members();
    }
    if (found & HAS_MD) {
        say("starting degraded arrays");
        RUN("mdadm", "-As", "--auto=yes", "--run");
        settle_or_die();
    }
    if (found & HAS_LDM) {
        say("creating dynamic disks");
        RUN("ldmtool", "create", "all");
        settle_or_die();
    }
}

/* ---- resuming --------------------------------------------------------------------------------- */

/* The value of a key in "go key=value ..."; empty if there is none. */
static const char *value_of(const char *go, const char *key, char *buffer, size_t size)
{
    size_t length = strlen(key);
    buffer[0] = 0;
    for (const char *word = strchr(go, ' '); word; word = strchr(word, ' ')) {
        word++;
        if (strncmp(word, key, length) == 0 && word[length] == '=') {
            size_t end = strcspn(word + length + 1, " \n");
            snprintf(buffer, size, "%.*s", (int)end, word + length + 1);
            break;
        }
    }
    return buffer;
}

static void wait_for_go(char go[GO_SIZE])
{
    while (read_file(GO_FILE, go, GO_SIZE) < 3 || strncmp(go, "go ", 3) != 0)
        sleep_ms(5);
}

static void scan_file(char *path, size_t size)
{
    struct dirent *entry;
    DIR *hosts = opendir("/sys/class/scsi_host");
    path[0] = 0;
    while (hosts && (entry = readdir(hosts))) {
        char name[300], driver[64];
        snprintf(name, sizeof name, "/sys/class/scsi_host/%s/proc_name", entry->d_name);
        if (read_file(name, driver, sizeof driver) > 0 && strstr(driver, "virtio_scsi"))
            snprintf(path, size, "/sys/class/scsi_host/%.60s/scan", entry->d_name);
    }
    if (hosts)
        closedir(hosts);
    errno = ENODEV;
    if (!path[0])
        die("the SCSI host");
}

static void disk_name(int index, char *name) /* sda ... sdz, sdaa ... */
{
    char letters[8], *next = letters + sizeof letters;
    *--next = 0;
    for (int i = index; i >= 0; i = i / 26 - 1)
        *--next = 'a' + i % 26;
    sprintf(name, "sd%s", next);
}

/* Let the kernel find the disks one by one: it probes several at once in any order, and the first
 * that is done gets the first name. */
static void find_disks(int count)
{
    char file[128], target[32], name[16], path[64];
    if (count)
        scan_file(file, sizeof file);
    for (int i = 0; i < count; i++) {
        snprintf(target, sizeof target, "0 %d 0", i);
        if (write_file(file, target) < 0)
            die("scanning for a disk");
        disk_name(i, name);
        snprintf(path, sizeof path, "/sys/block/%s/device/timeout", name);
        errno = ETIMEDOUT;
        for (long waited = 0; !exists(path); waited++) {
            if (waited > STEP_MS)
                die(name);
            sleep_ms(1);
        }
        write_file(path, "300"); /* remote images may be slow, as in the stock /init */
        snprintf(path, sizeof path, "/sys/block/%s/queue/scheduler", name);
        write_file(path, "none");
        if (i % 8 == 7)
            say("disk %d", i + 1);
    }
}

static int count_links(void)
{
    int count = 0;
    struct dirent *entry;
    DIR *links = opendir("/dev/disk/by-path");
    while (links && (entry = readdir(links)))
        count += strstr(entry->d_name, "-scsi-") && !strstr(entry->d_name, "-part");
    if (links)
        closedir(links);
    return count;
}

/* udevd may not have heard of the last disk yet, so that its queue is empty: count the links. */
static void wait_for_udev(int disks)
{
    errno = ETIMEDOUT;
    for (long waited = 0; count_links() < disks; waited += 2) {
        if (waited > STEP_MS)
            die("udev");
        sleep_ms(2);
    }
    settle_or_die();
}

static void resume(void)
{
    char go[GO_SIZE], value[256];
    wait_for_go(go);
    reseed(value_of(go, "seed", value, sizeof value));
    explicit_bzero(value, sizeof value);
    set_clock(value_of(go, "time", value, sizeof value));
    say("resumed");
    unlink(SHIM);
    make_machine_id();
    make_boot_id();
    if (atoi(value_of(go, "labels", value, sizeof value)))
        write_file(LABELS, "");
    int disks = atoi(value_of(go, "disks", value, sizeof value));
    /* All disks at once, as when the stock /init starts udevd: arrays and volume groups of several
     * disks then come up in the same order and under the same names. */
    write_file(RESUMING, "");
    tell_udevd(CTRL_STOP_EXEC_QUEUE);
    find_disks(disks);
    tell_udevd(CTRL_START_EXEC_QUEUE);
    wait_for_udev(disks);
    unlink(RESUMING);
    say("disks found");
    scan();
    say("done");
    if (atoi(value_of(go, "verbose", value, sizeof value))) {
        write_file(RESTART, "");
        kill(getppid(), SIGKILL);
        _exit(0);
    }
    explicit_bzero(go, sizeof go);
}

static int be_ls(char **argv)
{
    say("ready");
    resume();
    execv(REAL_LS, argv);
    return 127;
}

/* ---- building a template ---------------------------------------------------------------------- */

/* Have in memory what a launch or a common call would otherwise read from the disk. */
static void warm_up(void)
{
    RUN("modprobe", "-a", "qemu_fw_cfg");
    RUN("modprobe", "-aq", "dm_mod", "dm_crypt", "dm_snapshot", "dm_mirror", "dm_thin_pool", "raid0",
        "raid1", "raid10", "raid456", "linear", "btrfs", "xfs", "ext4", "vfat", "nls_ascii",
        "nls_cp437", "nls_utf8", "isofs", "fuse", "loop", "squashfs");
    RUN("sh", "-c",
        "cd /usr/sbin && cat lvm mdadm blkid parted sgdisk mke2fs mkfs.* e2fsck tune2fs wipefs"
        " dmsetup cryptsetup blockdev sfdisk losetup mkswap fsck* btrfs xfs_* resize2fs"
        " guestfsd.real >/dev/null 2>&1; cd /usr/bin && cat ls file tar ldmtool btrfs mount umount"
        " udevadm.real cat rm sync grep bash dash find du df stat lsblk ntfs-3g qemu-img"
        " >/dev/null 2>&1; cat /lib/x86_64-linux-gnu/*.so* /lib64/ld-linux* >/dev/null 2>&1;"
        "mdadm --detail --scan; lvm vgs; ldmtool scan; blkid; parted -v; sync;"
        "echo 1 > /proc/sys/vm/compact_memory");
}

static int guestfsd(char **argv)
{
    argv[0] = "guestfsd";
    if (on_command_line("imgtools_template=1")) {
        pid_t child;
        int status = 0;
        warm_up();
        if (symlink(SELF, SHIM) < 0)
            die(SHIM);
        if ((child = fork()) == 0) {
            execv(REAL_DAEMON, argv);
            _exit(127);
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (unlink(RESTART) < 0)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        execl(REAL_DAEMON, "guestfsd", "--verbose", NULL);
    }
    execv(REAL_DAEMON, argv);
    return 127;
}

/* ---- the trimmed boot ------------------------------------------------------------------------- */

static void make_node(const char *path, int major, int minor)
{
    mknod(path, S_IFCHR | 0600, makedev(major, minor));
}

/* What the stock /init does with two dozen programs before it starts udevd. */
static void early(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    if (symlink("/proc/self/fd", "/dev/fd") < 0 || symlink("/proc/self/fd/0", "/dev/stdin") < 0 ||
        symlink("/proc/self/fd/1", "/dev/stdout") < 0 ||
        symlink("/proc/self/fd/2", "/dev/stderr") < 0)
        say("links in /dev: %s", strerror(errno));
    mkdir("/dev/pts", 0755);
    mkdir("/dev/shm", 0755);
    mount("/dev/pts", "/dev/pts", "devpts", 0, NULL);
    mount("shmfs", "/dev/shm", "tmpfs", 0, "mode=1777");
    mkdir("/sysroot", 0755);
    mkdir("/run", 0755);
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID, "size=20%,mode=0755");
    const char *folders[] = {"/run/lock",      "/run/lock/lvm",  "/run/lvm",    "/run/mdadm",
                             "/run/cryptsetup", "/run/blkid",    "/dev/mapper", "/dev/net",
                             "/tmp/lvm"};
    for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++)
        mkdir(folders[i], 0755);
    if (!exists("/var/lock") && symlink("../run/lock", "/var/lock") < 0)
        say("/var/lock: %s", strerror(errno));
    if (!exists("/etc/mtab") && symlink("/proc/mounts", "/etc/mtab") < 0)
        say("/etc/mtab: %s", strerror(errno));
    /* The kernel's fixed numbers, Documentation/admin-guide/devices.txt. */
    make_node("/dev/mapper/control", 10, 236);
    make_node("/dev/btrfs-control", 10, 234);
    make_node("/dev/fuse", 10, 229);
    make_node("/dev/loop-control", 10, 237);
    make_node("/dev/net/tun", 10, 200);
    write_file("/tmp/lvm/lvm.conf", "devices {\n\tuse_devicesfile = 0\n}\n");
    make_machine_id();
    int peer = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    if (ioctl(peer, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        ioctl(peer, SIOCSIFFLAGS, &request);
    }
    close(peer);
}

/* Words of the kernel line that call for the whole of the stock /init. */
static const char *const stock_words[] = {
    "imgtools_template=1", "guestfs_network=1",      "guestfs_rescue=1", "guestfs_noreboot=1",
    "guestfs_channel=",    "guestfs_boot_analysis=", "selinux=1",
};

static int init(char **argv)
{
    int plain = mount("proc", "/proc", "proc", 0, NULL) == 0;
    for (unsigned i = 0; plain && i < sizeof stock_words / sizeof *stock_words; i++)
        plain = !on_command_line(stock_words[i]);
    umount("/proc");
    if (plain) {
        early();
        argv[0] = TRIMMED_INIT;
        execv(TRIMMED_INIT, argv);
    }
    argv[0] = "/init";
    execv(STOCK_INIT, argv);
    return 127;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    if (strcmp(name, "init") == 0)
        return init(argv);
    if (strcmp(name, "udevadm") == 0 || strcmp(name, "systemd-udevd") == 0)
        return udevadm(argc, argv);
    if (strcmp(name, "ls") == 0)
        return be_ls(argv);
    if (strcmp(name, "guestfsd") == 0)
        return guestfsd(argv);
    if (argc != 2 || strcmp(argv[1], "scan") != 0)
        return 2;
    scan();
    return 0;
}
