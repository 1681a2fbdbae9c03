/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file in the page cache, in records, from one end towards the other: write and read, stdio with a
 * buffer of 64 KiB, a plain mapping, and leat's file region: as it is opened, and one that is kept and
 * gone over again, as a flight recorder does, which is what mapping is for. Opening and closing count (but
 * not for what is kept); so does every byte written or summed. A cell ends after its time or at the file's end.
 * Populating windows of it ahead (MADV_POPULATE) was tried: 0.6 times as fast as letting pages fault.
 */
#include <fcntl.h>
#include <leat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench.h"
#include "rows.h"

#define WHOLE  (UINT64_C(2) << 30)
#define NEW    (UINT64_C(256) << 20)
#define KEPT   (UINT64_C(64) << 20)

static char path[160];
static unsigned char record[65536];
static volatile uint64_t sink;

/* The file that is read and overwritten: made once for the whole run, all of it in the page cache. */
static int prepare(struct cell *c)
{
	static unsigned char block[1 << 20];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", c->dir, c->variant == FILE_NEW ? "new" : "file");
	if (c->variant == FILE_NEW) {
		unlink(path);
		return 0;
	}
	if (stat(path, &st) == 0)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (uint64_t at = 0; fd >= 0 && at < WHOLE; at += sizeof(block)) {
		bench_fill(block, sizeof(block), at);
		if (write(fd, block, sizeof(block)) != sizeof(block)) {
			bench_fail(c, "write %s", path);
			break;
		}
	}
	if (fd >= 0)
		fsync(fd); /* what is written back later would be in the way */
	close(fd);
	return 0;
}

static void clean(struct cell *c)
{
	if (c->variant == FILE_NEW)
		unlink(path);
}

static uint64_t size_of(const struct cell *c)
{
	return c->variant == FILE_NEW ? NEW : WHOLE;
}

/* Is the time over? Looked at once in a megabyte. */
static int over(const struct cell *c, uint64_t at, uint64_t start)
{
	return at % (1 << 20) == 0 && bench_now() - start > 4 * (uint64_t)c->span_ns &&
	       (at >= 4 << 20 || bench_now() - start > 2000000000u);
}

static void done(struct cell *c, uint64_t bytes, uint64_t start)
{
	c->sh->result.count = bytes;
	c->sh->result.ns = (double)(bench_now() - start) / ((double)bytes / (double)c->size);
	c->sh->result.extra[0] = (double)bytes / (double)(bench_now() - start) * 1e3; /* MB/s */
}

static void by_write(struct cell *c, int side)
{
	uint64_t start = bench_now(), at = 0, sum = 0;
	int fd = open(path, (c->variant == FILE_READ ? O_RDONLY : O_RDWR) | O_CREAT | O_CLOEXEC, 0600);

	(void)side;
	for (; at < size_of(c) && !over(c, at, start); at += c->size) {
		if (c->variant == FILE_READ) {
			if (read(fd, record, c->size) != (ssize_t)c->size)
				bench_fail(c, "short read");
			sum += bench_sum(record, c->size);
		} else {
			bench_fill(record, c->size, at);
			if (write(fd, record, c->size) != (ssize_t)c->size)
				bench_fail(c, "short write");
		}
	}
	sink = sum;
	close(fd);
	done(c, at, start);
}

static void by_stdio(struct cell *c, int side)
{
	static char buffer[65536];
	uint64_t start = bench_now(), at = 0, sum = 0;
	FILE *f = fopen(path, c->variant == FILE_READ ? "re" : c->variant == FILE_NEW ? "we" : "r+e");

	(void)side;
	if (!f) {
		bench_fail(c, "open %s", path);
		return;
	}
	setvbuf(f, buffer, _IOFBF, sizeof(buffer));
	for (; at < size_of(c) && !over(c, at, start); at += c->size) {
		if (c->variant == FILE_READ) {
			if (fread_unlocked(record, 1, c->size, f) != c->size)
				bench_fail(c, "short read");
			sum += bench_sum(record, c->size);
		} else {
			bench_fill(record, c->size, at);
			if (fwrite_unlocked(record, 1, c->size, f) != c->size)
				bench_fail(c, "short write");
		}
	}
	sink = sum;
	fclose(f);
	done(c, at, start);
}

static uint64_t walk(struct cell *c, unsigned char *p, uint64_t wrap, uint64_t start)
{
	uint64_t at = 0, sum = 0;

	for (; at < size_of(c) && !over(c, at, start); at += c->size) {
		if (c->variant == FILE_READ)
			sum += bench_sum(p + at % wrap, c->size);
		else
			bench_fill(p + at % wrap, c->size, at);
	}
	sink = sum;
	return at;
}

static void by_mmap(struct cell *c, int side)
{
	uint64_t start = bench_now(), at;
	int fd = open(path, (c->variant == FILE_READ ? O_RDONLY : O_RDWR) | O_CREAT | O_CLOEXEC, 0600);
	unsigned char *p;

	(void)side;
	if (c->variant == FILE_NEW && ftruncate(fd, NEW) < 0)
		bench_fail(c, "ftruncate");
	p = mmap(NULL, size_of(c), PROT_READ | (c->variant == FILE_READ ? 0 : PROT_WRITE), MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		bench_fail(c, "mmap");
		return;
	}
	at = walk(c, p, size_of(c), start);
	munmap(p, size_of(c));
	close(fd);
	done(c, at, start);
}

static void leat_region(struct cell *c, int keep)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_FILE, .name = path,
				     .size = size_of(c), .flags = c->variant == FILE_READ ? LEAT_RDONLY : 0};
	uint64_t start = bench_now(), at;
	struct leat_region *r;

	if ((c->variant == FILE_NEW ? leat_region_create(&o, &r) : leat_region_open(&o, &r)) < 0) {
		bench_fail(c, "%s", leat_why());
		return;
	}
	if (keep) {
		for (uint64_t i = 0; i < KEPT; i += c->size)
			if (c->variant == FILE_READ)
				sink += bench_sum((unsigned char *)leat_region_addr(r) + i, c->size);
			else
				bench_fill((unsigned char *)leat_region_addr(r) + i, c->size, i);
		start = bench_now();
	}
	at = walk(c, leat_region_addr(r), keep ? KEPT : size_of(c), start);
	if (keep)
		done(c, at, start);
	leat_region_close(r);
	if (!keep)
		done(c, at, start);
}

static void by_leat(struct cell *c, int side)
{
	(void)side;
	leat_region(c, 0);
}

static void by_leat_kept(struct cell *c, int side)
{
	(void)side;
	leat_region(c, 1);
}

#define FILE_PEER(symbol, label, what, function)                                                   \
	const struct peer symbol = {.name = label, .kind = what, .works = 1 << FILES, .waits = 1 << SPIN,  \
				    .prepare = prepare, .run = function, .clean = clean}

FILE_PEER(bench_file_leat, "leat file region", "leat", by_leat);
FILE_PEER(bench_file_kept, "leat file region, kept", "leat", by_leat_kept);
FILE_PEER(bench_file_write, "write/read", "peer", by_write);
FILE_PEER(bench_file_stdio, "stdio", "peer", by_stdio);
FILE_PEER(bench_file_mmap, "plain mapping", "peer", by_mmap);
