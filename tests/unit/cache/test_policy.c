/* SPDX-License-Identifier: Apache-2.0
 *
 * Each policy beside a model that is slow, plain and written from the paper: the same random uses, evictions, parkings and
 * returns, and after each of them the same next victim.
 */
#include "check.h"

#include <stdlib.h>

#include <tyer/actor.h>

#include "cache/ghosts.h"
#include "cache/policy.h"

enum { IDS = 200, STEPS = 4000, SEEDS = 40 };

static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
	return (uint32_t)(next_random(&random_state) % below);
}

/* ---- lists of ids, oldest first ---- */

struct list {
	uint32_t count;
	uint32_t ids[IDS * 2];
};

static void list_insert(struct list *l, uint32_t at, uint32_t id)
{
	memmove(l->ids + at + 1, l->ids + at, (l->count - at) * sizeof l->ids[0]);
	l->ids[at] = id;
	l->count++;
}

static void list_add(struct list *l, uint32_t id)
{
	list_insert(l, l->count, id);
}

static bool list_take(struct list *l, uint32_t id)
{
	for (uint32_t i = 0; i < l->count; i++) {
		if (l->ids[i] != id)
			continue;
		memmove(l->ids + i, l->ids + i + 1, (--l->count - i) * sizeof l->ids[0]);
		return true;
	}
	return false;
}

/* ---- the models: what is in, in lists; what is known of what is out, in `kind` ---- */

struct model {
	struct list in[2], ghosts[2];
	uint32_t kind[IDS], uses[IDS]; /* of an id that is here */
	uint64_t target;
};

struct model_class {
	const struct ty_policy_class *cls;
	void (*enter)(struct model *m, uint32_t id);
	void (*reenter)(struct model *m, uint32_t id, enum ty_reentry how);
	void (*touch)(struct model *m, uint32_t id);
	void (*evicted)(struct model *m, uint32_t id);
	int64_t (*victim)(struct model *m); /* -1: none */
};

static void put(struct model *m, uint32_t id, uint32_t kind, bool oldest)
{
	m->kind[id] = kind;
	list_insert(&m->in[kind], oldest ? 0 : m->in[kind].count, id);
}

static void leave(struct model *m, uint32_t id)
{
	assert_true(list_take(&m->in[m->kind[id]], id));
}

static void lru_enter(struct model *m, uint32_t id)
{
	put(m, id, 0, false);
}

static void lru_reenter(struct model *m, uint32_t id, enum ty_reentry how)
{
	put(m, id, 0, how == TY_REENTER_OLD);
}

static void lru_touch(struct model *m, uint32_t id)
{
	leave(m, id);
	put(m, id, 0, false);
}

static void lru_evicted(struct model *m, uint32_t id)
{
	(void)m;
	(void)id;
}

static int64_t lru_victim(struct model *m)
{
	return m->in[0].count ? (int64_t)m->in[0].ids[0] : -1;
}

static void arc_enter(struct model *m, uint32_t id)
{
	uint64_t size = m->in[0].count + m->in[1].count, b1 = m->ghosts[0].count, b2 = m->ghosts[1].count;

	if (list_take(&m->ghosts[0], id)) {
		m->target += b2 > b1 ? b2 / b1 : 1;
		if (m->target > size)
			m->target = size;
		put(m, id, 1, false);
	} else if (list_take(&m->ghosts[1], id)) {
		uint64_t by = b1 > b2 ? b1 / b2 : 1;

		m->target = by > m->target ? 0 : m->target - by;
		put(m, id, 1, false);
	} else {
		put(m, id, 0, false);
	}
}

static void arc_reenter(struct model *m, uint32_t id, enum ty_reentry how)
{
	put(m, id, how == TY_REENTER_USED ? 1 : m->kind[id], how == TY_REENTER_OLD);
}

static void arc_touch(struct model *m, uint32_t id)
{
	leave(m, id);
	put(m, id, 1, false);
}

static void arc_evicted(struct model *m, uint32_t id)
{
	uint32_t size = m->in[0].count + m->in[1].count + 1;

	list_add(&m->ghosts[m->kind[id]], id);
	while (m->ghosts[0].count && m->in[0].count + m->ghosts[0].count > size)
		list_take(&m->ghosts[0], m->ghosts[0].ids[0]);
	while (m->ghosts[0].count + m->ghosts[1].count > size) {
		struct list *l = &m->ghosts[m->ghosts[1].count ? 1 : 0];

		list_take(l, l->ids[0]);
	}
}

static int64_t arc_victim(struct model *m)
{
	if (m->in[0].count > m->target || (m->in[0].count && !m->in[1].count))
		return m->in[0].ids[0];
	return m->in[1].count ? (int64_t)m->in[1].ids[0] : -1;
}

static void fifo_enter(struct model *m, uint32_t id)
{
	m->uses[id] = 0;
	put(m, id, list_take(&m->ghosts[0], id), false);
}

static void fifo_touch(struct model *m, uint32_t id)
{
	m->uses[id] += m->uses[id] < 3;
}

static void fifo_reenter(struct model *m, uint32_t id, enum ty_reentry how)
{
	if (how == TY_REENTER_USED)
		fifo_touch(m, id);
	put(m, id, m->kind[id], how == TY_REENTER_OLD);
}

static void fifo_evicted(struct model *m, uint32_t id)
{
	if (m->kind[id] == 0)
		list_add(&m->ghosts[0], id);
	while (m->ghosts[0].count > m->in[0].count + m->in[1].count + 1)
		list_take(&m->ghosts[0], m->ghosts[0].ids[0]);
}

static int64_t fifo_victim(struct model *m)
{
	while (m->in[0].count + m->in[1].count) {
		uint32_t all = m->in[0].count + m->in[1].count;
		uint32_t queue = m->in[0].count * 10 >= all || !m->in[1].count ? 0 : 1, id = m->in[queue].ids[0];

		if (!m->uses[id])
			return id;
		leave(m, id);
		m->uses[id] = queue ? m->uses[id] - 1 : 0;
		put(m, id, 1, false);
	}
	return -1;
}

static const struct model_class models[] = {
	{&ty_policy_lru, lru_enter, lru_reenter, lru_touch, lru_evicted, lru_victim},
	{&ty_policy_arc, arc_enter, arc_reenter, arc_touch, arc_evicted, arc_victim},
	{&ty_policy_s3fifo, fifo_enter, fifo_reenter, fifo_touch, fifo_evicted, fifo_victim},
};

/* ---- both at once ---- */

enum where { NOWHERE, IN, OUT };

static struct world {
	const struct model_class *cls;
	struct model model;
	struct ty_policy *policy;
	struct ty_entry entries[IDS];
	enum where where[IDS];
	uint32_t here, size;
} w;

static void same_victim(void)
{
	int64_t want = w.cls->victim(&w.model);
	struct ty_entry *entry = w.cls->cls->victim(w.policy);

	if (want < 0)
		assert_null(entry);
	else
		assert_ptr_equal(entry, &w.entries[want]);
}

static void evict(uint32_t id)
{
	leave(&w.model, id);
	w.cls->evicted(&w.model, id);
	w.cls->cls->leave(w.policy, &w.entries[id]);
	w.cls->cls->evicted(w.policy, &w.entries[id], id);
	w.where[id] = NOWHERE;
	w.here--;
}

/* A use, as a cache of `size` entries sees one. */
static void use(uint32_t id)
{
	switch (w.where[id]) {
	case IN:
		w.cls->touch(&w.model, id);
		w.cls->cls->touch(w.policy, &w.entries[id]);
		break;
	case OUT:
		w.cls->reenter(&w.model, id, TY_REENTER_USED);
		w.cls->cls->reenter(w.policy, &w.entries[id], TY_REENTER_USED);
		break;
	case NOWHERE:
		while (w.here >= w.size) {
			int64_t victim = w.cls->victim(&w.model);

			if (victim < 0)
				return; /* all are out */
			evict((uint32_t)victim);
		}
		w.entries[id] = (struct ty_entry){0};
		w.cls->enter(&w.model, id);
		w.cls->cls->enter(w.policy, &w.entries[id], id);
		w.here++;
		break;
	}
	w.where[id] = IN;
}

static void out_or_back(uint32_t id)
{
	enum ty_reentry how = rnd(2) ? TY_REENTER_YOUNG : TY_REENTER_OLD;

	if (w.where[id] == IN) {
		leave(&w.model, id);
		w.cls->cls->leave(w.policy, &w.entries[id]);
		w.where[id] = OUT;
	} else if (w.where[id] == OUT) {
		w.cls->reenter(&w.model, id, how);
		w.cls->cls->reenter(w.policy, &w.entries[id], how);
		w.where[id] = IN;
	}
}

static void run(const struct model_class *cls, uint64_t seed)
{
	uint64_t bytes;

	random_state = seed;
	memset(&w, 0, sizeof w);
	w.cls = cls;
	w.policy = cls->cls->create();
	w.size = 1 + rnd(IDS / 2);
	for (uint32_t step = 0; step < STEPS; step++) {
		uint32_t hot = rnd(IDS / 4), id = rnd(3) ? hot : rnd(IDS);

		if (rnd(8))
			use(id);
		else
			out_or_back(rnd(IDS));
		same_victim();
	}
	bytes = cls->cls->bytes(w.policy);
	assert_true(bytes < 1024 + 1024 * 28); /* a thousand ghosts' room at most, for fewer than IDS */
	for (uint32_t id = 0; id < IDS; id++)
		if (w.where[id] == OUT)
			out_or_back(id);
	while (w.here) { /* what is left goes in the same order */
		same_victim();
		evict((uint32_t)w.cls->victim(&w.model));
	}
	same_victim();
	cls->cls->destroy(w.policy);
}

static void test_policies_beside_models(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
		for (uint64_t seed = 1; seed <= SEEDS; seed++)
			run(&models[i], seed);
}

static void test_names(void **state)
{
	(void)state;
	assert_ptr_equal(ty_policies[0], &ty_policy_arc);
	for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
		assert_ptr_equal(ty_policy_find(models[i].cls->name), models[i].cls);
	assert_null(ty_policy_find("random"));
	assert_null(ty_policy_find(""));
}

/* A scan of entries that are never used again costs ARC and S3-FIFO little, and LRU everything. */
static uint32_t hits_after_scan(const struct ty_policy_class *cls)
{
	struct ty_policy *policy = cls->create();
	static struct ty_entry entries[4000];
	static bool here[4000];
	uint32_t count = 0, hits = 0;

	memset(entries, 0, sizeof entries);
	memset(here, 0, sizeof here);
	for (uint32_t step = 0; step < 6000; step++) {
		/* the hot ones five times over, then a scan, then the hot ones again */
		uint32_t id = step < 250 ? step % 50 : step < 5950 ? 50 + step % 3900 : step % 50;

		if (here[id]) {
			cls->touch(policy, &entries[id]);
			hits += step >= 5950;
			continue;
		}
		if (count == 100) {
			struct ty_entry *victim = cls->victim(policy);

			cls->leave(policy, victim);
			cls->evicted(policy, victim, (uint64_t)(victim - entries));
			here[victim - entries] = false;
			count--;
		}
		entries[id] = (struct ty_entry){0};
		cls->enter(policy, &entries[id], id);
		here[id] = true;
		count++;
	}
	cls->destroy(policy);
	return hits;
}

static void test_scan(void **state)
{
	(void)state;
	assert_int_equal(hits_after_scan(&ty_policy_lru), 0);
	assert_int_equal(hits_after_scan(&ty_policy_arc), 50);
	assert_int_equal(hits_after_scan(&ty_policy_s3fifo), 50);
}

static void test_ghosts_stay_in_bounds(void **state)
{
	struct ty_ghosts g;

	(void)state;
	ty_ghosts_open(&g);
	assert_int_equal(ty_ghosts_take(&g, 7), -1);
	for (uint64_t i = 0; i < 183000; i++)
		ty_ghosts_add(&g, i * 977, i % 3 == 0);
	assert_int_equal(g.count[0] + g.count[1], 183000);
	assert_int_equal(ty_ghosts_bytes(&g), (1u << 18) * 28);
	assert_int_equal(ty_ghosts_take(&g, 977 * 3), 1);
	assert_int_equal(ty_ghosts_take(&g, 977 * 3), -1);
	ty_ghosts_add(&g, 977 * 4, 1); /* moved */
	assert_int_equal(g.count[0] + g.count[1], 182999);
	for (uint32_t i = g.count[0]; i; i--)
		ty_ghosts_drop_oldest(&g, 0);
	assert_int_equal(g.count[0], 0);
	assert_int_equal(ty_ghosts_take(&g, 977), -1);
	assert_int_equal(ty_ghosts_take(&g, 977 * 4), 1);
	ty_ghosts_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policies_beside_models),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_ghosts_stay_in_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
