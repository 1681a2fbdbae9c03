/* SPDX-License-Identifier: Apache-2.0 */
/* Who may what: what the files say, and that the broker keeps to it, for users who do not trust each other. */
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "base/base.h"
#include "harness.h"
#include "policy.h"
#include "quota.h"

enum { ALICE = 65501, BOB = 65502, EVE = 65503, VIDEO = 65510 };

/* ---- files ---- */

static const char *conf_dir(void)
{
	static char dir[200];

	snprintf(dir, sizeof(dir), "%s/etc", tmp_dir());
	mkdir(dir, 0755);
	return dir;
}

static void put(const char *name, const char *text, size_t size)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", conf_dir(), name);
	for (char *slash = path + strlen(conf_dir()) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ck_assert(fd >= 0 && write(fd, text, size) == (ssize_t)size);
	close(fd);
}
#define PUT(name, text) put(name, text, sizeof(text) - 1)

static const char *conf(void)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/leatd.conf", conf_dir());
	return path;
}

static struct config *load(int want)
{
	struct config *c = NULL;
	char *text;
	size_t size;
	int e;

	ok(config_read(conf(), &text, &size));
	e = config_parse(text, size, &c);
	ck_assert_msg(e == want, "%d instead of %d: %s: %s", e, want, text, e > 0 ? config_fault(c, 0) : leat_why());
	free(text);
	return c;
}

static int may(const struct config *c, uid_t uid, enum verb v, const char *name)
{
	static const gid_t video[] = {VIDEO};
	struct person who = {uid, uid, video, uid == BOB, NULL, 0};

	return policy_may(c, 65500, &who, v, name, NULL);
}

START_TEST(the_longest_prefix_with_the_verb_decides_alone)
{
	struct config *c;

	PUT("leatd.conf", "[broker]\nlinger = 2.5\n[*]\nwatch = *\nsubscribe = uid:65503\n");
	PUT("policy.d/camera.conf",
	    "; who films\n[camera]\npublish = uid:65501\nsubscribe = gid:65510,\n  uid:65501\n[camera/private]\nsubscribe =\n");
	PUT("policy.d/camera/front.conf", "[camera/front/]\nsubscribe = *\n");
	PUT("policy.d/README", "not read");
	c = load(0);
	ck_assert(config_linger(c) == 2.5);
	ck_assert(may(c, ALICE, V_PUBLISH, "camera") && may(c, ALICE, V_PUBLISH, "camera/private/x"));
	ck_assert(!may(c, BOB, V_PUBLISH, "camera/x") && !may(c, ALICE, V_PUBLISH, "cameras"));
	ck_assert(may(c, BOB, V_SUBSCRIBE, "camera/x") && may(c, ALICE, V_SUBSCRIBE, "camera/x"));
	ck_assert(!may(c, EVE, V_SUBSCRIBE, "camera/x") && may(c, EVE, V_SUBSCRIBE, "other"));
	ck_assert(!may(c, BOB, V_SUBSCRIBE, "camera/private") && !may(c, BOB, V_SUBSCRIBE, "camera/private/y"));
	ck_assert(may(c, EVE, V_SUBSCRIBE, "camera/front") && may(c, EVE, V_SUBSCRIBE, "camera/front/left"));
	ck_assert(may(c, EVE, V_WATCH, "camera/private") && !may(c, EVE, V_CREATE, "camera/private"));
	ck_assert(may(c, 0, V_ADMINISTER, "x") && may(c, 65500, V_ADMINISTER, "x"));
	for (unsigned v = 0; v < VERBS; v++) {
		ck_assert(may(c, ALICE, v, "u/65501/any/thing"));
		ck_assert(!may(c, BOB, v, "u/65501/any/thing") || v == V_WATCH);
	}
	ck_assert(!may(c, ALICE, V_PUBLISH, "u/65501") && !may(c, ALICE, V_PUBLISH, "u/655011/x"));
	config_free(c);
}
END_TEST

START_TEST(a_file_that_is_wrong_closes_what_it_is_for_and_nothing_else)
{
	static const struct {
		const char *text;
		size_t size;
		const char *fault;
	} wrong[] = {
#define WRONG(text, fault) {text, sizeof(text) - 1, fault}
		WRONG("[camera]\npublish = *\nnonsense\n", "camera.conf:3"),
		WRONG("publish = *\n", "in no section"),
		WRONG("[other]\npublish = *\n", "speaks for camera only"),
		WRONG("[cameras]\npublish = *\n", "speaks for camera only"),
		WRONG("[*]\npublish = *\n", "speaks for camera only"),
		WRONG("[broker]\nlinger = 1\n", "speaks for camera only"),
		WRONG("[camera]\nkick = *\n", "no verb"),
		WRONG("[camera]\npublish = bob\n", "'bob' is nobody"),
		WRONG("[camera]\npublish = uid:-1\n", "no number"),
		WRONG("[camera]\npublish = uid:4294967295\n", "no number"),
		WRONG("[camera]\npublish = uid:1x\n", "no number"),
		WRONG("[camera]\npublish = user:no-such-user-here\n", "no user"),
		WRONG("[camera]\npublish = *\nsubscribe = group:no-such-group-here\n", "no group"),
		WRONG("[camera//x]\npublish = *\n", "no prefix of names"),
		WRONG("[camera]\npublish = *\n\0\n", "no text"),
		WRONG("[camera]\npublish = uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 "
		      "uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1 uid:1\n",
		      "a line of over"),
	};

	PUT("leatd.conf", "[*]\npublish = *\n[camera/open]\npublish = *\n");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct config *c;

		put("policy.d/camera.conf", wrong[i].text, wrong[i].size);
		PUT("policy.d/radio.conf", "[radio]\nsubscribe = *\n");
		c = load(1);
		ck_assert_msg(strstr(config_fault(c, 0), wrong[i].fault) && strstr(config_fault(c, 0), "policy.d/camera.conf:"),
			      "%zu: %s", i, config_fault(c, 0));
		for (unsigned v = 0; v < VERBS; v++)
			ck_assert_msg(!may(c, EVE, v, "camera/x") && !may(c, EVE, v, "camera"), "%zu", i);
		ck_assert(may(c, EVE, V_PUBLISH, "cameras") && may(c, EVE, V_SUBSCRIBE, "radio") && may(c, EVE, V_PUBLISH, "camera/open"));
		ck_assert(may(c, 0, V_PUBLISH, "camera"));
		config_free(c);
	}
	PUT("policy.d/camera.conf", ""); /* says nothing: there is nothing wrong with that */
	config_free(load(0));
}
END_TEST

START_TEST(a_leatd_conf_that_is_wrong_is_refused)
{
	static const char *const wrong[] = {"nonsense\n", "[broker]\nlinger = soon\n", "[broker]\nlinger = -1\n", "[broker]\nspeed = 9\n",
					    "[*]\nfly = *\n", "[a//b]\npublish = *\n", "linger = 1\n"};
	struct config *c;
	char *text;
	size_t size;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		put("leatd.conf", wrong[i], strlen(wrong[i]));
		ok(config_read(conf(), &text, &size));
		fails(config_parse(text, size, &c), EINVAL);
		ck_assert(strstr(leat_why(), "leatd.conf:"));
		free(text);
	}
	ok(unlink(conf()));
	fails(config_read(conf(), &text, &size), ENOENT);
	ok(mkdir(conf(), 0755));
	fails(config_read(conf(), &text, &size), EINVAL);
	fails(config_parse("3\tx\n", 4, &c), EINVAL);
	fails(config_parse("9\t\tleatd.conf\nabc", 17, &c), EINVAL);
}
END_TEST

/* ---- users ---- */

struct user {
	uid_t uid;
	gid_t extra;
	void (*fn)(const struct user *u, struct leat *l);
	const char *name, *other;
	int want;
};
static char domain[300];
static const char *shown; /* the ticket that they show; NULL: none */

static void as_user(void *arg)
{
	const struct user *u = arg;
	struct leat *l;

	must(setgroups(u->extra ? 1 : 0, &u->extra) == 0 && setresgid(u->uid, u->uid, u->uid) == 0 &&
	     setresuid(u->uid, u->uid, u->uid) == 0, "become uid %u", (unsigned)u->uid);
	if (shown)
		setenv("LEAT_TICKET", shown, 1);
	ok(leat_open(domain, &l));
	u->fn(u, l);
	leat_close(l);
}

static void run_as(uid_t uid, void (*fn)(const struct user *, struct leat *), const char *name, int want)
{
	struct user u = {uid, uid == BOB ? VIDEO : 0, fn, name, NULL, want};

	child_ok(child(as_user, &u));
}

static void start(void)
{
	chmod(tmp_dir(), 0755);
	snprintf(domain, sizeof(domain), "%s", broker_start("--config", conf(), NULL));
}

#define is(expr, want)                                                                             \
	do {                                                                                       \
		int e_ = (expr);                                                                   \
		must((e_ < 0 ? e_ : 0) == (want), "%s: %d instead of %d: %s", #expr, e_, (want), leat_why());  \
	} while (0)

static void publishes(const struct user *u, struct leat *l)
{
	struct leat_pub *p = NULL;

	is(leat_pub_open(l, u->name, NULL, &p), u->want);
	if (u->want == 0)
		ok(leat_send(p, "x", 1, SEC));
}

static void subscribes(const struct user *u, struct leat *l)
{
	struct leat_sub *s;

	is(leat_sub_open(l, u->name, NULL, &s), u->want);
}

static void works(const struct user *u, struct leat *l)
{
	struct leat_queue *q;

	is(leat_queue_open(l, u->name, "g", NULL, &q), u->want);
}

static void observes(const struct user *u, struct leat *l)
{
	struct leat_sub *s;

	is(leat_sub_open(l, u->name, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE), &s), u->want);
}

static void looks(const struct user *u, struct leat *l)
{
	is(leat_stat(l, u->name, OPTS(leat_stat, .sent = 0), NULL, NULL), u->want);
}

static void removes(const struct user *u, struct leat *l)
{
	is(leat_remove(l, u->name), u->want);
}

static void shares(const struct user *u, struct leat *l)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_region *r;
	struct leat_share *s;

	ok(leat_region_create(&o, &r));
	is(leat_region_share(l, u->name, r, 0, &s), u->want);
	leat_region_close(r);
}

static void finds(const struct user *u, struct leat *l)
{
	struct leat_region *r;

	is(leat_region_find(l, u->name, LEAT_RDONLY, NULL, &r), u->want);
}

static int seen(const struct leat_stat *st, void *arg)
{
	return !strcmp(st->name, arg);
}

static int share_seen(const struct leat_found *f, void *arg)
{
	return !strcmp(f->name, arg);
}

static void lists(const struct user *u, struct leat *l)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *w;
	int came = 0;

	must(leat_list(l, NULL, seen, (void *)(uintptr_t)u->name) == u->want, "%s is %slisted", u->name, u->want ? "not " : "");
	ok(leat_watch(l, NULL, &w));
	do {
		ok(leat_watch_next(w, &ev, 5 * SEC));
		came |= ev.kind == LEAT_CAME && !strcmp(ev.name, u->name);
	} while (ev.kind != LEAT_SYNCED);
	must(came == u->want, "%s is %swatched", u->name, u->want ? "not " : "");
}

static void lists_shares(const struct user *u, struct leat *l)
{
	must(leat_region_list(l, NULL, share_seen, (void *)(uintptr_t)u->name) == u->want, "%s is %slisted", u->name, u->want ? "not " : "");
}

static int another(const struct leat_who *w, void *arg)
{
	return w->uid != *(uid_t *)arg;
}

static void sees_itself_only(const struct user *u, struct leat *l)
{
	uid_t uid = u->uid;

	must(leat_who(l, another, &uid) == u->want, "others are %sseen", u->want ? "not " : "");
}

#define ROOT_ONLY                                                                                  \
	if (geteuid() != 0) {                                                                      \
		fprintf(stderr, "# SKIP: only root can become other users\n");                     \
		return;                                                                            \
	}

static void cameras(void)
{
	PUT("leatd.conf", "[broker]\nlinger = 0\n[tmp]\npublish = *\nsubscribe = *\nobserve = *\ncreate = *\n");
	PUT("policy.d/camera.conf", "[camera]\npublish = uid:65501\ncreate = uid:65501\nsubscribe = gid:65510\nobserve = uid:65503\n"
				    "[camera/secret]\nobserve =\n[camera/seen]\nobserve =\nwatch = *\n");
	start();
}

START_TEST(each_may_what_the_policy_says_and_nothing_else)
{
	struct leat_pub *p;
	struct leat *l;

	ROOT_ONLY
	cameras();
	l = broker_open();
	ok(leat_pub_open(l, "camera/1", NULL, &p));
	run_as(ALICE, publishes, "camera/1", 0);
	run_as(BOB, publishes, "camera/1", -EACCES);
	run_as(EVE, publishes, "camera/1", -EACCES);
	run_as(ALICE, subscribes, "camera/1", -EACCES);
	run_as(BOB, subscribes, "camera/1", 0);
	run_as(BOB, works, "camera/1", 0);
	run_as(BOB, observes, "camera/1", 0); /* who may hold a publisher up may look on */
	run_as(EVE, subscribes, "camera/1", -EACCES);
	run_as(EVE, works, "camera/1", -EACCES);
	run_as(EVE, observes, "camera/1", 0);
	run_as(EVE, looks, "camera/1", 0);
	run_as(EVE, observes, "camera/secret/1", -EACCES);
	run_as(BOB, removes, "camera/1", -EACCES);
	run_as(ALICE, removes, "camera/1", -EACCES);
	/* Only who may create makes a channel. */
	run_as(BOB, subscribes, "camera/2", -ENOENT);
	run_as(ALICE, publishes, "camera/2", 0);
	run_as(EVE, publishes, "tmp/x", 0);
	run_as(EVE, publishes, "u/65503/x", 0);
	run_as(EVE, removes, "u/65503/never", -ENOENT);
	run_as(BOB, publishes, "u/65503/x", -EACCES);
	run_as(BOB, shares, "camera/r", -EACCES);
	run_as(ALICE, shares, "camera/r", 0);
	run_as(EVE, looks, "anything", -EACCES);
	leat_close(l);
}
END_TEST

START_TEST(what_one_may_not_see_is_not_there)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_pub *p, *q, *t;
	struct leat_region *r;
	struct leat_share *s, *sw;
	struct leat *l;

	ROOT_ONLY
	cameras();
	l = broker_open();
	ok(leat_pub_open(l, "camera/1", NULL, &p));
	ok(leat_pub_open(l, "camera/secret/1", NULL, &q));
	ok(leat_pub_open(l, "camera/seen/1", NULL, &t));
	ok(leat_region_create(&o, &r));
	ok(leat_region_share(l, "camera/secret/r", r, LEAT_RDONLY, &s));
	ok(leat_region_share(l, "camera/secret/w", r, 0, &sw));
	run_as(ALICE, lists, "camera/secret/1", 1);
	run_as(EVE, lists, "camera/1", 1);
	run_as(EVE, lists, "camera/secret/1", 0);
	run_as(EVE, lists, "camera/seen/1", 1); /* its name; */
	run_as(EVE, looks, "camera/seen/1", -EACCES); /* not more */
	run_as(EVE, lists_shares, "camera/secret/r", 0);
	run_as(BOB, lists_shares, "camera/secret/r", 1);
	/* The same answer, whether it is there or not. */
	run_as(EVE, looks, "camera/secret/1", -EACCES);
	run_as(EVE, looks, "camera/secret/2", -EACCES);
	run_as(EVE, finds, "camera/secret/r", -EACCES);
	run_as(EVE, finds, "camera/secret/q", -EACCES);
	run_as(BOB, finds, "camera/secret/r", 0);
	run_as(BOB, finds, "camera/secret/w", -EACCES); /* its descriptor can write */
	run_as(BOB, finds, "camera/secret/q", -ENOENT);
	run_as(EVE, removes, "camera/secret/1", -EACCES);
	run_as(EVE, sees_itself_only, "", 0);
	run_as(0, sees_itself_only, "", 0);
	leat_region_unshare(s);
	leat_region_unshare(sw);
	leat_region_close(r);
	leat_close(l);
}
END_TEST

/* Names come in order, once each. */
struct listed {
	char last[80];
	int n;
	struct leat *l; /* to list something else on meanwhile */
};

static int one_listed(const char *name, struct listed *to)
{
	must(strcmp(name, to->last) > 0 && strncmp(name, "camera/secret/", 14) != 0, "%s after %s", name, to->last);
	snprintf(to->last, sizeof(to->last), "%s", name);
	to->n++;
	return 0;
}

static int one_share(const struct leat_found *f, void *arg)
{
	return one_listed(f->name, arg);
}

static int one_channel(const struct leat_stat *st, void *arg)
{
	struct listed *to = arg, regions = {.n = 0};

	if (to->n % 50 == 0) {
		ok(leat_region_list(to->l, "camera/", one_share, &regions));
		must(regions.n == 1, "%d regions", regions.n);
	}
	return one_listed(st->name, to);
}

static void lists_all(const struct user *u, struct leat *l)
{
	for (int i = 0; i < 50; i++) {
		struct listed channels = {.l = l};

		ok(leat_list(l, i & 1 ? "camera/" : NULL, one_channel, &channels));
		must(channels.n == u->want, "%d channels", channels.n);
	}
}

/* A request looks at 256 names: there may be none among them that one may see, and there are more. */
START_TEST(a_list_goes_on_behind_what_one_may_not_see)
{
	enum { HIDDEN = 600, SEEN = 300, REGIONS = 270 };
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_region *r;
	struct leat_share *share;
	struct user eve = {EVE, 0, lists_all, NULL, NULL, SEEN};
	struct leat_sub *s;
	struct leat *l;
	char name[64];
	pid_t pid;

	ROOT_ONLY
	cameras();
	l = broker_open();
	ok(leat_region_create(&o, &r));
	for (int i = 0; i < HIDDEN + SEEN; i++) {
		snprintf(name, sizeof(name), "camera/%s%03d", i % 3 ? "secret/" : "t", i);
		ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_publishers = 1, .max_subscribers = 1), &s));
	}
	for (int i = 0; i < REGIONS; i++) {
		snprintf(name, sizeof(name), "camera/secret/%03d", i);
		ok(leat_region_share(l, name, r, LEAT_RDONLY, &share));
	}
	ok(leat_region_share(l, "camera/t", r, LEAT_RDONLY, &share));
	pid = child(as_user, &eve);
	for (int i = 0; i < 3; i++) { /* and the worker is another meanwhile */
		usleep(10000);
		kill(worker_pid(), SIGKILL);
		ok(leat_ping(l, NULL));
	}
	child_ok(pid);
	run_as(EVE, lists, "camera/t000", 1);
	run_as(EVE, lists, "camera/secret/001", 0);
	leat_region_close(r);
	leat_close(l);
}
END_TEST

static int may_publish(void)
{
	struct user u = {EVE, 0, publishes, "tmp/x", NULL, 0};
	pid_t pid = child(as_user, &u);
	int status;

	ck_assert(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(a_reload_is_all_or_nothing_and_outlives_the_worker)
{
	pid_t w;

	ROOT_ONLY
	cameras();
	ck_assert(may_publish());
	PUT("policy.d/tmp.conf", "[tmp]\npublish = uid:65501\n");
	kill(broker_pid(), SIGHUP);
	eventually(!may_publish());
	/* From here on what is in the files is wrong: what is in force stays, also for the next worker. */
	PUT("policy.d/tmp.conf", "[tmp]\npublish = everybody\n");
	PUT("policy.d/camera.conf", "[camera]\npublish = *\n");
	kill(broker_pid(), SIGHUP);
	usleep(100000);
	run_as(EVE, publishes, "camera/1", -EACCES);
	run_as(EVE, publishes, "tmp/x", -EACCES);
	run_as(ALICE, publishes, "tmp/x", 0);
	w = worker_pid();
	kill(w, SIGKILL);
	eventually(worker_pid() > 0 && worker_pid() != w);
	run_as(EVE, publishes, "camera/1", -EACCES);
	run_as(ALICE, publishes, "tmp/x", 0);
	PUT("leatd.conf", "nonsense");
	kill(broker_pid(), SIGHUP);
	w = worker_pid();
	kill(w, SIGKILL);
	eventually(worker_pid() > 0 && worker_pid() != w);
	run_as(ALICE, publishes, "tmp/x", 0);
	PUT("leatd.conf", "[broker]\nlinger = 0\n");
	PUT("policy.d/tmp.conf", "[tmp]\npublish = *\ncreate = *\n");
	kill(broker_pid(), SIGHUP);
	eventually(may_publish());
}
END_TEST

static void holds_one(const struct user *u, struct leat *l)
{
	struct leat_pub *p;

	ok(leat_pub_open(l, u->name, NULL, &p));
	while (access(tmp_path("over"), F_OK) < 0)
		usleep(1000);
	ok(leat_send(p, "x", 1, SEC));
}

static int log_says(const char *what)
{
	char text[20000] = "";
	int fd = open(tmp_path("log"), O_RDONLY | O_CLOEXEC);

	ck_assert(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	return strstr(text, what) != NULL;
}

START_TEST(a_reload_names_what_stays_open_and_would_be_refused)
{
	struct user u = {EVE, 0, holds_one, "tmp/held", NULL, 0};
	int err = dup(STDERR_FILENO), fd = open(tmp_path("log"), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0644);
	struct leat *l;
	pid_t pid;

	ROOT_ONLY
	dup2(fd, STDERR_FILENO);
	cameras();
	dup2(err, STDERR_FILENO);
	close(err);
	close(fd);
	pid = child(as_user, &u);
	ok(leat_open(domain, &l));
	eventually(leat_stat(l, "tmp/held", OPTS(leat_stat, .sent = 0), NULL, NULL) == 0);
	leat_close(l);
	kill(broker_pid(), SIGHUP);
	eventually(log_says("reloaded"));
	ck_assert(!log_says("stays-open"));
	PUT("policy.d/tmp.conf", "[tmp]\npublish = uid:65501\n");
	kill(broker_pid(), SIGHUP);
	eventually(log_says("reload-refuses open=1"));
	ck_assert(log_says("uid=65503") && log_says("program=\"check_policy\" verb=publish name=tmp/held"));
	close(open(tmp_path("over"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	child_ok(pid);
}
END_TEST

START_TEST(without_a_configuration_a_domain_is_its_users)
{
	struct user u = {EVE, 0, publishes, "tmp/x", NULL, 0};
	pid_t pid;
	int status;

	ROOT_ONLY
	chmod(tmp_dir(), 0755);
	snprintf(domain, sizeof(domain), "%s", broker_start(NULL));
	pid = child(as_user, &u);
	ck_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0);
	chmod(domain, 0666); /* the socket's mode is not what keeps them out */
	pid = child(as_user, &u);
	ck_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0);
}
END_TEST

/* ---- how much ---- */

static uint64_t ten_thousand(void *arg, uid_t uid, enum leat__quota what)
{
	(void)arg;
	(void)what;
	return uid == 7 ? UINT64_MAX : 10000;
}

START_TEST(charges_agree_with_a_simple_account_and_end_at_nothing)
{
	enum { CLIENTS = 12, MOST = 400 };
	struct quotas *q = quotas_new();
	struct { struct owner who; enum leat__quota what; uint64_t bytes, fds; } held[MOST];
	struct owner who[CLIENTS];
	struct leat__wire_quota w;
	uint64_t used[3][LEAT__QUOTAS] = {{0}};
	int n = 0, there[CLIENTS] = {0}, refused = 0;

	quotas_limit(q, ten_thousand, NULL);
	for (int i = 0; i < CLIENTS; i++)
		who[i] = (struct owner){(uint64_t)i + 1, 100 + i, 5 + (uid_t)i % 3, "prog"};
	for (int i = 0; i < 200000; i++) {
		int k = (int)(rnd() % CLIENTS), r = (int)(rnd() % 8);

		if (r == 0 && !there[k]) {
			ok(quota_come(q, &who[k]));
			there[k] = 1;
		} else if (r == 1 && there[k] && rnd() % 8 == 0) {
			quota_go(q, &who[k]); /* what it has stays with its user */
			there[k] = 0;
			who[k].client += CLIENTS;
		} else if (r < 5 && n < MOST && there[k]) {
			held[n].who = who[k];
			held[n].what = (enum leat__quota)(rnd() % LEAT__QUOTAS);
			if (held[n].what == LEAT__Q_MEMORY || held[n].what == LEAT__Q_DESCRIPTORS)
				held[n].what = LEAT__Q_CHANNELS;
			held[n].bytes = rnd() % 16 ? rnd() % 300 : UINT64_MAX - rnd() % 4;
			held[n].fds = rnd() % 3;
			if (quota_take(q, &held[n].who, held[n].what, held[n].bytes, held[n].fds) == 0) {
				uint64_t *u = used[held[n].who.uid - 5];

				u[held[n].what]++;
				u[LEAT__Q_MEMORY] += held[n].bytes;
				u[LEAT__Q_DESCRIPTORS] += held[n++].fds;
			} else {
				refused++;
			}
		} else if (r >= 5 && n) {
			int at = (int)(rnd() % (uint64_t)n);
			uint64_t *u = used[held[at].who.uid - 5];

			quota_give(q, &held[at].who, held[at].what, held[at].bytes, held[at].fds);
			u[held[at].what]--;
			u[LEAT__Q_MEMORY] -= held[at].bytes;
			u[LEAT__Q_DESCRIPTORS] -= held[at].fds;
			held[at] = held[--n];
		}
		for (uid_t uid = 5; uid < 8; uid++) {
			if (quota_next(q, uid, &w) < 0 || w.uid != uid)
				memset(&w, 0, sizeof(w));
			for (int a = 0; a < LEAT__QUOTAS; a++)
				must(w.used[a] == used[uid - 5][a], "%d: uid %u has %llu %s", i, (unsigned)uid,
				     (unsigned long long)w.used[a], quota_names[a]);
			must(uid == 7 || w.used[LEAT__Q_MEMORY] <= 10000, "over the limit");
		}
	}
	ck_assert_int_gt(refused, 1000);
	while (n-- > 0)
		quota_give(q, &held[n].who, held[n].what, held[n].bytes, held[n].fds);
	for (int i = 0; i < CLIENTS; i++)
		quota_go(q, &who[i]);
	ck_assert_int_eq(quota_next(q, 0, &w), -ENOENT);
	quotas_free(q);
}
END_TEST

START_TEST(who_has_had_more_than_its_share_of_time_is_ahead_of_the_others)
{
	const uint64_t ms = 1000000, now = 1000 * ms;
	struct owner a = {1, 1, 7, "a"}, b = {2, 2, 7, "b"}, c = {3, 3, 8, "c"};
	struct quotas *q = quotas_new();

	ok(quota_come(q, &a));
	ok(quota_come(q, &b));
	ck_assert(!quota_is_ahead(q, &a, now));
	quota_spend(q, &a, now, 10 * ms); /* alone: half of all time is his */
	ck_assert(!quota_is_ahead(q, &a, now));
	quota_spend(q, &a, now, ms);
	ck_assert(quota_is_ahead(q, &a, now) && quota_is_ahead(q, &b, now)); /* on whatever connection */
	ck_assert(!quota_is_ahead(q, &a, now + 3 * ms));
	ok(quota_come(q, &c)); /* two of them: a quarter each */
	quota_spend(q, &c, now, 5 * ms);
	ck_assert(!quota_is_ahead(q, &c, now));
	quota_spend(q, &c, now, ms);
	ck_assert(quota_is_ahead(q, &c, now) && !quota_is_ahead(q, &c, now + 5 * ms));
	/* However much it was, after a second it is over. */
	quota_spend(q, &c, now, UINT64_MAX);
	ck_assert(quota_is_ahead(q, &c, now + 900 * ms) && !quota_is_ahead(q, &c, now + 1000 * ms));
	quota_go(q, &a);
	ck_assert(!quota_is_ahead(q, &a, now)); /* nobody's */
	quota_go(q, &b);
	quota_go(q, &c);
	quotas_free(q);
}
END_TEST

START_TEST(a_hundred_greedy_clients_leave_something_for_a_quiet_one)
{
	struct quotas *q = quotas_new();
	struct owner who[101];

	quotas_limit(q, ten_thousand, NULL);
	for (int i = 0; i < 101; i++) {
		who[i] = (struct owner){(uint64_t)i + 1, 1000 + i, 5, "greedy"};
		ok(quota_come(q, &who[i]));
		while (i < 100 && quota_take(q, &who[i], LEAT__Q_CHANNELS, 0, 0) == 0)
			;
	}
	ok(quota_take(q, &who[100], LEAT__Q_CHANNELS, 0, 0));
	while (quota_take(q, &who[0], LEAT__Q_CHANNELS, 0, 0) == 0)
		;
	fails(quota_take(q, &who[0], LEAT__Q_CHANNELS, 0, 0), EDQUOT);
	ck_assert_msg(strstr(leat_why(), "of 10000 channels, most by greedy (pid 1000) 5000"), "%s", leat_why());
	ok(quota_take(q, &(struct owner){500, 9, 6, "other"}, LEAT__Q_CHANNELS, 0, 0)); /* another user's are its own */
	quotas_free(q);
}
END_TEST

static void limits(const char *what)
{
	char text[400];

	snprintf(text, sizeof(text), "[*]\npublish = *\nsubscribe = *\ncreate = *\n[broker]\nlinger = 0\n[limits uid:65501]\n%s\n", what);
	put("leatd.conf", text, strlen(text));
	start();
}

static int on_alice(const struct leat_quota *q, void *arg)
{
	if (q->uid == ALICE)
		*(struct leat_quota *)arg = *q;
	return 0;
}

static struct leat_quota alices(struct leat *l)
{
	struct leat_quota q = {.uid = 0};

	ok(leat_quota(l, on_alice, &q));
	return q;
}

static void takes_channels(const struct user *u, struct leat *l)
{
	struct leat_quota q;
	struct leat *other;
	struct leat_pub *p;
	struct leat_sub *s;
	int n = 0, e;

	while ((e = leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 4096), &p)) == 0)
		n++;
	must(e == -EDQUOT && n == 8, "%d after %d", e, n);
	must(strstr(leat_why(), "uid 65501 has 8 of 16 channels, most by check_policy (pid ") && strstr(leat_why(), " 8;"), "%s", leat_why());
	/* Of its own, another client: */
	ok(leat_open(domain, &other));
	for (n = 0; leat_sub_open(other, random_name(), NULL, &s) == 0;)
		n++;
	must(n >= 2, "another client opened %d", n);
	q = alices(l);
	must(q.channels.used == 8 + (uint64_t)n && q.channels.limit == 16 && q.publishers.used == 8 && q.subscribers.used == (uint64_t)n &&
	     q.clients.used == 2 && q.connected == 2 && q.memory.limit == 1 << 30, "%u", q.connected);
	leat_close(other);
	(void)u;
}

static void takes_memory(const struct user *u, struct leat *l)
{
	struct leat_pub *p;

	(void)u;
	is(leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 1 << 20), &p), -EDQUOT);
	must(strstr(leat_why(), "memory"), "%s", leat_why());
	is(leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 4096, .max_publishers = 1, .max_subscribers = 1), &p), 0);
}

static void takes_watches(const struct user *u, struct leat *l)
{
	struct leat_watch *w[2];

	(void)u;
	ok(leat_watch(l, NULL, &w[0]));
	ok(leat_watch(l, NULL, &w[1]));
	is(leat_watch(l, NULL, &w[0]), -EDQUOT);
	must(strstr(leat_why(), "watches"), "%s", leat_why());
}

static void takes_subscribers(const struct user *u, struct leat *l)
{
	struct leat_sub *s;
	int n = 0;

	while (leat_sub_open(l, u->name, NULL, &s) == 0)
		n++;
	must(n == 3 && strstr(leat_why(), "subscribers"), "%d: %s", n, leat_why());
}

static void takes_clients(const struct user *u, struct leat *l)
{
	struct leat *more[8];
	uint64_t begun;
	int n = 0, e;

	(void)l;
	while ((e = leat_open(domain, &more[n])) == 0)
		n++;
	must(n == 5 && e == -EDQUOT && strstr(leat_why(), "has 6 of 6 clients"), "%d, %d: %s", n, e, leat_why());
	begun = leat__now();
	is(leat_open(domain, &more[n]), -EDQUOT);
	must(leat__now() - begun < SEC, "refused after %llu ms", (unsigned long long)(leat__now() - begun) / 1000000);
	while (n--)
		leat_close(more[n]);
	(void)u;
}

static void takes_descriptors(const struct user *u, struct leat *l)
{
	struct leat_pub *p;
	int n = 0, e;

	(void)u;
	while ((e = leat_pub_open(l, "one", OPTS(leat_pub_opts, .capacity = 4096), &p)) == 0)
		n++;
	must(e == -EDQUOT && n > 2 && n < 8 && strstr(leat_why(), "descriptors"), "%d, %d: %s", n, e, leat_why());
}

START_TEST(a_user_gets_what_it_may_have_and_no_more)
{
	static const struct {
		const char *limit;
		void (*fn)(const struct user *, struct leat *);
	} each[] = {
		{"channels = 16", takes_channels}, {"memory = 1M", takes_memory}, {"watches = 6", takes_watches},
		{"subscribers = 6", takes_subscribers}, {"clients = 6", takes_clients}, {"descriptors = 16", takes_descriptors},
	};
	struct leat *l;

	ROOT_ONLY
	limits(each[_i].limit);
	l = broker_open();
	run_as(ALICE, each[_i].fn, "a/b", 0);
	eventually(alices(l).uid == 0); /* nothing is left in the books */
	run_as(BOB, publishes, "a/c", 0);
	leat_close(l);
}
END_TEST

static int *greedy; /* processes that have had all they get */

/* Until it is killed. */
static void takes_all(const struct user *u, struct leat *l)
{
	struct leat_pub *p;
	int e;

	(void)u;
	while ((e = leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 4096), &p)) == 0)
		;
	must(e == -EDQUOT, "%d", e);
	leat__fetch_add(greedy, 1);
	pause();
}

static void takes_one(const struct user *u, struct leat *l)
{
	struct leat_pub *p;
	char name[64];

	snprintf(name, sizeof(name), "%s/%s", u->name, random_name());
	is(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p), 0);
	ok(leat_send(p, "x", 1, SEC));
}

START_TEST(a_hundred_greedy_processes_leave_something_for_others)
{
	struct user u = {ALICE, 0, takes_all, "a", NULL, 0};
	uint64_t took;
	pid_t pid[100];
	struct leat *l;

	ROOT_ONLY
	greedy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	limits("channels = 400\nclients = 200\ndescriptors = 100000");
	l = broker_open();
	for (int i = 0; i < 100; i++)
		pid[i] = child(as_user, &u);
	eventually(leat__load_acquire(greedy) == 100);
	took = alices(l).channels.used;
	ck_assert_msg(took >= 200 && took < 400, "%llu channels", (unsigned long long)took);
	run_as(ALICE, takes_one, "a", 0); /* a quiet one of hers */
	run_as(BOB, takes_one, "a", 0);
	for (int i = 0; i < 100; i++)
		child_kill(pid[i]);
	eventually(alices(l).uid == 0);
	figure(9, "100 processes of a user take %llu of its 400 channels: one more of it opens, so does another user; nothing is left in the books",
	       (unsigned long long)took);
	leat_close(l);
	munmap(greedy, 4096);
}
END_TEST

static void holds(const struct user *u, struct leat *l)
{
	struct leat_pub *p;
	struct leat_sub *s;
	struct leat_watch *w;

	ok(leat_pub_open(l, u->name, NULL, &p));
	ok(leat_sub_open(l, u->name, NULL, &s));
	ok(leat_watch(l, NULL, &w));
	pause();
}

START_TEST(the_books_outlive_the_worker)
{
	struct user u = {ALICE, 0, holds, "a/b", NULL, 0};
	struct leat_quota before, after;
	struct leat *l;
	pid_t pid, w;

	ROOT_ONLY
	limits("channels = 100");
	l = broker_open();
	pid = child(as_user, &u);
	eventually((before = alices(l)).watches.used == 1);
	ck_assert(before.clients.used == 2 && before.publishers.used == 1 && before.subscribers.used == 1 && before.channels.used == 1);
	w = worker_pid();
	kill(w, SIGKILL);
	eventually(worker_pid() > 0 && worker_pid() != w);
	after = alices(l);
	ck_assert(!memcmp(&before, &after, sizeof(before)));
	child_kill(pid);
	eventually(alices(l).uid == 0);
	leat_close(l);
}
END_TEST

static void asks_much(const struct user *u, struct leat *l)
{
	uint64_t begun = leat__now();

	for (int i = 0; i < 2000; i++)
		ok(leat_ping(l, NULL));
	begun = leat__now() - begun;
	must((begun > UINT64_C(1400000000)) == u->want, "2000 requests took %llu ms", (unsigned long long)begun / 1000000);
}

START_TEST(who_asks_too_much_waits_and_the_others_do_not)
{
	struct user u = {ALICE, 0, asks_much, "", NULL, 1};
	uint64_t slowest = 0;
	struct leat *l;
	pid_t pid;

	ROOT_ONLY
	limits("requests = 1000"); /* half a second's at once */
	l = broker_open();
	pid = child(as_user, &u);
	for (int i = 0; i < 200; i++) {
		uint64_t ns;

		ok(leat_ping(l, &ns));
		slowest = ns > slowest ? ns : slowest;
		usleep(5000);
	}
	child_ok(pid);
	fprintf(stderr, "# the slowest of 200 round trips of another: %.3f ms\n", (double)slowest / 1e6);
	run_as(BOB, asks_much, "", 0);
	leat_close(l);
}
END_TEST

static int find_alice(const struct leat_who *w, void *arg)
{
	if (w->uid == ALICE && w->publishers)
		*(uint64_t *)arg = w->client;
	return 0;
}

static uint64_t alices_client(struct leat *l)
{
	uint64_t c = 0;

	ok(leat_who(l, find_alice, &c));
	return c;
}

static void is_kicked(const struct user *u, struct leat *l)
{
	struct leat_pub *p;
	struct leat *again;

	ok(leat_pub_open(l, u->name, NULL, &p));
	for (int i = 0; i < 2000 && leat_ping(l, NULL) == 0; i++)
		usleep(5000);
	is(leat_ping(l, NULL), -EACCES);
	must(strstr(leat_why(), "was put out"), "%s", leat_why());
	is(leat_open(domain, &again), -EACCES);
	usleep(300000); /* the worker is killed meanwhile */
	is(leat_open(domain, &again), -EACCES);
}

static void kicks(const struct user *u, struct leat *l)
{
	is(leat_kick(l, 1), u->want);
}

START_TEST(who_is_put_out_stays_out)
{
	struct user u = {ALICE, 0, is_kicked, "a/b", NULL, 0};
	struct leat *l;
	uint64_t c;
	pid_t pid, w;

	ROOT_ONLY
	limits("channels = 100");
	l = broker_open();
	pid = child(as_user, &u);
	eventually((c = alices_client(l)) != 0);
	run_as(BOB, kicks, "", -EACCES);
	ok(leat_kick(l, c));
	ck_assert(alices_client(l) == 0);
	eventually(leat_stat(l, "a/b", OPTS(leat_stat, .sent = 0), NULL, NULL) == -ENOENT);
	usleep(100000);
	w = worker_pid();
	kill(w, SIGKILL);
	child_ok(pid);
	run_as(ALICE, publishes, "a/b", 0); /* another process */
	fails(leat_kick(l, c), ENOENT);
	fails(leat_kick(l, UINT64_C(1) << 40), ENOENT);
	leat_close(l);
	broker_kill(SIGKILL);
	ok(leat_open(broker_start("--config", conf(), NULL), &l));
	leat_close(l);
}
END_TEST

/* ---- tickets ---- */

static const char *keys_file(void)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/keys", conf_dir());
	return path;
}

static void new_key(unsigned keep)
{
	const char *why = "";

	ck_assert_msg(ticket_keys_add(keys_file(), keep, &why) == 0, "%s", why);
}

static const char *mint(const char *prefix, unsigned verbs, uint64_t ns)
{
	static char text[4][TICKET_TEXT];
	static unsigned at;
	struct ticket t = {.verbs = verbs, .expires = ns ? ticket_now() + ns : 0};
	struct ticket_keys *keys;
	const char *why = "";
	int fd = ticket_keys_open(keys_file(), &why);

	ck_assert_msg(fd >= 0 && ticket_keys_read(fd, &keys, &why) >= 0, "%s", why);
	close(fd);
	snprintf(t.prefix, sizeof(t.prefix), "%s", prefix);
	ck_assert_msg(ticket_mint(keys, &t, text[++at % 4], &why) == 0, "%s", why);
	ticket_keys_free(keys);
	return text[at % 4];
}

static void ticket_office(void)
{
	char text[800];
	int n;

	new_key(0);
	n = snprintf(text, sizeof(text), "[broker]\nlinger = 0\n[tickets]\nkeys = %s\n[camera]\npublish = ticket, uid:65501\n"
					 "subscribe = ticket\ncreate = ticket\n[closed]\npublish = uid:65501\ncreate = *\n", keys_file());
	put("leatd.conf", text, (size_t)n);
	start();
}

START_TEST(a_ticket_lets_in_where_the_policy_takes_tickets)
{
	const unsigned pub = 1u << V_PUBLISH | 1u << V_CREATE, sub = 1u << V_SUBSCRIBE;
	const char *good;
	char many[4000], forged[TICKET_TEXT];

	ROOT_ONLY
	ticket_office();
	run_as(EVE, publishes, "camera/1", -EACCES);
	run_as(ALICE, publishes, "closed/1", 0);
	good = shown = mint("camera", pub, 3600 * SEC);
	run_as(EVE, publishes, "camera/1", 0);
	run_as(EVE, subscribes, "camera/1", -EACCES); /* not its rights */
	run_as(EVE, publishes, "closed/1", -EACCES);  /* no ticket counts there */
	run_as(EVE, publishes, "cameras", -EACCES);
	shown = mint("camera/left", pub, 3600 * SEC);
	run_as(EVE, publishes, "camera/left/2", 0);
	run_as(EVE, publishes, "camera/right", -EACCES);
	shown = mint("", (1u << VERBS) - 1, 0);
	run_as(EVE, subscribes, "camera/3", 0);
	run_as(EVE, publishes, "closed/1", -EACCES);
	run_as(EVE, removes, "camera/3", -EACCES); /* nobody may administer */
	/* Several. */
	snprintf(many, sizeof(many), "nonsense %s \n%s ", mint("camera/a", pub, SEC * 60), mint("camera/b", sub | pub, SEC * 60));
	shown = many;
	run_as(EVE, publishes, "camera/a", 0);
	run_as(EVE, subscribes, "camera/b", 0);
	run_as(EVE, subscribes, "camera/a", -EACCES);
	/* Forged, and cut. */
	strcpy(forged, good);
	forged[strlen(forged) - 2] = forged[strlen(forged) - 2] == 'A' ? 'B' : 'A';
	shown = forged;
	run_as(EVE, publishes, "camera/1", -EACCES);
	forged[20] = 0;
	run_as(EVE, publishes, "camera/1", -EACCES);
}
END_TEST

static void outlives_its_ticket(const struct user *u, struct leat *l)
{
	struct leat_pub *p, *q;
	int e;

	ok(leat_pub_open(l, u->name, NULL, &p));
	while ((e = leat_pub_open(l, u->name, OPTS(leat_pub_opts, .capacity = 4096), &q)) == 0) {
		leat_pub_close(q);
		usleep(20000);
	}
	must(e == -EACCES && strstr(leat_why(), "has expired"), "%d: %s", e, leat_why());
	ok(leat_send(p, "x", 1, SEC)); /* what is open is open */
}

START_TEST(a_ticket_expires)
{
	ROOT_ONLY
	ticket_office();
	shown = mint("camera", 1u << V_PUBLISH | 1u << V_CREATE, 700000000);
	run_as(EVE, outlives_its_ticket, "camera/1", 0);
}
END_TEST

static uint32_t *step;

/* Says what it may at each step that the test takes. */
static void tries(const struct user *u, struct leat *l)
{
	struct leat_pub *p;

	(void)u;
	for (uint32_t seen = 0, now; (now = leat__load_acquire(step)) != 99; usleep(1000)) {
		if (now == seen || now % 2 == 0)
			continue;
		seen = now;
		switch (leat_pub_open(l, "camera/1", NULL, &p)) {
		case 0:
			leat_pub_close(p);
			leat__store_release(&step[1], 0u);
			break;
		case -EACCES:
			leat__store_release(&step[1], (uint32_t)EACCES + (strstr(leat_why(), "key") ? 1000 : 0));
			break;
		default:
			must(0, "%s", leat_why());
		}
		leat__store_release(step, now + 1);
	}
}

/* What it may now: 0, EACCES, EACCES + 1000 saying that it is about a key. */
static uint32_t ask(void)
{
	uint32_t n = leat__load_acquire(step) + 1;

	leat__store_release(step, n);
	eventually(leat__load_acquire(step) == n + 1);
	return leat__load_acquire(&step[1]);
}

START_TEST(keys_change_while_it_runs)
{
	struct user u = {EVE, 0, tries, "", NULL, 0};
	pid_t pid, w;
	int fd;

	ROOT_ONLY
	step = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(step != MAP_FAILED);
	ticket_office();
	shown = mint("camera", 1u << V_PUBLISH | 1u << V_CREATE, 0);
	pid = child(as_user, &u);
	ck_assert_uint_eq(ask(), 0);
	/* Another worker goes on with the tickets that were shown, and with the keys that were in force. */
	new_key(0);
	w = worker_pid();
	kill(w, SIGKILL);
	eventually(worker_pid() > 0 && worker_pid() != w);
	ck_assert_uint_eq(ask(), 0);
	kill(broker_pid(), SIGHUP);
	eventually(ask() == EACCES + 1000);
	run_as(EVE, publishes, "camera/1", -EACCES);
	shown = mint("camera", 1u << V_PUBLISH | 1u << V_CREATE, 0);
	run_as(EVE, publishes, "camera/1", 0);
	new_key(1); /* and the one before */
	kill(broker_pid(), SIGHUP);
	usleep(100000);
	run_as(EVE, publishes, "camera/1", 0);
	/* A file that is wrong changes nothing, also not for the next worker. */
	fd = open(keys_file(), O_WRONLY | O_CLOEXEC | O_APPEND);
	ck_assert(fd >= 0 && fchmod(fd, 0666) == 0);
	close(fd);
	kill(broker_pid(), SIGHUP);
	usleep(100000);
	run_as(EVE, publishes, "camera/1", 0);
	chmod(keys_file(), 0600);
	leat__store_release(step, 99u);
	child_ok(pid);
	munmap(step, 4096);
}
END_TEST

START_TEST(without_its_keys_it_serves_and_takes_no_tickets)
{
	ROOT_ONLY
	ticket_office();
	shown = mint("camera", 1u << V_PUBLISH | 1u << V_CREATE, 0);
	broker_kill(SIGTERM);
	unlink(keys_file());
	start();
	run_as(EVE, publishes, "camera/1", -EACCES);
	run_as(ALICE, publishes, "closed/1", 0);
}
END_TEST

/* In a container, of which the broker's host knows nothing: only its directory is mounted there. */
static void in_a_container(void *arg)
{
	const struct user *u = arg;
	struct leat *l;
	int fd;

	must(setgroups(0, NULL) == 0 && setresgid(EVE, EVE, EVE) == 0 && setresuid(EVE, EVE, EVE) == 0, "become another");
	prctl(PR_SET_DUMPABLE, 1);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		_exit(0); /* the host does not let it */
	for (int i = 0; i < 3; i++) {
		static const char *const maps[][2] = {{"/proc/self/uid_map", "0 65503 1"}, {"/proc/self/setgroups", "deny"},
						      {"/proc/self/gid_map", "0 65503 1"}};

		fd = open(maps[i][0], O_WRONLY | O_CLOEXEC);
		must(fd >= 0 && write(fd, maps[i][1], strlen(maps[i][1])) > 0, "%s: %s", maps[i][0], strerror(errno));
		close(fd);
	}
	must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0 &&
	     mkdir("/run/leat", 0755) == 0 && mount(tmp_dir(), "/run/leat", NULL, MS_BIND, NULL) == 0, "mount: %s", strerror(errno));
	setenv("LEAT_TICKET", shown, 1);
	ok(leat_open("/run/leat/broker.sock", &l));
	u->fn(u, l);
	leat_close(l);
}

START_TEST(in_a_container_a_ticket_is_what_counts)
{
	struct user u = {EVE, 0, publishes, "camera/1", NULL, 0};

	ROOT_ONLY
	ticket_office();
	shown = mint("camera", 1u << V_PUBLISH | 1u << V_CREATE, 0);
	child_ok(child(in_a_container, &u));
	u.name = "closed/1";
	u.want = -EACCES;
	child_ok(child(in_a_container, &u));
}
END_TEST

START_TEST(too_long_a_ticket_is_refused_here)
{
	const char *at = broker_start(NULL);
	static char text[3100];
	struct leat *l;

	memset(text, 'x', sizeof(text) - 1);
	setenv("LEAT_TICKET", text, 1);
	ck_assert_int_eq(leat_open(at, &l), -EINVAL);
	ck_assert(strstr(leat_why(), "LEAT_TICKET"));
	memset(text, ' ', sizeof(text) - 200);
	for (int i = 0; i < 2900; i += 2)
		text[i] = 'y';
	text[2999] = 0;
	setenv("LEAT_TICKET", text, 1); /* 1,450 of them: more than a packet takes; they are none anyway */
	ok(leat_open(at, &l));
	leat_close(l);
	unsetenv("LEAT_TICKET");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy");
	TCase *tc = leak_checked(s, "policy", 60);

	test(tc, the_longest_prefix_with_the_verb_decides_alone);
	test(tc, a_file_that_is_wrong_closes_what_it_is_for_and_nothing_else);
	test(tc, a_leatd_conf_that_is_wrong_is_refused);
	test(tc, each_may_what_the_policy_says_and_nothing_else);
	test(tc, what_one_may_not_see_is_not_there);
	test(tc, a_list_goes_on_behind_what_one_may_not_see);
	test(tc, a_reload_is_all_or_nothing_and_outlives_the_worker);
	test(tc, a_reload_names_what_stays_open_and_would_be_refused);
	test(tc, without_a_configuration_a_domain_is_its_users);
	test(tc, charges_agree_with_a_simple_account_and_end_at_nothing);
	test(tc, who_has_had_more_than_its_share_of_time_is_ahead_of_the_others);
	test(tc, a_hundred_greedy_clients_leave_something_for_a_quiet_one);
	tcase_add_loop_test(tc, a_user_gets_what_it_may_have_and_no_more, 0, 6);
	test(tc, a_hundred_greedy_processes_leave_something_for_others);
	test(tc, the_books_outlive_the_worker);
	test(tc, who_asks_too_much_waits_and_the_others_do_not);
	test(tc, who_is_put_out_stays_out);
	test(tc, a_ticket_lets_in_where_the_policy_takes_tickets);
	test(tc, a_ticket_expires);
	test(tc, keys_change_while_it_runs);
	test(tc, without_its_keys_it_serves_and_takes_no_tickets);
	test(tc, in_a_container_a_ticket_is_what_counts);
	test(tc, too_long_a_ticket_is_refused_here);
	return run_suite(s);
}
