/* SPDX-License-Identifier: Apache-2.0 */
/* leatd.conf and a file of policy.d, of any bytes: understood or refused, and nobody gets what only rules would give. */
#include "base/base.h"
#include "fuzz.h"
#include "link/wire.h"
#include "policy.h"

static const char *const names[] = {"a", "camera", "camera/x", "u/7/x", "u/8/x"};

/* What @text makes of it; NULL: it is refused. */
static struct config *parse(const uint8_t *conf, size_t conf_size, const uint8_t *dropin, size_t size)
{
	char *text = malloc(conf_size + size + 200);
	struct config *c = NULL;
	int n = sprintf(text, "%zu\t\tleatd.conf\n", conf_size), e;

	memcpy(text + n, conf, conf_size);
	n += (int)conf_size;
	n += sprintf(text + n, "%zu\tcamera\tpolicy.d/camera.conf\n", size);
	memcpy(text + n, dropin, size);
	e = config_parse(text, (size_t)n + size, &c);
	must(e == 0 ? !config_fault(c, 0) : e == 1 ? config_fault(c, 0) != NULL : e < 0 && leat_why()[0]);
	free(text);
	return e < 0 ? NULL : c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t cut = size ? data[0] * (size - 1) / 255 : 0;
	static const gid_t groups[] = {3, 7};
	static const struct ticket ticket = {.sealed = 1, .good = 1, .expires = UINT64_MAX, .verbs = 1u << V_PUBLISH, .prefix = "camera"};
	const struct person who = {.uid = 7, .gid = 7}, root = {.uid = 0, .gid = 0};
	const struct person guest = {.uid = 9, .gid = 9, .groups = groups, .n_groups = 2, .tickets = &ticket, .n_tickets = 1};
	struct config *c;

	if (!size)
		return 0;
	c = parse(data + 1, cut, data + 1 + cut, size - 1 - cut);
	for (unsigned i = 0; c && i < sizeof(names) / sizeof(names[0]); i++) {
		int sees = 0, guest_sees = 0;

		for (unsigned v = 0; v < VERBS; v++) {
			struct ruling why;
			int may = policy_may(c, 1, &who, v, names[i], &why);

			must(why.what && policy_may(c, 1, &root, v, names[i], NULL));
			must(!may || i == 3 || (why.file && why.line));
			must(!config_fault(c, 0) || !may || i == 3 || strcmp(why.file, "policy.d/camera.conf") != 0);
			sees |= may && v != V_CREATE;
			may = policy_may(c, 1, &guest, v, names[i], &why);
			must(!may || (why.file && why.line));
			guest_sees |= may && v != V_CREATE;
		}
		must(policy_sees(c, 1, &who, names[i]) == sees && policy_sees(c, 1, &guest, names[i]) == guest_sees);
	}
	for (unsigned q = 0; c && q <= LEAT__QUOTAS; q++)
		config_limit(c, 1, 7, q);
	must(!c || ((config_linger(c) == -1 || config_linger(c) >= 0) && (!config_keys(c) || *config_keys(c) == '/')));
	config_free(c);
	/* The text as it was kept, of any bytes. */
	if (config_parse((const char *)data, size, &c) >= 0)
		config_free(c);
	return 0;
}
