// SPDX-License-Identifier: Apache-2.0
//
// Big, chameneos, bounded buffer, philosophers, dictionary.
#include "bench.hpp"

#include <deque>
#include <numeric>
#include <unordered_map>

using namespace caf;

// Adds up what `count` actors report, and ends the program.
static behavior sink(event_based_actor *self, u64 count)
{
	return {[self, count, sum = u64{0}](done_atom, u64 value) mutable {
		sum += value;
		if (--count == 0) {
			finished(sum);
			self->quit();
		}
	}};
}

static actor sender_of(event_based_actor *self)
{
	return actor_cast<actor>(self->current_sender());
}

struct talker_state {
	std::vector<actor> all;
	u64 received = 0;
	uint32_t random = 0;
};

static behavior talker(stateful_actor<talker_state> *self, uint32_t seed, u64 each, actor to)
{
	auto &state = self->state;

	state.random = seed;
	return {[=, &state](const std::vector<actor> &all) { state.all = all; },
		[=, &state](ping_atom) {
			state.received++;
			self->send(sender_of(self), pong_atom::value);
		},
		[=, &state, left = each](pong_atom) mutable {
			if (left == 0) {
				self->send(to, done_atom::value, u64{0});
				return;
			}
			left--;
			self->send(state.all[next_random(state.random) % state.all.size()], ping_atom::value);
		},
		[=, &state](read_atom) {
			state.all.clear();
			return state.received;
		}};
}

u64 run_big(actor_system &system, const params &p)
{
	scoped_actor self{system};
	std::vector<actor> all;
	auto to = system.spawn(sink, p[0]);
	u64 check = 0;

	for (u64 i = 0; i < p[0]; i++)
		all.push_back(system.spawn(talker, static_cast<uint32_t>(i), p[1], to));
	for (auto &each : all)
		anon_send(each, all);
	clock_start();
	for (auto &each : all)
		anon_send(each, pong_atom::value);
	wait_finished();
	for (auto &each : all) {
		self->request(each, infinite, read_atom::value)
			.receive([&](u64 received) { check += received; }, [](const error &) {});
		end(each);
	}
	return check;
}

static behavior creature(event_based_actor *self, int color, actor mall, actor to)
{
	return {[=](go_atom) { self->send(mall, ping_atom::value, color); },
		[self, color, mall, meetings = u64{0}, to](pong_atom, int other) mutable {
			if (other < 0) {
				self->send(to, done_atom::value, meetings);
				self->quit();
				return;
			}
			meetings++;
			if (color != other)
				color = 3 - color - other;
			self->send(mall, ping_atom::value, color);
		}};
}

u64 run_chameneos(actor_system &system, const params &p)
{
	auto to = system.spawn(sink, p[0]);
	u64 meetings = p[1];
	auto mall = system.spawn([meetings](event_based_actor *self) -> behavior {
		return {[self, left = meetings, first = actor{}, first_color = 0](ping_atom, int color) mutable {
			if (left == 0) {
				self->send(sender_of(self), pong_atom::value, -1);
			} else if (!first) {
				first = sender_of(self);
				first_color = color;
			} else {
				left--;
				self->send(first, pong_atom::value, color);
				self->send(sender_of(self), pong_atom::value, first_color);
				first = nullptr;
			}
		}};
	});
	std::vector<actor> all;

	for (u64 i = 0; i < p[0]; i++)
		all.push_back(system.spawn(creature, static_cast<int>(i % 3), mall, to));
	clock_start();
	for (auto &each : all)
		anon_send(each, go_atom::value);
	u64 check = wait_finished();
	end(mall);
	return check;
}

// What a message brings: one item, or a crate of them.
template <class Load> struct buffer_state {
	std::vector<actor> idle, hungry;
	std::deque<Load> full;
	u64 used = 0, consumed = 0, sum = 0;
};

// `size` places for a Load each; produce(next, end) makes one of items from `next` on and moves `next`; consume
// says how many there were and what is their sum.
template <class Load, class Produce, class Consume>
u64 bounded_buffer(actor_system &system, const params &p, u64 size, Produce produce, Consume consume)
{
	u64 expected = p[0] * p[3], each = p[3];
	auto buffer = system.spawn([size, expected](stateful_actor<buffer_state<Load>> *self) -> behavior {
		auto &state = self->state;
		auto pump = [self, size, &state] {
			while (!state.full.empty() && !state.idle.empty()) {
				self->send(state.idle.back(), std::move(state.full.front()));
				state.idle.pop_back();
				state.full.pop_front();
				state.used--;
			}
			while (state.used < size && !state.hungry.empty()) {
				self->send(state.hungry.back(), go_atom::value);
				state.hungry.pop_back();
				state.used++;
			}
		};

		return {[=, &state](stored_atom, Load &load, bool more) {
				state.full.push_back(std::move(load));
				if (more)
					state.hungry.push_back(sender_of(self));
				pump();
			},
			[=, &state](freed_atom, u64 count, u64 sum) {
				state.sum += sum;
				state.idle.push_back(sender_of(self));
				state.consumed += count;
				if (state.consumed == expected) {
					finished(state.sum);
					state.idle.clear();
					self->quit();
				} else {
					pump();
				}
			},
			[=, &state](hungry_atom, actor who) {
				state.hungry.push_back(std::move(who));
				pump();
			},
			[=, &state](read_atom, actor who) {
				state.idle.push_back(std::move(who));
				pump();
			}};
	});
	std::vector<actor> producers, consumers;

	for (u64 i = 0; i < p[0]; i++)
		producers.push_back(system.spawn([=](event_based_actor *self) -> behavior {
			return {[=, next = u64{0}](go_atom) mutable {
				Load load = produce(next, each);

				self->send(buffer, stored_atom::value, std::move(load), next < each);
				if (next == each)
					self->quit();
			}};
		}));
	for (u64 i = 0; i < p[1]; i++)
		consumers.push_back(system.spawn([=](event_based_actor *self) -> behavior {
			return {[=](const Load &load) {
				auto eaten = consume(load);

				self->send(buffer, freed_atom::value, eaten.first, eaten.second);
			}};
		}));
	clock_start();
	for (auto &who : consumers)
		anon_send(buffer, read_atom::value, who);
	for (auto &who : producers)
		anon_send(buffer, hungry_atom::value, who);
	u64 check = wait_finished();
	for (auto &who : consumers)
		end(who);
	return check;
}

u64 run_bndbuffer(actor_system &system, const params &p)
{
	return bounded_buffer<u64>(
		system, p, p[2], [](u64 &next, u64) { return next++; },
		[](u64 item) { return std::pair<u64, u64>(1, item); });
}

u64 run_bndcrates(actor_system &system, const params &p)
{
	static constexpr u64 crate = 10; // items
	using items = std::vector<u64>;

	return bounded_buffer<items>(
		system, p, p[2] / crate,
		[](u64 &next, u64 end) {
			items made(end - next < crate ? end - next : crate);

			for (auto &item : made)
				item = next++;
			return made;
		},
		[](const items &some) {
			return std::pair<u64, u64>(some.size(), std::accumulate(some.begin(), some.end(), u64{0}));
		});
}

struct table_state {
	std::vector<bool> taken;
	std::vector<actor> waiting;
	u64 meals = 0;
};

u64 run_philosophers(actor_system &system, const params &p)
{
	size_t count = p[0];
	u64 each = p[1];
	auto table = system.spawn([count, each](stateful_actor<table_state> *self) -> behavior {
		auto &state = self->state;
		auto serve = [self, count, &state](size_t who) {
			size_t right = who + 1 == count ? 0 : who + 1;

			if (!state.waiting[who] || state.taken[who] || state.taken[right])
				return;
			state.taken[who] = state.taken[right] = true;
			self->send(state.waiting[who], go_atom::value);
			state.waiting[who] = nullptr;
		};

		state.taken.resize(count);
		state.waiting.resize(count);
		return {[=, &state](hungry_atom, u64 who) {
				state.waiting[who] = sender_of(self);
				serve(who);
			},
			[=, &state](sated_atom, u64 who) {
				size_t right = who + 1 == count ? 0 : who + 1;

				state.taken[who] = state.taken[right] = false;
				if (++state.meals == count * each) {
					finished(state.meals);
					self->quit();
					return;
				}
				serve(who ? who - 1 : count - 1);
				serve(right);
			}};
	});
	std::vector<actor> all;

	for (u64 i = 0; i < count; i++)
		all.push_back(system.spawn([i, table, each](event_based_actor *self) -> behavior {
			return {[=](ping_atom) { self->send(table, hungry_atom::value, i); },
				[self, i, table, left = each](go_atom) mutable {
					self->send(table, sated_atom::value, i);
					if (--left)
						self->send(table, hungry_atom::value, i);
					else
						self->quit();
				}};
		}));
	clock_start();
	for (auto &who : all)
		anon_send(who, ping_atom::value);
	return wait_finished();
}

static const uint32_t keys = 65536;

struct user_state {
	u64 left = 0, reads = 0;
	uint32_t random = 0;
};

static behavior user(stateful_actor<user_state> *self, uint32_t seed, u64 each, u64 percent, actor dictionary, actor to)
{
	auto &state = self->state;

	state.random = seed;
	state.left = each;
	return {[=, &state](u64) {
		if (state.left-- == 0) {
			self->send(to, done_atom::value, state.reads);
			self->quit();
			return;
		}
		uint32_t drawn = next_random(state.random) % 100, key = next_random(state.random) % keys;

		if (drawn < percent) {
			self->send(dictionary, write_atom::value, key);
		} else {
			state.reads++;
			self->send(dictionary, read_atom::value, key);
		}
	}};
}

u64 run_concdict(actor_system &system, const params &p)
{
	using map = std::unordered_map<uint32_t, u64>;
	scoped_actor self{system};
	auto values = std::make_shared<map>();

	values->reserve(keys);
	auto dictionary = system.spawn([values](event_based_actor *self) -> behavior {
		return {[=](read_atom, uint32_t key) {
				auto found = values->find(key);

				self->send(sender_of(self), found == values->end() ? u64{0} : found->second);
			},
			[=](write_atom, uint32_t key) { self->send(sender_of(self), ++(*values)[key]); },
			[=](go_atom) {
				u64 sum = 0;

				for (auto &each : *values)
					sum += each.second;
				self->quit();
				return sum;
			}};
	});
	auto to = system.spawn(sink, p[0]);
	std::vector<actor> users;
	u64 check = 0;

	for (u64 i = 0; i < p[0]; i++)
		users.push_back(system.spawn(user, static_cast<uint32_t>(i), p[1], p[2], dictionary, to));
	clock_start();
	for (auto &each : users)
		anon_send(each, u64{0});
	check = wait_finished();
	self->request(dictionary, infinite, go_atom::value)
		.receive([&](u64 sum) { check += sum; }, [](const error &) {});
	return check;
}
