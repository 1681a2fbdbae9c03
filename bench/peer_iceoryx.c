/* SPDX-License-Identifier: Apache-2.0 */
/* iceoryx through its C binding, in place; its broker RouDi is started once. */
#include <iceoryx_binding_c/api.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>
#include "bench.h"

static pid_t roudi, starter;

static void stop_roudi(void)
{
	if (roudi > 0 && getpid() == starter) { /* those that were forked run this too */
		kill(roudi, SIGTERM);
		waitpid(roudi, NULL, 0);
	}
}

static int roudi_up(struct cell *c)
{
	char config[128];
	FILE *f;

	if (roudi > 0)
		return 0;
	snprintf(config, sizeof(config), "%s/roudi.toml", c->dir);
	f = fopen(config, "we");
	if (!f)
		return -1;
	fprintf(f, "[general]\nversion = 1\n[[segment]]\n"
		   "[[segment.mempool]]\nsize = 128\ncount = 20000\n"
		   "[[segment.mempool]]\nsize = 1280\ncount = 4000\n"
		   "[[segment.mempool]]\nsize = 66000\ncount = 600\n"
		   "[[segment.mempool]]\nsize = 1050000\ncount = 60\n"
		   "[[segment.mempool]]\nsize = 12450000\ncount = 12\n");
	fclose(f);
	starter = getpid();
	roudi = fork();
	if (roudi == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(null, 1);
		dup2(null, 2);
		execlp("iox-roudi", "iox-roudi", "-c", config, "-l", "off", (char *)NULL);
		_exit(127);
	}
	atexit(stop_roudi);
	sleep(2); /* it says nowhere that it is ready */
	return 0;
}

static iox_pub_storage_t pub_storage;
static iox_sub_storage_t sub_storage;
static iox_ws_storage_t ws_storage;
static iox_pub_t pub;
static iox_sub_t sub;
static iox_ws_t ws;
static void *claimed;
static const void *peeked;

static int open_(struct cell *c, int side)
{
	iox_pub_options_t po;
	iox_sub_options_t so;
	char name[80];

	signal(SIGTERM, SIG_DFL);
	snprintf(name, sizeof(name), "%s-%d", c->name, side);
	iox_set_loglevel(Iceoryx_LogLevel_Off);
	iox_runtime_init(name);
	iox_pub_options_init(&po);
	po.subscriberTooSlowPolicy = ConsumerTooSlowPolicy_WAIT_FOR_CONSUMER;
	iox_sub_options_init(&so);
	so.queueFullPolicy = QueueFullPolicy_BLOCK_PRODUCER;
	so.queueCapacity = c->size > 100000 ? 4 : 256;
	pub = iox_pub_init(&pub_storage, "leat", c->name, side ? "back" : "there", &po);
	sub = iox_sub_init(&sub_storage, "leat", c->name, side ? "there" : "back", &so);
	if (c->wait == SLEEP) {
		ws = iox_ws_init(&ws_storage);
		iox_ws_attach_subscriber_state(ws, sub, SubscriberState_HAS_DATA, 1, NULL);
	}
	for (int i = 0; i < 5000 && !(iox_pub_has_subscribers(pub) &&
				      iox_sub_get_subscription_state(sub) == SubscribeState_SUBSCRIBED);
	     i++)
		usleep(1000);
	return 0;
}

static void close_(void)
{
	if (ws) {
		iox_ws_detach_subscriber_state(ws, sub, SubscriberState_HAS_DATA);
		iox_ws_deinit(ws);
	}
	iox_pub_deinit(pub);
	iox_sub_deinit(sub);
}

static inline void *claim_(size_t size)
{
	return claimed = iox_pub_loan_chunk(pub, &claimed, (uint32_t)size) == AllocationResult_SUCCESS
				 ? claimed
				 : NULL;
}

static inline int commit_(size_t size, int last)
{
	(void)size;
	(void)last;
	iox_pub_publish_chunk(pub, claimed);
	return 0;
}

static inline const void *peek_(void)
{
	iox_notification_info_t info[1];
	uint64_t missed;

	while (iox_sub_take_chunk(sub, &peeked) != ChunkReceiveResult_SUCCESS)
		if (ws)
			iox_ws_wait(ws, info, 1, &missed);
		else
			bench_pause();
	return peeked;
}

static inline int release_(void)
{
	iox_sub_release_chunk(sub, peeked);
	return 0;
}

#define LOOP(x) iox_##x
#define LOOPS_IN_PLACE
#include "loops.h"

const struct peer bench_iceoryx = {.name = "iceoryx", .kind = "peer", .works = 1 << PINGPONG | 1 << ONEWAY,
				   .waits = 1 << SPIN | 1 << SLEEP, .in_place = 1, .prepare = roudi_up,
				   .run = iox_run};

/* ---- attach, and register ---- */

static void attach(struct cell *c, int side)
{
	iox_pub_options_t po;
	iox_sub_options_t so;
	uint32_t each[32];
	char name[80];

	snprintf(name, sizeof(name), "%s-%d", c->name, side);
	iox_set_loglevel(Iceoryx_LogLevel_Off);
	iox_runtime_init(name);
	if (side == 0) {
		iox_pub_options_init(&po);
		po.historyCapacity = 1;
		pub = iox_pub_init(&pub_storage, "leat", c->name, "there", &po);
		bench_fill(claim_(c->size), c->size, 1);
		commit_(c->size, 1);
		bench_meet(c);
		bench_meet(c);
		iox_pub_deinit(pub);
		return;
	}
	bench_meet(c);
	iox_sub_options_init(&so);
	so.historyRequest = 1;
	for (int i = 0; i < 32; i++) {
		uint64_t start = bench_now();

		sub = iox_sub_init(&sub_storage, "leat", c->name, "there", &so);
		while (iox_sub_take_chunk(sub, &peeked) != ChunkReceiveResult_SUCCESS)
			if (bench_now() - start > 5000000000u) {
				bench_fail(c, "nothing came");
				return;
			}
		each[i] = (uint32_t)(bench_now() - start);
		release_();
		iox_sub_deinit(sub);
	}
	bench_quantiles(&c->sh->result, each, 32, 1);
	bench_meet(c);
}

static void reg(struct cell *c, int side)
{
	static iox_pub_storage_t storage[BENCH_BURST];
	iox_pub_options_t po;
	uint64_t start;
	char name[80];

	snprintf(name, sizeof(name), "%s-%d", c->name, side);
	iox_set_loglevel(Iceoryx_LogLevel_Off);
	iox_runtime_init(name);
	iox_pub_options_init(&po);
	bench_meet(c);
	start = bench_now();
	for (int i = 0; i < BENCH_BURST; i++) {
		snprintf(name, sizeof(name), "%d-%d", side, i);
		iox_pub_init(&storage[i], "leat", c->name, name, &po);
	}
	bench_meet(c);
	bench_registered(c, side, start);
}

static void more(struct cell *c, int side)
{
	(c->work == ATTACH ? attach : reg)(c, side);
}

const struct peer bench_iceoryx_more = {.name = "iceoryx", .kind = "peer", .works = 1 << ATTACH | 1 << REGISTER,
					.waits = 1 << SPIN, .prepare = roudi_up, .run = more};
