/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RING_H
#define LEAT_RING_H
/*
 * Rings by hand: the ring buffer of a channel in any region, without a broker. What comes back are
 * the same publisher and subscriber handles as leat/channel.h gives, with the same verbs.
 * Manual: leat_ring_create(3).
 */
#include <leat/channel.h>
#include <leat/region.h>

LEAT_BEGIN_DECLS

/*
 * Bytes that leat_ring_create() needs with @opts (NULL: defaults): @ret_data in the data region and
 * @ret_control in the control region, or their sum in one region. -EINVAL.
 */
LEAT_API int leat_ring_plan(const struct leat_pub_opts *opts, uint64_t *ret_data,
			    uint64_t *ret_control);

/*
 * Make a new ring at the beginning of @data and become its one writer. Readers need @control (NULL:
 * it follows the ring in @data) read-write and @data read-only. Both are borrowed until close.
 * -EBUSY it has a living writer, -ENOSPC too small, -EROFS mapped read-only, -EINVAL.
 */
LEAT_API int leat_ring_create(struct leat_region *data, struct leat_region *control,
			      const struct leat_pub_opts *opts, struct leat_pub **ret);

/*
 * Read the ring at the beginning of @data. With @control NULL and @data read-only the reader
 * observes (post mortem, a flight recorder). Both are borrowed until close.
 * -EPROTO another layout, -EBADMSG damaged or not a ring, -EUSERS no reader slot free.
 */
LEAT_API int leat_ring_open(struct leat_region *data, struct leat_region *control,
			    const struct leat_sub_opts *opts, struct leat_sub **ret);

LEAT_END_DECLS
#endif
