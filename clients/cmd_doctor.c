/* SPDX-License-Identifier: Apache-2.0 */
/* leat doctor: is this host fit for leat, and what to do where it is not. Looks only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "cli.h"
#include "facts.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

static struct cli_option options[] = {CLI_JSON, CLI_DOMAIN, {0}};

enum verdict { FINE, NOTE, BAD };
static const char *const verdicts[] = {"ok", "note", "bad"};

struct findings {
	json_t *all; /* NULL: for people */
	int bad;
};

__attribute__((format(printf, 4, 5))) static void find(struct findings *f, const char *what, enum verdict v, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	f->bad |= v == BAD;
	if (f->all)
		json_array_append_new(f->all, json_pack("{s:s, s:s, s:s}", "what", what, "verdict", verdicts[v], "text", text));
	else
		printf("%-4s  %-18s  %s\n", verdicts[v], what, text);
}

/* The first line of a file; -1: it cannot be read. */
static int line_of(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");
	int r = f && fgets(text, (int)size, f) ? 0 : -1;

	if (f)
		fclose(f);
	if (r == 0)
		text[strcspn(text, "\n")] = 0;
	return r;
}

/* ---- the kernel ---- */

static void look_at_seals(struct findings *f)
{
	int fd = memfd_create("leat-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING), e;

	if (fd < 0) {
		find(f, "memfd", BAD, "memfd_create: %s: channels need it; is it filtered (seccomp)?", strerror(errno));
		return;
	}
	e = ftruncate(fd, 4096) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0;
	if (e)
		find(f, "memfd", BAD, "F_SEAL_FUTURE_WRITE: %s: channels need Linux 5.1", strerror(errno));
	else
		find(f, "memfd", FINE, "sealed as a ring must be");
	close(fd);
}

static void look_at_death(struct findings *f)
{
	int pair[2], pidfd = -1, self;
	socklen_t len = sizeof(pidfd);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		find(f, "sockets", BAD, "a pair of SOCK_SEQPACKET: %s", strerror(errno));
		return;
	}
	if (getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
		find(f, "deaths", FINE, "pidfds of peers: proven whatever the PID namespace");
		close(pidfd);
	} else {
		self = (int)syscall(SYS_pidfd_open, getpid(), 0);
		if (self >= 0)
			find(f, "deaths", NOTE, "no SO_PEERPIDFD (Linux 6.5): clients in other PID namespaces are taken for dead when "
						"their socket closes");
		else
			find(f, "deaths", NOTE, "no pidfds (%s): a closed socket counts as a death", strerror(errno));
		if (self >= 0)
			close(self);
	}
	if (setsockopt(pair[0], SOL_SOCKET, SO_PASSRIGHTS, &(int){0}, sizeof(int)) == 0)
		find(f, "SO_PASSRIGHTS", FINE, "no descriptors come to the broker from who has not said who it is");
	else
		find(f, "SO_PASSRIGHTS", NOTE, "not there (Linux 6.16): a user with a FUSE file system can hold up the broker when he has "
					     "all the clients that he may have: see leat-security(7)");
	close(pair[0]);
	close(pair[1]);
}

static void look_at_futexes(struct findings *f)
{
	if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && (errno == ENOSYS || errno == EPERM))
		find(f, "futex_waitv", NOTE, "%s (Linux 5.16, or a seccomp filter): who waits for several channels looks once a millisecond",
		     strerror(errno));
	else
		find(f, "futex_waitv", FINE, "sets sleep");
}

static void look_at_proc(struct findings *f)
{
	if (access("/proc/self/fd", R_OK) < 0)
		find(f, "/proc", NOTE, "%s: lives cannot be shown by locks; without a broker nobody sees who dies", strerror(errno));
	else
		find(f, "/proc", FINE, "there");
}

/* ---- settings ---- */

static void look_at_settings(struct findings *f)
{
	char text[64];

	if (line_of("/proc/sys/vm/memfd_noexec", text, sizeof(text)) == 0 && atoi(text) == 2)
		find(f, "memfd_noexec", FINE, "2: only memfds without execution, which leat's are");
	if (line_of("/proc/sys/fs/protected_regular", text, sizeof(text)) == 0)
		find(f, "protected_regular", atoi(text) ? FINE : NOTE, "%s%s", text,
		     atoi(text) ? "" : ": set fs.protected_regular=1, so that nobody puts files into others' way in /dev/shm and /tmp");
	if (line_of("/proc/sys/user/max_user_namespaces", text, sizeof(text)) == 0 && atoi(text) == 0)
		find(f, "namespaces", FINE, "no user namespaces for users");
}

static void look_at_limits(struct findings *f)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		if (r.rlim_max < 4096)
			find(f, "descriptors", NOTE, "at most %llu: the broker needs three a client and channel: raise LimitNOFILE=, ulimit -Hn",
			     (unsigned long long)r.rlim_max);
		else
			find(f, "descriptors", FINE, "up to %llu", (unsigned long long)r.rlim_max);
	}
	if (getrlimit(RLIMIT_MEMLOCK, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		find(f, "memlock", r.rlim_cur < 1 << 20 ? NOTE : FINE, "%llu bytes: LEAT_LOCKED regions have to fit%s", (unsigned long long)r.rlim_cur,
		     r.rlim_cur < 1 << 20 ? ": raise LimitMEMLOCK=, ulimit -l" : "");
	if (getrlimit(RLIMIT_FSIZE, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		find(f, "fsize", NOTE, "%llu bytes: no ring can be larger (ulimit -f)", (unsigned long long)r.rlim_cur);
}

/* logind removes what a user leaves in /dev/shm when its last session ends. */
static void look_at_logind(struct findings *f)
{
	FILE *conf = fopen("/etc/systemd/logind.conf", "re");
	char line[256];
	int removes = access("/run/systemd/system", F_OK) == 0; /* its default */

	while (conf && fgets(line, sizeof(line), conf))
		if (!strncmp(line, "RemoveIPC=", 10))
			removes = !strncmp(line + 10, "yes", 3) || line[10] == '1' || !strncmp(line + 10, "true", 4);
	if (conf)
		fclose(conf);
	if (removes && geteuid() != 0)
		find(f, "RemoveIPC", NOTE, "logind removes POSIX regions of a user who logs out: RemoveIPC=no in logind.conf, or regions "
					   "of another kind");
	else
		find(f, "RemoveIPC", FINE, removes ? "not for root and system users" : "no");
}

/* ---- memory ---- */

static void look_at_shm(struct findings *f)
{
	struct statvfs s;
	struct stat st;

	if (stat("/dev/shm", &st) < 0 || statvfs("/dev/shm", &s) < 0) {
		find(f, "/dev/shm", BAD, "%s: mount a tmpfs there: POSIX regions need it", strerror(errno));
		return;
	}
	if ((uint64_t)s.f_bavail * s.f_frsize < 64u << 20)
		find(f, "/dev/shm", NOTE, "%llu MiB free: POSIX regions have to fit (docker --shm-size, mount -o remount,size=)",
		     (unsigned long long)((uint64_t)s.f_bavail * s.f_frsize >> 20));
	else
		find(f, "/dev/shm", FINE, "%llu MiB free", (unsigned long long)((uint64_t)s.f_bavail * s.f_frsize >> 20));
	if ((st.st_mode & 01777) != 01777)
		find(f, "/dev/shm", NOTE, "mode %o, not 1777: other users cannot make regions", (unsigned)st.st_mode & 07777);
}

/* What nobody has used for a day. */
static void look_for_stale(struct findings *f)
{
	DIR *d = opendir("/dev/shm");
	struct dirent *e;
	int n = 0;
	char first[300] = "";

	while (d && (e = readdir(d))) {
		struct stat st;

		if (strncmp(e->d_name, "leat", 4) != 0 || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_uid != geteuid() || time(NULL) - st.st_mtime < 86400 || !strncmp(e->d_name, "leat.sleepers", 13))
			continue;
		if (!n++)
			snprintf(first, sizeof(first), "/dev/shm/%s", e->d_name);
	}
	if (d)
		closedir(d);
	if (n)
		find(f, "left over", NOTE, "%d of ours in /dev/shm untouched for a day, as %s: remove what nobody needs", n, first);
	else
		find(f, "left over", FINE, "nothing in /dev/shm");
}

/* ---- the broker ---- */

static void look_at_broker(struct cli_command *cmd, struct findings *f)
{
	uint64_t ns, best = UINT64_MAX;
	struct leat *l;
	int e;

	setenv("LEAT_AUTOSTART", "0", 0);
	e = leat_open(cli_get(cmd, "domain"), &l);
	if (e < 0) {
		find(f, "broker", NOTE, "%s", leat_why());
		return;
	}
	for (int i = 0; i < 20 && e >= 0; i++) {
		e = leat_ping(l, &ns);
		best = e >= 0 && ns < best ? ns : best;
	}
	if (e < 0)
		find(f, "broker", BAD, "%s", leat_why());
	else
		find(f, "broker", FINE, "%s answers in %.0f us", leat_domain(l), (double)best / 1e3);
	leat_close(l);
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	struct findings f = {cli_get(cmd, "json") ? json_array() : NULL, 0};

	(void)argv;
	if (argc)
		return cli_usage(cmd, "it takes no names");
	look_at_seals(&f);
	look_at_death(&f);
	look_at_futexes(&f);
	look_at_proc(&f);
	look_at_settings(&f);
	look_at_limits(&f);
	look_at_logind(&f);
	look_at_shm(&f);
	look_for_stale(&f);
	look_at_broker(cmd, &f);
	if (f.all)
		cli_print_json(f.all);
	return f.bad ? CLI_FAILED : CLI_DONE;
}

struct cli_command cmd_doctor = {"doctor", "", "Is this host fit for leat?", options, run};
