/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_EXPLAIN_H
#define LEATD_EXPLAIN_H
/* leatd --check and --explain: questions to a configuration, without a broker. What to exit with. */
int check_config(const char *path);
/* @words: who, verb, name. */
int explain(const char *path, int json, char **words);
#endif
