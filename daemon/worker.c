/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leatd's worker: the broker of one domain. Options, timers, signals; and where it begins: anew, or with what an
 * earlier worker has left with the keeper (keeper.c). Ends on SIGTERM or SIGINT, or, started on demand, when nobody has
 * needed it for a while. Manual: leatd(8).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "configure.h"
#include "explain.h"
#include "keeper.h"
#include "link/sock.h"
#include "listen.h"
#include "log.h"
#include "sieve.h"
#include "snapshot.h"

#define CONFIG "/etc/leat/leatd.conf"
enum { EXIT_USAGE = 2, TRIES = 5 };

struct daemon {
	struct broker b;
	uv_poll_t listen_poll;
	uv_timer_t expire_timer, idle_timer;
	uv_signal_t term, intr, hup;
	uv_prepare_t tell;
	uv_poll_t keeper_poll;
	struct store store;
	int sock, lock, keeper, ready_fd;
	int on_demand, given; /* given: the socket is systemd's */
	struct configure configure;
	int expiring, idling;
	double idle_s;
	char path[108];
};

static const char usage[] =
	"usage: leatd [--domain PATH] [--config FILE] [--linger SECONDS] [--on-demand]\n"
	"             [--idle SECONDS] [--ready-fd N] [--verbose]\n"
	"       leatd --check [--config FILE]\n"
	"       leatd --explain [--config FILE] [--json] WHO VERB NAME\n"
	"       leatd --help | --version\n"
	"\n"
	"Serve leat's names on this host. Without --domain: $LEAT_BROKER, then\n"
	"$XDG_RUNTIME_DIR/leat/broker.sock, then (root only) /run/leat/broker.sock.\n"
	"\n"
	"  --domain PATH     path of the socket\n"
	"  --config FILE     who may do what; then all users may connect (default for\n"
	"                    /run/leat: " CONFIG ", if it is there)\n"
	"  --check           say whether the configuration is right, and leave\n"
	"  --explain         say who decides whether WHO may VERB NAME, and leave\n"
	"  --json            facts as JSON\n"
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
	broker_commit(&d->b);
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
				log_event(LOG_IS_WARNING, "accept-failed", "why=\"%s\"", strerror(errno));
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

/* ---- serving ---- */

static void tell_ready(struct daemon *d)
{
	if (d->ready_fd < 0)
		return;
	if (write(d->ready_fd, "ready\n", 6) < 0) {
		/* Whoever asked has gone: not our trouble. */
	}
	close(d->ready_fd);
	d->ready_fd = -1;
	store_drop(&d->store, KEY_READY);
	store_commit(&d->store);
}

static void on_reload(uv_signal_t *h, int sig)
{
	struct daemon *d = h->data;

	(void)sig;
	configure_again(&d->configure);
}

/* ---- beginning ---- */

/* What no broker before us has had: its number, the numbers of its rings, its clients' lives. */
static int begin_instance(struct broker *b)
{
	struct timespec up;
	int e;

	if (getrandom(&b->instance, sizeof(b->instance), 0) < 0)
		b->instance = leat__now();
	b->instance |= 1;
	/* Since the machine started, in 64 us, which is less than it takes to make a ring: above every number that was
	 * given out before, for the first two years. */
	clock_gettime(CLOCK_BOOTTIME, &up);
	b->reg.next_ring = ((uint64_t)up.tv_sec * 15625 + (uint64_t)up.tv_nsec / 64000) % (LEAT__ID_MAX / 16 * 15);
	b->lives = memfd_create("leat-lives", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->lives < 0)
		return leat__fail(-errno, "make a file for the clients' lives: %s", strerror(errno));
	fcntl(b->lives, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL);
	e = store_keep(b->reg.store, b->lives, &(uint32_t){KEY_LIVES});
	/* So that the log says whose it is from the start. */
	store_del(b->reg.store, REC_BROKER, 0, 0);
	broker_commit(b);
	return e;
}

/* What killed one worker after the other is not tried again. */
static void spare_us(struct broker *b)
{
	struct store_head *h = b->reg.store->head;
	struct session *s = h->client ? session_find(b, h->client) : NULL;

	if (!s)
		return;
	if (++h->tries >= TRIES) {
		log_event(LOG_IS_ERROR, "request-kills", "client=%llu uid=%u pid=%d program=\"%s\" serial=%llu workers=%u",
			  (unsigned long long)s->owner.client, (unsigned)s->owner.uid, (int)s->owner.pid, s->owner.program,
			  (unsigned long long)h->serial, h->tries);
		session_cut(s);
		h->tries = 0;
	}
}

/* Go on with what an earlier worker has left. */
static int resume_instance(struct broker *b, int *fds, uint32_t n)
{
	const struct store *st = b->reg.store;
	uint64_t size = st->head->end;
	unsigned char *log = MAP_FAILED;
	int e;

	b->lives = fds[KEY_LIVES];
	fds[KEY_LIVES] = -1;
	if (size <= st->room && b->lives >= 0)
		log = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, st->log, 0);
	if (log == MAP_FAILED)
		return leat__say(-EBADMSG, "the broker's log is not whole");
	e = snapshot_load(b, log, (size_t)size, fds, n);
	munmap(log, (size_t)size);
	if (e < 0)
		return e;
	spare_us(b);
	/* What nothing was said of. */
	for (uint32_t key = STORE_FREE; key < n; key++)
		if (fds[key] >= 0) {
			sieve_drain(b->sieve, fds[key], SIEVE_NOBODY); /* it may be a client's */
			close(fds[key]);
			store_drop(b->reg.store, key);
		}
	broker_commit(b);
	return 0;
}

/* What is kept is of no use: begin anew, as if keeper and worker had been killed. */
static void forget(struct daemon *d, const int *fds, uint32_t n)
{
	struct store *st = &d->store;

	log_event(LOG_IS_ERROR, "begin-anew", "why=\"what an earlier worker left cannot be used: %s\"", leat_why());
	st->pending.n = 0;
	for (const struct session *s = d->b.sessions; s; s = s->next)
		if (s->sock >= 0)
			sieve_drain(d->b.sieve, s->sock, SIEVE_NOBODY);
	for (uint32_t key = STORE_FREE; key < n; key++)
		if (fds[key] >= 0)
			sieve_drain(d->b.sieve, fds[key], SIEVE_NOBODY);
	for (uint32_t key = 0; key < n; key++)
		if (key != KEY_LISTEN && key != KEY_LOCK)
			store_drop(st, key);
	store_commit(st);
	raise(SIGKILL);
}

/* The socket, from whoever has it: an earlier worker, systemd, or nobody yet. */
static int find_socket(struct daemon *d, int *fds, uint32_t n)
{
	int e = 0;

	if (n > KEY_LOCK && fds[KEY_LISTEN] >= 0) {
		d->sock = fds[KEY_LISTEN];
		d->lock = fds[KEY_LOCK];
		fds[KEY_LISTEN] = fds[KEY_LOCK] = -1;
		return 0;
	}
	if (n > KEY_LOCK && fds[KEY_LOCK] >= 0) { /* killed just then: to be taken again */
		close(fds[KEY_LOCK]);
		fds[KEY_LOCK] = -1;
		store_drop(&d->store, KEY_LOCK);
		store_commit(&d->store);
	}
	e = listen_given(d->path, sizeof(d->path), &d->sock, &d->lock);
	if (e == 0)
		e = listen_open(d->path, d->configure.path != NULL, &d->sock, &d->lock);
	if (e < 0)
		return -1;
	e = store_keep(&d->store, d->lock, &(uint32_t){KEY_LOCK});
	if (e == 0)
		e = store_keep(&d->store, d->sock, &(uint32_t){KEY_LISTEN});
	return e < 0 ? complain("serve", d->path, leat_why()) : 0;
}

static uint64_t limit_of(void *arg, uid_t uid, enum leat__quota what)
{
	const struct broker *b = arg;

	return b->config ? config_limit(b->config, geteuid(), uid, what) : UINT64_MAX;
}

/* Who waits for us to serve is told by that worker which gets there. */
static void find_ready(struct daemon *d, int there, int *fds, uint32_t n)
{
	if (!there) {
		if (d->ready_fd >= 0)
			store_keep(&d->store, d->ready_fd, &(uint32_t){KEY_READY});
	} else if (n > KEY_READY) {
		d->ready_fd = fds[KEY_READY];
		fds[KEY_READY] = -1;
	}
}

static int begin(struct daemon *d)
{
	uint32_t n;
	int *fds;
	int there = store_open(&d->store, d->keeper, &fds, &n), e;

	if (there == -EBADMSG)
		forget(d, fds, n);
	if (there < 0)
		return complain("serve", d->path, leat_why());
	find_ready(d, there, fds, n);
	d->b.reg.store = &d->store;
	d->b.reg.quotas = quotas_new();
	if (!d->b.reg.quotas)
		return complain("serve", d->path, "no memory");
	quotas_limit(d->b.reg.quotas, limit_of, &d->b);
	if (configure_begin(&d->configure, fds, n) < 0)
		return complain("read", d->configure.path, leat_why());
	if (find_socket(d, fds, n) < 0)
		return -1;
	sieve_admit(d->sock, 0); /* until they have greeted us */
	e = there ? resume_instance(&d->b, fds, n) : begin_instance(&d->b);
	if (e < 0 && there)
		forget(d, fds, n);
	free(fds);
	return e < 0 ? complain("serve", d->path, leat_why()) : 0;
}

/* The keeper says nothing more: if its socket can be read it is gone, and so are we. */
static void on_keeper(uv_poll_t *h, int status, int events)
{
	(void)h;
	(void)status;
	(void)events;
	raise(SIGKILL);
}

static void end(struct daemon *d)
{
	uv_handle_t *const handles[] = {
		(uv_handle_t *)&d->listen_poll, (uv_handle_t *)&d->expire_timer, (uv_handle_t *)&d->idle_timer,
		(uv_handle_t *)&d->term, (uv_handle_t *)&d->intr, (uv_handle_t *)&d->hup, (uv_handle_t *)&d->tell,
		(uv_handle_t *)&d->keeper_poll, (uv_handle_t *)&d->b.look_again, (uv_handle_t *)&d->b.between,
	};

	if (!d->given)
		unlink(d->path); /* first, so that the next one can begin */
	d->b.reg.store = NULL; /* nobody comes after us */
	session_end_all(&d->b);
	for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
		if (handles[i]->loop)
			uv_close(handles[i], NULL);
	uv_run(d->b.loop, UV_RUN_DEFAULT);
	uv_loop_close(d->b.loop);
	registry_free(&d->b.reg);
	quotas_free(d->b.reg.quotas);
	config_free(d->b.config);
	ticket_keys_free(d->b.keys);
	sieve_free(d->b.sieve);
	close(d->b.lives);
	listen_close(d->path, d->sock, d->lock);
	store_close(&d->store);
}

/* What is mapped of a file and nobody writes comes again from there when it is wanted; most of what starting took is not. */
static int let_go_of_code(struct dl_phdr_info *object, size_t size, void *arg)
{
	uintptr_t page = leat__page_size();

	(void)size, (void)arg;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t from = (object->dlpi_addr + part->p_vaddr) / page * page;

		if (part->p_type == PT_LOAD && !(part->p_flags & PF_W))
			madvise((void *)from, object->dlpi_addr + part->p_vaddr + part->p_memsz - from, MADV_DONTNEED);
	}
	return 0;
}

static int serve(struct daemon *d)
{
	uv_loop_t loop;
	sigset_t none;

	if (uv_loop_init(&loop) < 0)
		return complain("start", d->path, "no event loop");
	d->b.loop = &loop;
	d->b.changed = changed;
	uv_timer_init(&loop, &d->expire_timer);
	uv_timer_init(&loop, &d->idle_timer);
	uv_timer_init(&loop, &d->b.look_again);
	d->b.look_again.data = &d->b;
	turns_init(&d->b);
	d->b.sieve = sieve_new();
	if (!d->b.sieve)
		return complain("start", d->path, "no memory");
	sieve_start(d->b.sieve); /* while there is little to copy; or else when it is wanted */
	if (begin(d) < 0)
		return -1;
	uv_poll_init(&loop, &d->listen_poll, d->sock);
	uv_signal_init(&loop, &d->term);
	uv_signal_init(&loop, &d->intr);
	uv_signal_init(&loop, &d->hup);
	uv_prepare_init(&loop, &d->tell);
	d->hup.data = d->tell.data = d->listen_poll.data = d->expire_timer.data = d->idle_timer.data = d;
	uv_poll_start(&d->listen_poll, UV_READABLE, on_connect);
	uv_signal_start(&d->term, on_signal, SIGTERM);
	uv_signal_start(&d->intr, on_signal, SIGINT);
	uv_signal_start(&d->hup, on_reload, SIGHUP);
	uv_prepare_start(&d->tell, on_tell);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL); /* what the keeper has sent meanwhile comes now */
	if (d->keeper >= 0) {
		uv_poll_init(&loop, &d->keeper_poll, d->keeper);
		uv_poll_start(&d->keeper_poll, UV_READABLE | UV_DISCONNECT, on_keeper);
	}
	changed(&d->b);
	tell_ready(d);
	store_ready(&d->store);
	listen_notify("READY=1");
	if (d->b.verbose)
		log_event(LOG_IS_INFO, "serving", "domain=%s", d->path);
	dl_iterate_phdr(let_go_of_code, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	end(d);
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

/* Two descriptors per client and one per ring: take what the host allows. The keeper may not have been allowed to. */
static void raise_descriptors(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* The socket to the keeper that started us; -1: somebody runs us alone. */
static int find_keeper(void)
{
	int type;
	socklen_t len = sizeof(type);

	if (getsockopt(LEATD_KEEPER_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return -1;
	fcntl(LEATD_KEEPER_FD, F_SETFD, FD_CLOEXEC);
	return LEATD_KEEPER_FD;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"domain", required_argument, NULL, 'd'},   {"linger", required_argument, NULL, 'l'},
		{"idle", required_argument, NULL, 'i'},     {"on-demand", no_argument, NULL, 'o'},
		{"ready-fd", required_argument, NULL, 'r'}, {"verbose", no_argument, NULL, 'v'},
		{"config", required_argument, NULL, 'c'},   {"check", no_argument, NULL, 'C'},
		{"explain", no_argument, NULL, 'E'},       {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},           {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	static struct daemon d = {.sock = -1, .lock = -1, .ready_fd = -1, .idle_s = 5, .configure = {&d.b, NULL, -1}};
	const char *domain = NULL;
	int c, check = 0, json = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			domain = optarg;
			break;
		case 'l':
			if (seconds(optarg, &d.configure.linger) < 0)
				return EXIT_USAGE;
			break;
		case 'c':
			d.configure.path = optarg;
			break;
		case 'C':
		case 'E':
			check = c;
			break;
		case 'j':
			json = 1;
			break;
		case 'i':
			if (seconds(optarg, &d.idle_s) < 0)
				return EXIT_USAGE;
			break;
		case 'o':
			d.on_demand = 1;
			break;
		case 'r':
			d.ready_fd = atoi(optarg);
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
	if (check == 'C' && optind == argc)
		return check_config(d.configure.path ? d.configure.path : CONFIG);
	if (check == 'E' && optind + 3 == argc)
		return explain(d.configure.path ? d.configure.path : CONFIG, json, argv + optind);
	if (check == 'E') {
		fputs("leatd: --explain takes WHO, VERB and NAME\n", stderr);
		return EXIT_USAGE;
	}
	if (optind < argc) {
		fprintf(stderr, "leatd: '%s' is too much; try leatd --help\n", argv[optind]);
		return EXIT_USAGE;
	}
	if (d.ready_fd >= 0 && fcntl(d.ready_fd, F_GETFD) < 0) /* an earlier worker's, who had it: by now something else may get its number */
		d.ready_fd = -1;
	d.b.reg.linger_ns = (uint64_t)((d.configure.linger >= 0 ? d.configure.linger : LINGER) * 1e9);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* ulimit -f is an error like others */
	raise_descriptors();
	d.keeper = find_keeper();
	if (listen_place(domain, d.path, sizeof(d.path)) < 0)
		return 1;
	if (!d.configure.path && !strncmp(d.path, "/run/leat/", 10) && access(CONFIG, F_OK) == 0)
		d.configure.path = CONFIG;
	d.given = getenv("LISTEN_FDS") != NULL;
	return serve(&d) < 0;
}
