/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BENCH_ROUDI_H
#define LEAT_BENCH_ROUDI_H
/* Have iceoryx's broker run, until we end. 0, -1. */
struct cell;
int bench_roudi(struct cell *c);
#endif
