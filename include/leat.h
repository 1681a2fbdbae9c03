/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_H
#define LEAT_H
/*
 * leat: messages between processes through shared memory. Everything public, one header per noun.
 * Manual: leat(7).
 */
#include <leat/base.h>
#include <leat/channel.h>
#include <leat/queue.h>
#include <leat/region.h>
#include <leat/ring.h>
#include <leat/rpc.h>
#include <leat/set.h>
#include <leat/share.h>
#include <leat/sync.h>
#include <leat/watch.h>
#endif
