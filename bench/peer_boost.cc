/* SPDX-License-Identifier: Apache-2.0 */
/* Boost: the message queue of Interprocess, and Lockfree's single-producer queue put into shared memory,
 * which is filled privately and then copied, as its interface has it. */
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include "bench.h"

namespace bip = boost::interprocess;

namespace {

constexpr int two_sided = 1 << PINGPONG | 1 << ONEWAY;

/* ---- message_queue ---- */
namespace mq {

bip::message_queue *in_q, *out_q;
bool spins;

void names(struct cell *c, char *there, char *back)
{
	std::snprintf(there, 64, "%s-there", c->name);
	std::snprintf(back, 64, "%s-back", c->name);
}

int prepare(struct cell *c)
{
	char there[64], back[64];
	size_t n = c->capacity / c->size < 4 ? 4 : c->capacity / c->size;

	names(c, there, back);
	try {
		bip::message_queue a(bip::create_only, there, n, c->size);
		bip::message_queue b(bip::create_only, back, n, c->size);
	} catch (const std::exception &e) {
		bench_fail(c, "message_queue: %s", e.what());
		return -1;
	}
	return 0;
}

void clean(struct cell *c)
{
	char there[64], back[64];

	names(c, there, back);
	bip::message_queue::remove(there);
	bip::message_queue::remove(back);
}

int open_(struct cell *c, int side)
{
	char there[64], back[64];

	names(c, there, back);
	out_q = new bip::message_queue(bip::open_only, side ? back : there);
	in_q = new bip::message_queue(bip::open_only, side ? there : back);
	spins = c->wait == SPIN;
	return 0;
}

void close_()
{
	delete in_q;
	delete out_q;
}

int send_(const void *data, size_t size)
{
	if (!spins)
		out_q->send(data, size, 0);
	else
		while (!out_q->try_send(data, size, 0))
			bench_pause();
	return 0;
}

int recv_(void *buf, size_t size)
{
	size_t n;
	unsigned priority;

	if (!spins)
		in_q->receive(buf, size, n, priority);
	else
		while (!in_q->try_receive(buf, size, n, priority))
			bench_pause();
	return static_cast<int>(n);
}

#define LOOP(x) mq_##x
#include "loops.h"
#undef LOOP

} // namespace mq

/* ---- spsc_queue ---- */

template <size_t size, size_t slots> struct spsc {
	struct item {
		alignas(8) unsigned char bytes[size];
	};
	typedef boost::lockfree::spsc_queue<item, boost::lockfree::capacity<slots>> queue;
	static queue *in_q, *out_q;

	static int prepare(struct cell *c)
	{
		new (c->memory) queue;
		new (c->memory + c->memory_size / 2) queue;
		return 0;
	}
	static int open_(struct cell *c, int side)
	{
		queue *a = reinterpret_cast<queue *>(c->memory);
		queue *b = reinterpret_cast<queue *>(c->memory + c->memory_size / 2);

		out_q = side ? b : a;
		in_q = side ? a : b;
		return 0;
	}
	static void close_()
	{
	}
	static inline int send_(const void *data, size_t)
	{
		while (!out_q->push(*static_cast<const item *>(data)))
			bench_pause();
		return 0;
	}
	static inline int recv_(void *buf, size_t n)
	{
		while (!in_q->pop(*static_cast<item *>(buf)))
			bench_pause();
		return static_cast<int>(n);
	}
#define LOOP(x) spsc_##x
#include "loops.h"
#undef LOOP
};
template <size_t size, size_t slots> typename spsc<size, slots>::queue *spsc<size, slots>::in_q;
template <size_t size, size_t slots> typename spsc<size, slots>::queue *spsc<size, slots>::out_q;

typedef spsc<8, 65536> s8;
typedef spsc<64, 14563> s64;
typedef spsc<256, 3971> s256;
typedef spsc<1024, 1016> s1k;
typedef spsc<65536, 15> s64k;
typedef spsc<1048576, 4> s1m;

#define BY_SIZE(call)                                                                              \
	switch (c->size) {                                                                         \
	case 8: return s8::call;                                                                   \
	case 64: return s64::call;                                                                 \
	case 256: return s256::call;                                                               \
	case 1024: return s1k::call;                                                               \
	case 65536: return s64k::call;                                                             \
	case 1048576: return s1m::call;                                                            \
	}

int spsc_prepare(struct cell *c)
{
	BY_SIZE(prepare(c));
	return -1;
}

void spsc_run(struct cell *c, int side)
{
	BY_SIZE(spsc_run(c, side));
}

struct peer peer_of(const char *name, int waits, size_t largest, int (*prepare)(struct cell *),
		    void (*run)(struct cell *, int), void (*clean)(struct cell *))
{
	struct peer p = peer();

	p.name = name;
	p.kind = "peer";
	p.works = two_sided;
	p.waits = waits;
	p.largest = largest;
	p.prepare = prepare;
	p.run = run;
	p.clean = clean;
	return p;
}

} // namespace

extern "C" {
extern const struct peer bench_boost_mq, bench_boost_spsc;
const struct peer bench_boost_mq = peer_of("boost message_queue", 1 << SPIN | 1 << SLEEP, 1048576, mq::prepare,
					   mq::mq_run, mq::clean);
const struct peer bench_boost_spsc = peer_of("boost spsc_queue", 1 << SPIN, 1048576, spsc_prepare, spsc_run,
					     nullptr);
}
