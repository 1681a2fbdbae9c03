/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_FACTS_H
#define LEAT_FACTS_H
/* Facts as JSON, for the commands that tell them. */
#include <jansson.h>
#include <leat.h>

json_t *cli_channel_json(const struct leat_stat *st);
json_t *cli_peer_json(const struct leat_peer *p);
/* On standard output; takes @j. The exit code. */
int cli_print_json(json_t *j);

#endif
