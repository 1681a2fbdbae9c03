/* SPDX-License-Identifier: Apache-2.0 */
/* Who may what: what the files say, and that the broker keeps to it, for users who do not trust each other. */
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/base.h"
#include "harness.h"
#include "policy.h"

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
	struct person who = {uid, uid, video, uid == BOB};

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

static void as_user(void *arg)
{
	const struct user *u = arg;
	struct leat *l;

	must(setgroups(u->extra ? 1 : 0, &u->extra) == 0 && setresgid(u->uid, u->uid, u->uid) == 0 &&
	     setresuid(u->uid, u->uid, u->uid) == 0, "become uid %u", (unsigned)u->uid);
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

int main(void)
{
	Suite *s = suite_create("policy");
	TCase *tc = leak_checked(s, "policy", 60);

	test(tc, the_longest_prefix_with_the_verb_decides_alone);
	test(tc, a_file_that_is_wrong_closes_what_it_is_for_and_nothing_else);
	test(tc, a_leatd_conf_that_is_wrong_is_refused);
	test(tc, each_may_what_the_policy_says_and_nothing_else);
	test(tc, what_one_may_not_see_is_not_there);
	test(tc, a_reload_is_all_or_nothing_and_outlives_the_worker);
	test(tc, without_a_configuration_a_domain_is_its_users);
	return run_suite(s);
}
