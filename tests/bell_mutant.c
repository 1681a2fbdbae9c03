/* SPDX-License-Identifier: Apache-2.0 */
/* The library's bell without its first, short sleep, under another name: check_sync.c expects it to
 * lose wake-ups. */
#define LEAT__FIRST_SLEEP_NS UINT64_C(0)
#define leat__bell_wait leat__mutant_bell_wait
#define leat__bells_wait leat__mutant_bells_wait
#define leat__bell_late leat__mutant_bell_late
#define leat__bell_wake leat__mutant_bell_wake
#define leat__bell_toll leat__mutant_bell_toll
#define leat__spin_init leat__mutant_spin_init
#define leat_bell_listen leat_mutant_bell_listen
#define leat_bell_wait leat_mutant_bell_wait
#define leat_bell_ring leat_mutant_bell_ring
#include "../lib/sync/bell.c"
