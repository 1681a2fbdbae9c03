/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_FUZZ_H
#define LEAT_FUZZ_H
/* What the fuzzing targets share: taking numbers from the input, and ending when something must not be. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input; beyond its end there are zeroes. */
struct input {
	const uint8_t *at, *end;
};

static inline uint8_t next8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline uint64_t next64(struct input *in)
{
	uint64_t v = 0;
	size_t n = (size_t)(in->end - in->at) < 8 ? (size_t)(in->end - in->at) : 8;

	memcpy(&v, in->at, n);
	in->at += n;
	return v;
}

#define must(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);         \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
