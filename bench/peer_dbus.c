/* SPDX-License-Identifier: Apache-2.0 */
/* D-Bus with a bus of its own: signals to one destination; a match and a call to attach; names. */
#include <dbus/dbus.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"

static pid_t bus, starter;
static char address[200];
static DBusConnection *conn;
static char to[80], mine[80];

static void stop_bus(void)
{
	if (bus > 0 && getpid() == starter) {
		kill(bus, SIGTERM);
		waitpid(bus, NULL, 0);
	}
}

static int start_bus(struct cell *c)
{
	char path[128], option[240];

	if (bus > 0)
		return 0;
	snprintf(path, sizeof(path), "%s/bus.sock", c->dir);
	snprintf(address, sizeof(address), "unix:path=%s", path);
	snprintf(option, sizeof(option), "--address=%s", address);
	starter = getpid();
	bus = fork();
	if (bus == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(null, 1);
		dup2(null, 2);
		execlp("dbus-daemon", "dbus-daemon", "--session", "--nofork", option, (char *)NULL);
		_exit(127);
	}
	atexit(stop_bus);
	for (int i = 0; i < 5000 && access(path, F_OK) != 0; i++)
		usleep(1000);
	return 0;
}

static int join(struct cell *c, int side)
{
	DBusError e;

	dbus_error_init(&e);
	snprintf(mine, sizeof(mine), "leat.%s.s%d", c->name, side);
	snprintf(to, sizeof(to), "leat.%s.s%d", c->name, !side);
	for (char *p = mine; *p; p++)
		*p = *p == '-' ? '_' : *p;
	for (char *p = to; *p; p++)
		*p = *p == '-' ? '_' : *p;
	conn = dbus_connection_open_private(address, &e);
	if (!conn || !dbus_bus_register(conn, &e)) {
		bench_fail(c, "%s: %s", address, e.message ? e.message : "?");
		return -1;
	}
	dbus_connection_set_exit_on_disconnect(conn, 0);
	return 0;
}

static int open_(struct cell *c, int side)
{
	if (join(c, side) < 0)
		return -1;
	if (dbus_bus_request_name(conn, mine, 0, NULL) != DBUS_REQUEST_NAME_REPLY_PRIMARY_OWNER)
		bench_fail(c, "cannot have the name %s", mine);
	return 0;
}

static void close_(void)
{
	dbus_connection_flush(conn);
	dbus_connection_close(conn);
}

static int send_(const void *data, size_t size)
{
	DBusMessage *m = dbus_message_new_signal("/leat", "leat.Bench", "Message");
	int ok = m && dbus_message_set_destination(m, to) &&
		 dbus_message_append_args(m, DBUS_TYPE_ARRAY, DBUS_TYPE_BYTE, &data, (int)size,
					  DBUS_TYPE_INVALID) &&
		 dbus_connection_send(conn, m, NULL);

	dbus_connection_flush(conn);
	if (m)
		dbus_message_unref(m);
	return ok ? 0 : -1;
}

static int recv_(void *buf, size_t size)
{
	int n = -1;

	while (n < 0) {
		DBusMessage *m = dbus_connection_pop_message(conn);
		const void *data;

		if (!m) {
			if (!dbus_connection_read_write(conn, -1))
				return -1;
			continue;
		}
		if (dbus_message_is_signal(m, "leat.Bench", "Message") &&
		    dbus_message_get_args(m, NULL, DBUS_TYPE_ARRAY, DBUS_TYPE_BYTE, &data, &n,
					  DBUS_TYPE_INVALID))
			memcpy(buf, data, (size_t)n < size ? (size_t)n : size);
		dbus_message_unref(m);
	}
	return n;
}

#define LOOP(x) dbus_##x
#include "loops.h"
#undef LOOP

/* Ask to be told of changes, then ask for the state: what a client of a service does. */
static void attach(struct cell *c, int side)
{
	uint32_t each[32];

	if (open_(c, side) < 0)
		return;
	bench_meet(c);
	if (side == 0) {
		while (!c->sh->stop) {
			DBusMessage *m, *r;

			dbus_connection_read_write(conn, 10);
			while ((m = dbus_connection_pop_message(conn))) {
				if (dbus_message_is_method_call(m, "leat.Bench", "Get")) {
					char data[64] = {0};
					const void *p = data;

					r = dbus_message_new_method_return(m);
					dbus_message_append_args(r, DBUS_TYPE_ARRAY, DBUS_TYPE_BYTE, &p, 64,
								 DBUS_TYPE_INVALID);
					dbus_connection_send(conn, r, NULL);
					dbus_connection_flush(conn);
					dbus_message_unref(r);
				}
				dbus_message_unref(m);
			}
		}
		bench_meet(c);
		close_();
		return;
	}
	for (int i = 0; i < 32; i++) {
		const char *match = "type='signal',interface='leat.Bench'";
		uint64_t start = bench_now();
		DBusMessage *m, *r;
		DBusError e;

		dbus_error_init(&e);
		dbus_bus_add_match(conn, match, &e);
		m = dbus_message_new_method_call(to, "/leat", "leat.Bench", "Get");
		r = dbus_connection_send_with_reply_and_block(conn, m, 5000, &e);
		each[i] = (uint32_t)(bench_now() - start);
		if (!r)
			bench_fail(c, "%s", e.message);
		else
			dbus_message_unref(r);
		dbus_message_unref(m);
		dbus_bus_remove_match(conn, match, NULL);
	}
	bench_quantiles(&c->sh->result, each, 32, 1);
	c->sh->stop = 1;
	bench_meet(c);
	close_();
}

static void reg(struct cell *c, int side)
{
	uint64_t start;
	char name[100];

	if (join(c, side) < 0)
		return;
	bench_meet(c);
	start = bench_now();
	for (int i = 0; i < BENCH_BURST; i++) {
		snprintf(name, sizeof(name), "%s.n%d", mine, i);
		if (dbus_bus_request_name(conn, name, 0, NULL) != DBUS_REQUEST_NAME_REPLY_PRIMARY_OWNER)
			bench_fail(c, "cannot have the name %s", name);
	}
	bench_meet(c);
	bench_registered(c, side, start);
	close_();
}

static void run(struct cell *c, int side)
{
	if (c->work == ATTACH)
		attach(c, side);
	else if (c->work == REGISTER)
		reg(c, side);
	else
		dbus_run(c, side);
}

const struct peer bench_dbus = {.name = "D-Bus", .kind = "peer",
				.works = 1 << PINGPONG | 1 << ONEWAY | 1 << ATTACH | 1 << REGISTER,
				.waits = 1 << SLEEP, .largest = 65536, .prepare = start_bus,
				.run = run};
