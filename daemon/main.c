/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leatd: the broker of one domain. Options, the listening socket, timers, signals. Stays in the
 * foreground; ends on SIGTERM or SIGINT, or, started on demand, when nobody has needed it for a
 * while. Manual: leatd(8).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "link/sock.h"
#include "session.h"

enum { EXIT_USAGE = 2 };

struct daemon {
	struct broker b;
	uv_poll_t listen_poll;
	uv_timer_t expire_timer, idle_timer;
	uv_signal_t term, intr;
	uv_prepare_t tell;
	int sock, lock;
	int on_demand;
	int expiring, idling;
	double idle_s;
	char path[108], lock_path[120];
};

static const char usage[] =
	"usage: leatd [--domain PATH] [--linger SECONDS] [--on-demand] [--idle SECONDS]\n"
	"             [--ready-fd N] [--verbose]\n"
	"       leatd --help | --version\n"
	"\n"
	"Serve leat's names on this host. Without --domain: $LEAT_BROKER, then\n"
	"$XDG_RUNTIME_DIR/leat/broker.sock, then (root only) /run/leat/broker.sock.\n"
	"\n"
	"  --domain PATH     path of the socket\n"
	"  --linger SECONDS  keep an ended publisher's messages so long (default 30)\n"
	"  --on-demand       leave when idle; how libleat starts it\n"
	"  --idle SECONDS    how long idle (default 5)\n"
	"  --ready-fd N      write a line to descriptor N when serving\n"
	"  --verbose         say on standard error who comes and goes\n"
	"\n"
	"Manual: leatd(8).\n";

/* ---- timers run only while there is something for them to do ---- */

static void on_expire(uv_timer_t *t)
{
	struct daemon *d = t->data;

	registry_expire(&d->b.reg, leat__now());
	d->b.changed(&d->b);
}

static void on_idle(uv_timer_t *t)
{
	uv_stop(t->loop);
}

static void changed(struct broker *b)
{
	struct daemon *d = (struct daemon *)b;
	int ended = b->reg.n_ended > 0;
	int idle = d->on_demand && !b->n_sessions && !b->reg.n_channels;
	uint64_t tick = b->reg.linger_ns / 4000000;

	if (ended != d->expiring) {
		d->expiring = ended;
		tick = tick < 10 ? 10 : tick > 1000 ? 1000 : tick;
		if (ended)
			uv_timer_start(&d->expire_timer, on_expire, tick, tick);
		else
			uv_timer_stop(&d->expire_timer);
	}
	if (idle != d->idling) {
		d->idling = idle;
		if (idle)
			uv_timer_start(&d->idle_timer, on_idle, (uint64_t)(d->idle_s * 1000), 0);
		else
			uv_timer_stop(&d->idle_timer);
	}
}

/* Before it sleeps: all that came in is done. */
static void on_tell(uv_prepare_t *h)
{
	struct daemon *d = h->data;

	watchers_tell(&d->b);
}

static void on_connect(uv_poll_t *h, int status, int events)
{
	struct daemon *d = h->data;

	(void)status;
	(void)events;
	for (int i = 0; i < 64; i++) {
		int sock = accept4(d->sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno != EAGAIN)
				broker_log(&d->b, "accept: %s", strerror(errno));
			break;
		}
		session_start(&d->b, sock);
	}
	changed(&d->b);
}

static void on_signal(uv_signal_t *h, int sig)
{
	(void)sig;
	uv_stop(h->loop);
}

/* ---- the socket ---- */

static int complain(const char *what, const char *path, const char *why)
{
	fprintf(stderr, "leatd: %s %s: %s\n", what, path, why);
	return -1;
}

/* The directory of the socket: made if missing (private), must be ours. */
static int prepare_directory(const char *path)
{
	char dir[108];
	char *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = 0;
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return complain("make directory", dir, strerror(errno));
	if (stat(dir, &st) < 0)
		return complain("look at directory", dir, strerror(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return complain("use directory", dir, "it belongs to another user");
	return 0;
}

static int find_path(struct daemon *d, const char *domain)
{
	int named = leat__sock_place(domain, 0, d->path, sizeof(d->path));

	if (named < 0)
		return complain("use domain", domain ? domain : "", leat_why());
	if (!named && !strncmp(d->path, "/run/leat/", 10) && geteuid() != 0)
		return complain("find a place for the socket in", "/run/leat",
				"not root, and $XDG_RUNTIME_DIR is not set: set $LEAT_BROKER or use --domain");
	return 0;
}

/* The lock, not the socket, says who serves: a socket left by a killed broker is replaced. */
static int take_lock(struct daemon *d)
{
	struct stat ours, there;

	snprintf(d->lock_path, sizeof(d->lock_path), "%s.lock", d->path);
	for (;;) {
		d->lock = open(d->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (d->lock < 0)
			return complain("open", d->lock_path, strerror(errno));
		if (flock(d->lock, LOCK_EX | LOCK_NB) < 0)
			return complain("serve", d->path,
					errno == EWOULDBLOCK ? "another leatd serves it already"
							     : strerror(errno));
		/* A leaving broker removes its lock: is this one still the one under the name? */
		if (fstat(d->lock, &ours) == 0 && stat(d->lock_path, &there) == 0 &&
		    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
			return 0;
		close(d->lock);
	}
}

static int listen_on(struct daemon *d)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (prepare_directory(d->path) < 0 || take_lock(d) < 0)
		return -1;
	if (unlink(d->path) < 0 && errno != ENOENT)
		return complain("replace", d->path, strerror(errno));
	strcpy(un.sun_path, d->path);
	d->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->sock < 0)
		return complain("make a socket for", d->path, strerror(errno));
	mode_t old = umask(0177);
	int r = bind(d->sock, (struct sockaddr *)&un, sizeof(un));
	umask(old);
	if (r < 0 || listen(d->sock, 1024) < 0)
		return complain("listen on", d->path, strerror(errno));
	return 0;
}

static void tell_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "ready\n", 6) < 0) {
		/* Whoever asked has gone: not our trouble. */
	}
	close(fd);
}

/* What no broker before us has had: its number, the numbers of its rings, its clients' lives. */
static int begin_instance(struct broker *b)
{
	struct timespec up;

	if (getrandom(&b->instance, sizeof(b->instance), 0) < 0)
		b->instance = leat__now();
	/* Since the machine started, in 64 us, which is less than it takes to make a ring: above every number that was
	 * given out before, for the first two years. */
	clock_gettime(CLOCK_BOOTTIME, &up);
	b->reg.next_ring = ((uint64_t)up.tv_sec * 15625 + (uint64_t)up.tv_nsec / 64000) % (LEAT__ID_MAX / 16 * 15);
	b->lives = memfd_create("leat-lives", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->lives < 0)
		return leat__fail(-errno, "make a file for the clients' lives: %s", strerror(errno));
	fcntl(b->lives, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL);
	return 0;
}

static int serve(struct daemon *d, int ready_fd)
{
	uv_loop_t loop;

	if (uv_loop_init(&loop) < 0)
		return complain("start", d->path, "no event loop");
	d->b.loop = &loop;
	d->b.changed = changed;
	if (begin_instance(&d->b) < 0)
		return complain("serve", d->path, leat_why());
	uv_poll_init(&loop, &d->listen_poll, d->sock);
	uv_timer_init(&loop, &d->expire_timer);
	uv_timer_init(&loop, &d->idle_timer);
	uv_signal_init(&loop, &d->term);
	uv_signal_init(&loop, &d->intr);
	uv_prepare_init(&loop, &d->tell);
	d->tell.data = d->listen_poll.data = d->expire_timer.data = d->idle_timer.data = d;
	uv_poll_start(&d->listen_poll, UV_READABLE, on_connect);
	uv_signal_start(&d->term, on_signal, SIGTERM);
	uv_signal_start(&d->intr, on_signal, SIGINT);
	uv_prepare_start(&d->tell, on_tell);
	changed(&d->b);
	tell_ready(ready_fd);
	uv_run(&loop, UV_RUN_DEFAULT);

	unlink(d->path); /* first, so that the next one can begin */
	session_end_all(&d->b);
	uv_close((uv_handle_t *)&d->listen_poll, NULL);
	uv_close((uv_handle_t *)&d->expire_timer, NULL);
	uv_close((uv_handle_t *)&d->idle_timer, NULL);
	uv_close((uv_handle_t *)&d->term, NULL);
	uv_close((uv_handle_t *)&d->intr, NULL);
	uv_close((uv_handle_t *)&d->tell, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	registry_free(&d->b.reg);
	close(d->b.lives);
	close(d->sock);
	unlink(d->lock_path); /* ours until it is closed */
	close(d->lock);
	return 0;
}

static int seconds(const char *text, double *ret)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= 0) || v > 1e6) {
		fprintf(stderr, "leatd: '%s' is not a number of seconds from 0 to 1000000\n", text);
		return -1;
	}
	*ret = v;
	return 0;
}

/* Two descriptors per client and one per ring: take what the host allows. */
static void raise_descriptors(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"domain", required_argument, NULL, 'd'},   {"linger", required_argument, NULL, 'l'},
		{"idle", required_argument, NULL, 'i'},     {"on-demand", no_argument, NULL, 'o'},
		{"ready-fd", required_argument, NULL, 'r'}, {"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},           {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	static struct daemon d = {.sock = -1, .lock = -1, .idle_s = 5};
	const char *domain = NULL;
	double linger = 30;
	int c, ready_fd = -1;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			domain = optarg;
			break;
		case 'l':
			if (seconds(optarg, &linger) < 0)
				return EXIT_USAGE;
			break;
		case 'i':
			if (seconds(optarg, &d.idle_s) < 0)
				return EXIT_USAGE;
			break;
		case 'o':
			d.on_demand = 1;
			break;
		case 'r':
			ready_fd = atoi(optarg);
			break;
		case 'v':
			d.b.verbose = 1;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			printf("leatd %s\n", leat_version());
			return 0;
		default:
			fputs("leatd: try leatd --help\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "leatd: '%s' is too much; try leatd --help\n", argv[optind]);
		return EXIT_USAGE;
	}
	d.b.reg.linger_ns = (uint64_t)(linger * 1e9);
	signal(SIGPIPE, SIG_IGN);
	raise_descriptors();
	if (find_path(&d, domain) < 0 || listen_on(&d) < 0)
		return 1;
	broker_log(&d.b, "serving %s", d.path);
	return serve(&d, ready_fd) < 0;
}
