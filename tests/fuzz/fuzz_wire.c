/* SPDX-License-Identifier: Apache-2.0 */
/* Packets, as broker and clients read them: what is accepted is inside the packet, and says the same when written again. */
#include <sys/types.h>
#include "base/base.h"
#include "fuzz.h"
#include "link/wire.h"

/* Every field that anybody reads, the way it is read. */
static void read_all(const struct leat__in *in)
{
	char text[LEAT__NAME_MAX + 1], why[512];
	struct leat__wire_brought b;
	struct leat__geometry g;
	uint64_t v64;
	uint32_t v32;

	for (unsigned tag = 0; tag <= LEAT__T_LAST + 1; tag++) {
		const unsigned char *at = NULL;
		size_t size;
		int n = 0;

		while ((at = leat__wire_next(in, tag, at, &size)) && ++n) {
			must(at >= in->tlvs && at + size <= in->tlvs + in->size);
			must(n < LEAT__PACKET_MAX);
		}
		leat__wire_get(in, tag, &v32, sizeof(v32));
		leat__wire_get(in, tag, &v64, sizeof(v64));
		if (leat__wire_get_text(in, tag, text, sizeof(text)) == 0) {
			must(strlen(text) < sizeof(text));
			if (leat__name_check(text) == 0)
				must(*text && !strstr(text, "//") && *text != '/' && *text != '.');
			leat__group_check(text);
		}
		leat__wire_get_text(in, tag, why, sizeof(why));
		if (leat__wire_get_geometry(in, tag, &g) == 0) {
			if (leat__ring_check(&g, g.total) == 0)
				must(g.capacity <= g.total && g.data_off + g.capacity <= g.total && g.head_size <= g.data_off);
			if (leat__ctrl_check(&g, g.total) == 0)
				must(g.head_size + (uint64_t)g.n_rings * g.n_slots * LEAT__LINE <= g.total);
		}
	}
	for (uint64_t id = 0; id < 4; id++)
		leat__wire_find_brought(in, id, &b, &g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct leat__in in, again;
	struct leat__out out;
	const unsigned char *at;
	unsigned fds;

	if (size < 1 || size > LEAT__PACKET_MAX + 1)
		return 0;
	fds = data[0] % (LEAT__FDS_MAX + 1);
	data++;
	size--;
	uint8_t *packet = malloc(size); /* its end is the end of memory that may be read */
	memcpy(packet, data, size);
	if (leat__wire_parse(&in, packet, size, fds) == 0) {
		must(in.tlvs >= packet && in.tlvs + in.size <= packet + size);
		read_all(&in);
		leat__wire_begin(&out, in.head.type, in.head.serial, in.head.object);
		for (unsigned tag = 1; tag <= LEAT__T_LAST; tag++) {
			size_t n;

			at = NULL;
			while ((at = leat__wire_next(&in, tag, at, &n)))
				leat__wire_bytes(&out, tag, at, n);
		}
		if (leat__wire_end(&out, fds) == 0) {
			must(leat__wire_parse(&again, out.bytes, out.size, fds) == 0);
			must(again.head.serial == in.head.serial && again.head.object == in.head.object);
		}
	} else {
		must(*leat_why());
	}
	free(packet);
	return 0;
}
