/* SPDX-License-Identifier: Apache-2.0 */
/* Every row of the tables, and every peer, in the order they are run. */
#include "rows.h"

#define KIB 1024
#define MIB (1024 * 1024)

#define PP(label, size, quick)                                                                     \
	{"ping-pong " label ", spinning", "pingpong", PINGPONG, SPIN, size, 0, 2, 0, quick, 0, NULL},      \
	{"ping-pong " label ", default", "pingpong", PINGPONG, DEFAULT, size, 0, 2, 0, quick, 0, "line,leat"}, \
	{"ping-pong " label ", sleeping", "pingpong", PINGPONG, SLEEP, size, 0, 2, 0, quick, 0, NULL}
#define OW(label, size, capacity, quick)                                                           \
	{"one-way " label, "oneway", ONEWAY, SPIN, size, capacity, 2, 0, quick, 0, NULL}

#define FILES3(label, size, quick)                                                                 \
	{"new file, records of " label, "files", FILES, SPIN, size, 0, 1, FILE_NEW, quick, 0, NULL},       \
	{"overwriting, records of " label, "files", FILES, SPIN, size, 0, 1, FILE_OVER, quick, 0, NULL},   \
	{"reading, records of " label, "files", FILES, SPIN, size, 0, 1, FILE_READ, quick, 0, NULL}
#define FAN(n, quick)                                                                              \
	{"1 to " #n, "fanout", FANOUT, SPIN, 64, 16 * MIB, 1 + (n), 0, quick, 0, NULL}

const struct row bench_rows[] = {
	PP("64 B", 64, 1),
	PP("8 B", 8, 0),
	PP("1 KiB", KIB, 0),
	PP("64 KiB", 64 * KIB, 0),
	OW("64 B", 64, 0, 1),
	OW("8 B", 8, 0, 0),
	OW("256 B", 256, 0, 0),
	OW("1 KiB", KIB, 0, 1),
	OW("64 KiB", 64 * KIB, 0, 1),
	OW("1 MiB", MIB, 0, 1),
	OW("12.4 MB", 12441600, 0, 0),
	{"wake-up of a sleeper, 64 B", "pingpong", PINGPONG, SLEEP, 64, 0, 2, 40000, 0, 0, NULL},
	{"publish 64 B with nobody listening", "nobody", NOBODY, SPIN, 64, 0, 1, 0, 1, 0, NULL},
	{"ping-pong 64 B, spinning, unpinned", "pingpong", PINGPONG, SPIN, 64, 0, 2, 0, 0, 1, NULL},
	{"one-way 64 B, unpinned", "oneway", ONEWAY, SPIN, 64, 0, 2, 0, 0, 1, NULL},
	FAN(1, 1), FAN(2, 0), FAN(8, 0), FAN(64, 0), FAN(200, 1),
	{"2 publishers to 1", "fanin", FANIN, SPIN, 64, 0, 3, 0, 0, 0, NULL},
	{"4 publishers to 1", "fanin", FANIN, SPIN, 64, 0, 5, 0, 0, 0, NULL},
	{"8 publishers to 1", "fanin", FANIN, SPIN, 64, 0, 9, 0, 0, 0, NULL},
	{"work queue, 64 B, 1 worker", "queue", QUEUE, SPIN, 64, MIB, 2, 0, 1, 0, NULL},
	{"work queue, 64 B, 4 workers", "queue", QUEUE, SPIN, 64, MIB, 5, 0, 0, 1, NULL},
	{"work queue, jobs of 10 us, 1 worker", "queue", QUEUE, DEFAULT, 64, MIB, 2, 10000, 0, 1, NULL},
	{"work queue, jobs of 10 us, 2 workers", "queue", QUEUE, DEFAULT, 64, MIB, 3, 10000, 0, 1, NULL},
	{"call 64 B, spinning", "rpc", RPC, SPIN, 64, 0, 2, 0, 1, 0, NULL},
	{"call 64 B, sleeping", "rpc", RPC, SLEEP, 64, 0, 2, 0, 0, 0, NULL},
	{"call 4 KiB, spinning", "rpc", RPC, SPIN, 4096, 0, 2, 0, 0, 0, NULL},
	{"call 64 B, 32 clients", "rpc", RPC, DEFAULT, 64, 0, 33, 0, 0, 0, NULL},
	{"woken in leat_recv", "sets", SETS, DEFAULT, 64, 0, 2, 0, 0, 0, NULL},
	{"woken in a set of 8", "sets", SETS, DEFAULT, 64, 0, 2, 8, 0, 0, NULL},
	{"woken in a set of 8 and a descriptor", "sets", SETS, DEFAULT, 64, 0, 2, -8, 0, 0, NULL},
	{"woken in a set of 1000", "sets", SETS, DEFAULT, 64, 0, 2, 1000, 0, 0, NULL},
	{"a name comes: to who watches", "names", NAMES, DEFAULT, 64, 0, 2, 0, 0, 0, NULL},
	{"a name comes, 6 others open and close channels", "names", NAMES, DEFAULT, 64, 0, 8, 0, 0, 1, NULL},
	{"overwrite, 2 observers", "overwrite", OVERWRITE, SPIN, 64, 65536, 3, 0, 0, 0, NULL},
	{"latest 64 B, unchanged", "latest", LATEST, SPIN, 64, 0, 2, 0, 1, 0, NULL},
	{"latest 64 B, changed", "latest", LATEST, SPIN, 64, 0, 2, 1, 1, 0, NULL},
	{"attach, domain open", "attach", ATTACH, SPIN, 64, 0, 2, 0, 1, 0, NULL},
	{"attach, domain not open", "attach", ATTACH, SPIN, 64, 0, 2, 1, 0, 0, "leat"},
	{"attach, a program from start to end", "attach", ATTACH, SPIN, 64, 0, 2, 2, 0, 0, "leat"},
	{"attach, 6 others open and close channels", "attach", ATTACH, SPIN, 64, 0, 8, 0, 0, 1, "leat"},
	{"open a new channel", "attach", ATTACH, SPIN, 64, 0, 2, 3, 0, 0, "leat"},
	{"open a new channel, 6 others do, too", "attach", ATTACH, SPIN, 64, 0, 8, 3, 0, 1, "leat"},
	{"registrations, 64 clients", "register", REGISTER, SPIN, 64, 0, 64, 0, 1, 1, NULL},
	{"video: 4K at 60 Hz to 4", "loads", WORKLOAD, DEFAULT, 12441600, 0, 5, LOAD_VIDEO, 0, 0, NULL},
	{"ticks: 64-256 B to 8", "loads", WORKLOAD, DEFAULT, 256, 0, 9, LOAD_TICKS, 0, 0, NULL},
	{"log: 16 programs", "loads", WORKLOAD, DEFAULT, 500, 0, 17, LOAD_LOG, 0, 0, NULL},
	{"state: 500 topics", "loads", WORKLOAD, DEFAULT, 64, 0, 2, LOAD_STATE, 0, 0, NULL},
	{"tensors: 100 MB kept", "loads", WORKLOAD, SPIN, 100000000, 0, 2, LOAD_TENSORS, 0, 0, NULL},
	FILES3("64 B", 64, 0), FILES3("512 B", 512, 0), FILES3("4 KiB", 4096, 1), FILES3("64 KiB", 65536, 0),
	{"memory", "memory", WORKLOAD, DEFAULT, 64, 0, 1, LOAD_MEMORY, 1, 0, NULL},
	{0},
};

#define PEER(name) extern const struct peer name
PEER(bench_line);
PEER(bench_hand);
PEER(bench_futex);
PEER(bench_memcpy);
PEER(bench_leat);
PEER(bench_leat_in_place);
PEER(bench_leat_batched);
PEER(bench_fanout);
PEER(bench_fanin);
PEER(bench_queue);
PEER(bench_rpc);
PEER(bench_sets);
PEER(bench_names);
PEER(bench_overwrite);
PEER(bench_latest);
PEER(bench_attach);
PEER(bench_register);
PEER(bench_loads);
PEER(bench_file_write);
PEER(bench_file_stdio);
PEER(bench_file_mmap);
PEER(bench_file_leat);
PEER(bench_file_kept);
PEER(bench_pipe);
PEER(bench_stream);
PEER(bench_seqpacket);
PEER(bench_mq);
PEER(bench_sysv);
PEER(bench_boost_mq);
PEER(bench_boost_spsc);
PEER(bench_ck);
PEER(bench_qb);
PEER(bench_zmq);
PEER(bench_nng);
PEER(bench_iceoryx);
PEER(bench_iceoryx_more);
PEER(bench_dbus);

const struct peer *const bench_peers[] = {
	&bench_line, &bench_hand, &bench_futex, &bench_memcpy,
	&bench_leat, &bench_leat_in_place, &bench_leat_batched,
	&bench_fanout, &bench_fanin, &bench_queue, &bench_rpc, &bench_sets, &bench_names, &bench_overwrite, &bench_latest, &bench_attach, &bench_register, &bench_loads,
	&bench_file_leat, &bench_file_kept, &bench_file_write, &bench_file_stdio, &bench_file_mmap,
	&bench_pipe, &bench_stream, &bench_seqpacket, &bench_mq, &bench_sysv,
	&bench_boost_mq, &bench_boost_spsc, &bench_ck, &bench_qb, &bench_zmq, &bench_nng, &bench_iceoryx,
	&bench_iceoryx_more, &bench_dbus,
	0,
};
