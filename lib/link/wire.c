/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder and parser of the wire, and the rule for names. Called by client and broker alike; does no
 * I/O and keeps nothing.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/base.h"
#include "link/wire.h"

static_assert(sizeof(struct leat__wire_head) == 32, "wire 1");
static_assert(sizeof(struct leat__wire_geometry) == 72, "wire 1");
static_assert(sizeof(struct leat__wire_ring) == 16, "wire 1");
static_assert(sizeof(struct leat__wire_channel) == 40, "wire 1");
static_assert(sizeof(struct leat__wire_change) == 24, "wire 1");
static_assert(sizeof(struct leat__wire_peer) == 40, "wire 1");
static_assert(sizeof(struct leat__wire_who) == 56, "wire 1");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire and layout are little-endian");

struct tlv {
	uint16_t tag;
	uint16_t size;
};

static size_t padded(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

void leat__wire_begin(struct leat__out *o, enum leat__type type, uint64_t serial, uint64_t object)
{
	memset(&o->head, 0, sizeof(o->head));
	o->head.magic = LEAT__WIRE_MAGIC;
	o->head.version = LEAT__WIRE_MIN;
	o->head.size = sizeof(o->head);
	o->head.type = (uint16_t)type;
	o->head.serial = serial;
	o->head.object = object;
	o->size = sizeof(o->head);
	o->full = 0;
#ifdef LEAT__NEXT
	leat__wire_u32(o, LEAT__T_LAST + 100, 7); /* what today's do not know they leave alone */
#endif
}

int leat__wire_fits(const struct leat__out *o, size_t size)
{
	return o->size + sizeof(struct tlv) + padded(size) <= sizeof(o->bytes);
}

void leat__wire_bytes(struct leat__out *o, unsigned tag, const void *data, size_t size)
{
	struct tlv t = {(uint16_t)tag, (uint16_t)size};

	if (o->full || !leat__wire_fits(o, size)) {
		o->full = 1;
		return;
	}
	memcpy(o->bytes + o->size, &t, sizeof(t));
	memset(o->bytes + o->size + sizeof(t), 0, padded(size));
	if (size)
		memcpy(o->bytes + o->size + sizeof(t), data, size);
	o->size += sizeof(t) + padded(size);
}

void leat__wire_u32(struct leat__out *o, unsigned tag, uint32_t v)
{
	leat__wire_bytes(o, tag, &v, sizeof(v));
}

void leat__wire_u64(struct leat__out *o, unsigned tag, uint64_t v)
{
	leat__wire_bytes(o, tag, &v, sizeof(v));
}

void leat__wire_text(struct leat__out *o, unsigned tag, const char *text)
{
	leat__wire_bytes(o, tag, text, strlen(text));
}

int leat__wire_end(struct leat__out *o, unsigned fds)
{
	if (o->full)
		return leat__say(-EMSGSIZE, "a message to or from the broker is too long");
	o->head.length = (uint32_t)(o->size - sizeof(o->head));
	o->head.fds = (uint8_t)fds;
	return 0;
}

static int known(unsigned tag)
{
	return tag >= LEAT__T_VERSION_MIN && tag <= LEAT__T_LAST;
}

int leat__wire_parse(struct leat__in *in, const void *packet, size_t size, unsigned fds)
{
	const unsigned char *p = packet;
	size_t at = 0;

	if (size < sizeof(in->head) || size > LEAT__PACKET_MAX)
		return leat__fail(-EBADMSG, "packet of %zu bytes: 32 to %d", size, LEAT__PACKET_MAX);
	memcpy(&in->head, p, sizeof(in->head));
	if (in->head.magic != LEAT__WIRE_MAGIC || in->head.size != sizeof(in->head))
		return leat__say(-EBADMSG, "packet does not begin like one of leat's");
	if (in->head.version < LEAT__WIRE_MIN || in->head.version > LEAT__WIRE_MAX)
		return leat__fail(-EPROTO, "packet of wire version %u: this leat speaks %d",
				  in->head.version, LEAT__WIRE_MAX);
	if (in->head.length != size - sizeof(in->head))
		return leat__say(-EBADMSG, "packet's length field is wrong");
	if (in->head.fds != fds)
		return leat__fail(-EBADMSG, "packet promises %u descriptors and came with %u",
				  in->head.fds, fds);
	in->tlvs = p + sizeof(in->head);
	in->size = in->head.length;
	while (at < in->size) {
		struct tlv t;

		if (in->size - at < sizeof(t))
			return leat__say(-EBADMSG, "packet ends inside a field");
		memcpy(&t, in->tlvs + at, sizeof(t));
		if (padded(t.size) > in->size - at - sizeof(t))
			return leat__say(-EBADMSG, "packet ends inside a field's value");
		if ((t.tag & LEAT__CRITICAL) && !known(t.tag & ~LEAT__CRITICAL))
			return leat__fail(-EPROTO, "packet needs field %u, which this leat does not know",
					  t.tag & ~LEAT__CRITICAL);
		at += sizeof(t) + padded(t.size);
	}
	return 0;
}

const unsigned char *leat__wire_next(const struct leat__in *in, unsigned tag,
				     const unsigned char *at, size_t *size)
{
	const unsigned char *end = in->tlvs + in->size;
	const unsigned char *p = in->tlvs;
	struct tlv t;

	if (at) { /* points at a value: its header lies before it */
		memcpy(&t, at - sizeof(t), sizeof(t));
		p = at + padded(t.size);
	}
	while (p < end) {
		memcpy(&t, p, sizeof(t));
		p += sizeof(t);
		if ((t.tag & ~LEAT__CRITICAL) == tag) {
			*size = t.size;
			return p;
		}
		p += padded(t.size);
	}
	return NULL;
}

int leat__wire_get(const struct leat__in *in, unsigned tag, void *ret, size_t size)
{
	size_t got;
	const unsigned char *p = leat__wire_next(in, tag, NULL, &got);

	if (!p)
		return leat__fail(-ENOENT, "packet of type %u lacks field %u", in->head.type, tag);
	if (got != size)
		return leat__fail(-EBADMSG, "field %u has %zu bytes instead of %zu", tag, got, size);
	memcpy(ret, p, size);
	return 0;
}

int leat__wire_get_text(const struct leat__in *in, unsigned tag, char *ret, size_t size)
{
	size_t got;
	const unsigned char *p = leat__wire_next(in, tag, NULL, &got);

	if (!p)
		return leat__fail(-ENOENT, "packet of type %u lacks field %u", in->head.type, tag);
	if (got >= size || memchr(p, 0, got))
		return leat__fail(-EBADMSG, "field %u: a text of %zu bytes: too long, or with a zero",
				  tag, got);
	memcpy(ret, p, got);
	ret[got] = 0;
	return 0;
}

static struct leat__wire_geometry pack(const struct leat__geometry *g)
{
	return (struct leat__wire_geometry){g->total,      g->page,       g->capacity,  g->data_off,
					    g->block_size, g->blocks_off, g->head_size, g->n_blocks,
					    g->flags,      g->n_rings,    g->n_slots,   0};
}

static struct leat__geometry unpack(const struct leat__wire_geometry *w)
{
	return (struct leat__geometry){w->total,      w->page,       w->capacity,  w->data_off,
				       w->block_size, w->blocks_off, w->head_size, w->n_blocks,
				       w->flags,      w->n_rings,    w->n_slots};
}

void leat__wire_geometry(struct leat__out *o, unsigned tag, const struct leat__geometry *g)
{
	struct leat__wire_geometry w = pack(g);

	leat__wire_bytes(o, tag, &w, sizeof(w));
}

int leat__wire_get_geometry(const struct leat__in *in, unsigned tag, struct leat__geometry *g)
{
	struct leat__wire_geometry w;
	int e = leat__wire_get(in, tag, &w, sizeof(w));

	if (e == 0)
		*g = unpack(&w);
	return e;
}

void leat__wire_brought(struct leat__out *o, const struct leat__wire_brought *facts,
			const struct leat__geometry *g)
{
	struct leat__wire_brought w = *facts;

	w.g = pack(g);
	leat__wire_bytes(o, LEAT__T_BROUGHT, &w, sizeof(w));
}

int leat__wire_find_brought(const struct leat__in *in, uint64_t id, struct leat__wire_brought *ret,
			    struct leat__geometry *g)
{
	const unsigned char *at = NULL;
	int found = -ENOENT, n = 0, k = 0;
	size_t size;

	while ((at = leat__wire_next(in, LEAT__T_BROUGHT, at, &size))) {
		struct leat__wire_brought w;

		if (size != sizeof(w))
			return leat__say(-EBADMSG, "a ring's facts are malformed");
		memcpy(&w, at, sizeof(w));
		if (found < 0 && w.id == id) {
			*ret = w;
			*g = unpack(&w.g);
			found = k;
		}
		k++;
		n++;
	}
	/* The control region's descriptor, where there is one, comes before them. */
	return found < 0 || n > in->head.fds ? -ENOENT : found + in->head.fds - n;
}

static int name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

int leat__name_check(const char *name)
{
	size_t n = name ? strlen(name) : 0;
	int depth = 1;

	if (!n || n > LEAT__NAME_MAX)
		return leat__fail(-EINVAL, "channel name of %zu bytes: 1 to %d", n, LEAT__NAME_MAX);
	for (size_t i = 0; i < n; i++) {
		int first = i == 0 || name[i - 1] == '/';

		if (name[i] == '/' && (first || i + 1 == n))
			return leat__fail(-EINVAL, "channel name '%s': a '/' stands between two parts",
					  name);
		if (name[i] == '/' && ++depth > 8)
			return leat__fail(-EINVAL, "channel name '%s': at most 8 parts", name);
		if (first && name[i] == '.')
			return leat__fail(-EINVAL, "channel name '%s': no part begins with '.'", name);
		if (name[i] != '/' && !name_char(name[i]))
			return leat__fail(-EINVAL, "channel name '%s': letters, digits, '.', '_', '-', "
						   "and '/' between parts",
					  name);
	}
	return 0;
}

int leat__group_check(const char *name)
{
	if (!name || strlen(name) > LEAT__GROUP_NAME || strchr(name, '/') || leat__name_check(name) < 0)
		return leat__fail(-EINVAL, "group name '%s': 1 to %d letters, digits, '.', '_', '-', and no '.' first",
				  name ? name : "", LEAT__GROUP_NAME);
	return 0;
}
