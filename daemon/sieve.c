/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that clients send, looked at in a process of its own. Whoever lets go of a file last that a FUSE server or a
 * network is behind may wait for those for ever, and no signal ends that: who closes it, who dies, who takes the packet out
 * of its socket in which it came, who closes that socket. So worker and keeper are never the last. The worker sees that a
 * packet brings some, and a child that has nothing else to lose receives them first, passes on what is shared memory or
 * lies on a local file system, and goes with the rest, however long that takes. It takes out of a socket what is not wanted.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/base.h"
#include "sieve.h"

#ifndef SO_PASSRIGHTS /* Linux 6.16; where numbers are others, it is not asked for */
#define SO_PASSRIGHTS (SO_PEERGROUPS == 59 ? 83 : -1)
#endif
#define SENT_MOST 253 /* descriptors in one packet: the kernel takes no more */
#define IDLE_MS   2000 /* then it goes: an idle broker is small */
#define ANSWER_MS 500 /* nothing in it waits for anybody */
#define ENDS_MS   100 /* that nobody else has it to bury, as a rule */
#define GOES_NS UINT64_C(200000000) /* a moment, for who can */
enum { GOING = 32, HIS = 4, LINE = 4096 }; /* that may be stuck: in all, and of one user, who also gets no more in a moment */
enum { TAKES = 64, DROPS = 1 << 16 }; /* in one go: far more than a socket holds */

struct sieve {
	int sock;  /* -1: there is none */
	int pidfd; /* -1: this kernel has none */
	struct {
		int pidfd;      /* -1: it has gone */
		uid_t uid;      /* with whose descriptors */
		uint64_t since; /* 0: free */
	} going[GOING];
};

/* ---- the child ---- */

/* File systems whose files are closed at once, whatever anybody else does. */
static int is_local(const char *type)
{
	static const char *const known[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "nilfs2",
					    "reiserfs", "vfat", "exfat", "ntfs3", "tmpfs", "ramfs", "hugetlbfs", "overlay"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(type, known[i]))
			return 1;
	return 0;
}

/* Is it mounted here, where only who may mount for everybody does, and local? Its numbers are all that is asked of it. */
static int on_local(const struct statx *facts)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[LINE], type[64];
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned long long id;
		unsigned major_, minor_;
		const char *rest = strstr(line, " - ");

		if (rest && sscanf(line, "%llu %*u %u:%u", &id, &major_, &minor_) == 3 && sscanf(rest, " - %63s", type) == 1)
			found = ((facts->stx_mask & STATX_MNT_ID && id == facts->stx_mnt_id) ||
				 (major_ == facts->stx_dev_major && minor_ == facts->stx_dev_minor)) &&
				is_local(type);
	}
	if (f)
		fclose(f);
	return found;
}

static int check_fd(int fd)
{
	struct statx facts;

	if (fcntl(fd, F_GET_SEALS) >= 0) /* shared memory */
		return 0;
	if (!(fcntl(fd, F_GETFL) & O_PATH) && statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_MNT_ID, &facts) == 0 &&
	    S_ISREG(facts.stx_mode) && on_local(&facts))
		return 0;
	return leat__say(-EINVAL, "its descriptor is neither shared memory nor a file on a local file system of this host");
}

/* Answer the worker. What was refused we have until the worker has us take it out of the socket, and then go. */
static int sift(int up, int client)
{
	struct leat__packet p;
	struct leat__out o;
	int e = leat__sock_peek(client, &p);

	close(client);
	if (e == 0)
		e = leat__say(-ECONNRESET, "it has gone");
	for (unsigned i = 0; e > 0 && i < p.n_fds; i++) {
		int r = check_fd(p.fds[i]);

		e = r < 0 ? r : e;
	}
	leat__wire_begin(&o, e > 0 ? LEAT__OK : LEAT__ERROR, 0, 0);
	if (e < 0) {
		leat__wire_u32(&o, LEAT__T_CODE, (uint32_t)-e);
		leat__wire_text(&o, LEAT__T_WHY, leat_why());
	}
	leat__wire_end(&o, e > 0 ? p.n_fds : 0);
	if (leat__sock_send(up, &o, p.fds, e > 0 ? p.n_fds : 0) < 0)
		return -1;
	if (e > 0)
		leat__packet_close(&p);
	return 0;
}

/* One packet, for good, with all that it brings. It cannot be told from an end of file, unless SO_PASSCRED is set. */
static int swallow(int sock)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int) * SENT_MOST)];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	return recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) >= 0 && m.msg_controllen > 0;
}

/* Take packets out of the socket, at most so many; when the worker knows, we go with what they brought. */
static int take_out(int up, int client, uint64_t most)
{
	struct rlimit room = {.rlim_cur = 1024};
	struct leat__out o;

	getrlimit(RLIMIT_NOFILE, &room);
	for (uint64_t i = 0; i < most && (i == 0 || (i + 2) * SENT_MOST < room.rlim_cur); i++)
		if (!swallow(client))
			break;
	close(client);
	leat__wire_begin(&o, LEAT__OK, 0, 0);
	leat__wire_end(&o, 0);
	leat__sock_send(up, &o, NULL, 0);
	return -1;
}

static void only(int fd)
{
	if (fd != 3 && dup2(fd, 3) < 0)
		_exit(1);
	if (syscall(SYS_close_range, 4, ~0U, 0) < 0) /* before Linux 5.9 */
		for (int other = 4, most = (int)sysconf(_SC_OPEN_MAX); other < most; other++)
			close(other);
}

static void be_sieve(int up, pid_t worker)
{
	struct leat__packet p;
	struct leat__in in;

	prctl(PR_SET_NAME, "leatd-sieve");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, SIG_IGN); /* it ends with the worker */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (getppid() != worker)
		_exit(0);
	only(up);
	for (;;) {
		if (poll(&(struct pollfd){3, POLLIN, 0}, 1, IDLE_MS) == 0 || leat__sock_recv(3, &p) <= 0 ||
		    leat__wire_parse(&in, p.bytes, p.size, p.n_fds) < 0 || p.n_fds != 1)
			_exit(0);
		if ((in.head.object ? take_out(3, p.fds[0], in.head.object) : sift(3, p.fds[0])) < 0) {
			close(3); /* what is left may take its time */
			_exit(0);
		}
	}
}

/* ---- the worker's side ---- */

struct sieve *sieve_new(void)
{
	struct sieve *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->sock = v->pidfd = -1;
	signal(SIGCHLD, SIG_IGN); /* nobody asks how they ended */
	return v;
}

void sieve_free(struct sieve *v)
{
	if (!v)
		return;
	for (int i = 0; i < GOING; i++)
		if (v->going[i].since && v->going[i].pidfd >= 0)
			close(v->going[i].pidfd);
	if (v->sock >= 0)
		close(v->sock);
	if (v->pidfd >= 0) {
		poll(&(struct pollfd){v->pidfd, POLLIN, 0}, 1, ENDS_MS);
		close(v->pidfd);
	}
	free(v);
}

int sieve_start(struct sieve *v)
{
	pid_t pid, worker = getpid();
	int pair[2], e;

	if (v->sock >= 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return leat__fail(-errno, "the broker cannot look at descriptors: socketpair: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		be_sieve(pair[1], worker);
	e = -errno;
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return leat__fail(e == -EAGAIN ? -ENOMEM : e, "the broker cannot look at descriptors: fork: %s", strerror(-e));
	}
	v->sock = pair[0];
	v->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

/* It goes, now or when it can. */
static void part(struct sieve *v, uid_t uid)
{
	if (v->sock >= 0)
		close(v->sock);
	v->sock = -1;
	for (int i = 0; i < GOING && v->pidfd >= 0; i++)
		if (!v->going[i].since) {
			v->going[i].pidfd = v->pidfd;
			v->going[i].uid = uid;
			v->going[i].since = leat__now();
			v->pidfd = -1;
		}
	if (v->pidfd >= 0)
		close(v->pidfd);
	v->pidfd = -1;
}

unsigned sieve_reap(struct sieve *v)
{
	uint64_t now = leat__now();
	unsigned n = 0;

	for (int i = 0; i < GOING; i++) {
		int *pidfd = &v->going[i].pidfd;

		if (!v->going[i].since)
			continue;
		if (*pidfd >= 0 && poll(&(struct pollfd){*pidfd, POLLIN, 0}, 1, 0) > 0) {
			close(*pidfd);
			*pidfd = -1;
		}
		if (*pidfd < 0 && now - v->going[i].since >= GOES_NS)
			v->going[i].since = 0;
		n += *pidfd >= 0;
	}
	return n;
}

/*
 * May @uid send descriptors? Not while too many of his, or of all, hold one of us up; nor may he have us fork all the time.
 * -EAGAIN: soon. SIEVE_NOBODY may.
 */
static int may_send(struct sieve *v, uid_t uid)
{
	unsigned n = sieve_reap(v), his = 0, soon = 0, his_soon = 0;
	uint64_t now = leat__now();

	if (uid == SIEVE_NOBODY)
		return 0;
	for (int i = 0; i < GOING; i++)
		if (v->going[i].since) {
			unsigned is_his = v->going[i].uid == uid, is_soon = now - v->going[i].since < GOES_NS;

			his += is_his;
			his_soon += is_his && is_soon;
			soon += is_soon;
		}
	if (his < HIS && n < GOING)
		return 0;
	if (his >= HIS ? his_soon : soon)
		return -EAGAIN;
	return his >= HIS ? leat__fail(-EBUSY, "descriptors that uid %u sent before cannot be closed: the file system they are on does not answer",
				       (unsigned)uid)
			  : leat__say(-EBUSY, "too many descriptors that were sent cannot be closed");
}

/* One question, one answer: errors of leat__sock_recv(), 0 it has gone. @take: so many packets; 0: only look at the next. */
static int ask_once(struct sieve *v, int sock, uint64_t take, struct leat__packet *answer)
{
	struct leat__out o;
	int e = sieve_start(v);

	if (e < 0)
		return e;
	leat__wire_begin(&o, LEAT__PING, 0, take);
	leat__wire_end(&o, 1);
	e = leat__sock_send(v->sock, &o, &sock, 1);
	if (e == 0 && poll(&(struct pollfd){v->sock, POLLIN, 0}, 1, ANSWER_MS) == 0)
		e = -ETIMEDOUT;
	else if (e == 0)
		e = leat__sock_recv(v->sock, answer);
	if (e == -EPIPE || e == -ECONNRESET)
		return 0;
	if (e == -EMFILE) /* it is we who have no room for them */
		return e;
	return e < 0 ? leat__fail(e, "the broker could not look at a descriptor: %s", strerror(-e)) : e;
}

static int ask(struct sieve *v, int sock, uint64_t take, struct leat__packet *answer)
{
	int e = ask_once(v, sock, take, answer);

	if (e == 0) { /* it had nothing to do for a while, or somebody has killed it */
		if (v->pidfd >= 0)
			poll(&(struct pollfd){v->pidfd, POLLIN, 0}, 1, ENDS_MS);
		part(v, SIEVE_NOBODY);
		sieve_reap(v);
		e = ask_once(v, sock, take, answer);
	}
	return e == 0 ? leat__say(-ECONNRESET, "the broker could not look at a descriptor: who is to do so ends at once") : e;
}

int sieve_receive(struct sieve *v, int sock, uid_t uid, struct leat__packet *p)
{
	struct leat__packet answer = {.n_fds = 0};
	uint32_t code = EPROTO;
	struct leat__in in;
	char why[256] = "";
	int e = may_send(v, uid);

	if (e < 0)
		return e;
	e = ask(v, sock, 0, &answer);
	if (e == -EMFILE)
		return e;
	if (e > 0)
		e = leat__wire_parse(&in, answer.bytes, answer.size, answer.n_fds);
	if (e < 0) { /* what it has it goes with */
		part(v, uid);
		return e;
	}
	if (in.head.type == LEAT__OK) {
		memcpy(p->fds, answer.fds, sizeof(p->fds));
		p->n_fds = answer.n_fds;
		return 0;
	}
	leat__wire_get(&in, LEAT__T_CODE, &code, sizeof(code));
	leat__wire_get_text(&in, LEAT__T_WHY, why, sizeof(why));
	return leat__say(-(int)code, why);
}

static int take(struct sieve *v, int sock, uid_t uid, uint64_t packets)
{
	struct leat__packet answer = {.n_fds = 0};
	int e = may_send(v, uid);

	if (e == 0) {
		e = ask(v, sock, packets, &answer);
		leat__packet_close(&answer);
		part(v, uid);
	}
	return e < 0 ? e : 0;
}

int sieve_drop(struct sieve *v, int sock, uid_t uid)
{
	return take(v, sock, uid, 1);
}

/* What comes next in a socket with SO_PASSCRED, in which every packet has credentials: 0 nothing, 1 bytes, 2 descriptors. */
static int next_is(int sock)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		n = recvmsg(sock, &m, MSG_PEEK | MSG_DONTWAIT);
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET)); /* that it says once */
	return n < 0 || !m.msg_controllen ? 0 : m.msg_flags & MSG_CTRUNC ? 2 : 1;
}

int sieve_drain(struct sieve *v, int sock, uid_t uid)
{
	int is, takes = 0, drops = 0, e = 0;

	shutdown(sock, SHUT_RDWR); /* nothing more comes */
	setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int));
	while (e == 0 && (is = next_is(sock)) > 0) {
		if (takes == TAKES || drops == DROPS)
			e = leat__say(-EBUSY, "a socket does not become empty");
		else if (is == 2)
			e = take(v, sock, uid, UINT64_MAX), takes++;
		else
			leat__sock_drop(sock), drops++;
	}
	return e;
}

void sieve_admit(int sock, int may)
{
	setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &may, sizeof(may));
}
