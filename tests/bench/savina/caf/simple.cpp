// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong, ring, streams, creation, wake-up.
#include "bench.hpp"

#include <algorithm>
#include <atomic>
#include <ctime>

using namespace caf;

u64 run_pingpong(actor_system &system, const params &p)
{
	auto pong = system.spawn([](event_based_actor *self) -> behavior {
		return {[self, counted = u64{0}](ping_atom) mutable {
			counted++;
			self->send(actor_cast<actor>(self->current_sender()), pong_atom::value, counted);
		}};
	});
	u64 left = p[0];
	auto ping = system.spawn([pong, left](event_based_actor *self) -> behavior {
		return {[=](go_atom) { self->send(pong, ping_atom::value); },
			[self, pong, left, counted = u64{0}](pong_atom, u64 theirs) mutable {
				counted++;
				if (--left) {
					self->send(pong, ping_atom::value);
				} else {
					self->send_exit(pong, exit_reason::user_shutdown);
					self->quit();
					finished(counted + theirs);
				}
			}};
	});
	clock_start();
	anon_send(ping, go_atom::value);
	return wait_finished();
}

struct link_state {
	actor next;
	u64 counted = 0;
};

static behavior ring_link(stateful_actor<link_state> *self, actor sink)
{
	auto &state = self->state;

	return {[=, &state](actor next) { state.next = std::move(next); },
		[=, &state](u64 left) {
			state.counted++;
			if (left > 1)
				self->send(state.next, left - 1);
			else
				self->send(sink, done_atom::value);
		},
		[=, &state](go_atom) {
			self->send(sink, state.counted);
			self->quit();
		}};
}

u64 run_threadring(actor_system &system, const params &p)
{
	scoped_actor self{system};
	std::vector<actor> links;
	u64 check = 0;

	for (u64 i = 0; i < p[0]; i++)
		links.push_back(system.spawn(ring_link, actor{self}));
	for (u64 i = 0; i < p[0]; i++)
		anon_send(links[i], links[(i + 1) % p[0]]);
	clock_start();
	anon_send(links[0], p[1]);
	self->receive([](done_atom) { finished(0); });
	wait_finished();
	for (auto &each : links)
		anon_send(each, go_atom::value);
	for (u64 i = 0; i < p[0]; i++)
		self->receive([&](u64 counted) { check += counted; });
	return check;
}

// Sends `each` numbers to every consumer, 64 at a time, and then lets others run: the mailboxes stay short.
static behavior producer(event_based_actor *self, std::vector<actor> sinks, u64 each)
{
	return {[self, sinks, each, next = u64{0}](go_atom) mutable {
			u64 end = std::min(next + 64, each);

			for (auto &sink : sinks)
				for (u64 i = next; i < end; i++)
					self->send(sink, i);
			next = end;
			if (next < each)
				self->send(self, go_atom::value);
		},
		[self, left = sinks.size(), total = u64{0}](done_atom, u64 sum) mutable {
			total += sum;
			if (--left == 0) {
				self->quit();
				finished(total);
			}
		}};
}

static u64 run_stream(actor_system &system, u64 count, u64 each)
{
	std::vector<actor> sinks;

	for (u64 i = 0; i < count; i++)
		sinks.push_back(system.spawn([each](event_based_actor *self) -> behavior {
			return {[self, each, counted = u64{0}, sum = u64{0}](u64 value) mutable {
				sum += value;
				if (++counted == each) {
					self->send(actor_cast<actor>(self->current_sender()), done_atom::value, sum);
					self->quit();
				}
			}};
		}));
	auto source = system.spawn(producer, sinks, each);
	clock_start();
	anon_send(source, go_atom::value);
	return wait_finished();
}

u64 run_counting(actor_system &system, const params &p)
{
	return run_stream(system, 1, p[0]);
}

u64 run_fjthroughput(actor_system &system, const params &p)
{
	return run_stream(system, p[0], p[1]);
}

struct create_state {
	u64 made = 0, answered = 0, sum = 0;
};

u64 run_fjcreate(actor_system &system, const params &p)
{
	u64 count = p[0], window = p[1];
	auto creator = system.spawn([count, window](stateful_actor<create_state> *self) -> behavior {
		auto &state = self->state;
		auto make = [self, &state] {
			auto child = self->spawn<lazy_init>([](event_based_actor *me) -> behavior {
				return {[me](u64 value) {
					me->send(actor_cast<actor>(me->current_sender()), done_atom::value, value + 1);
					me->quit();
				}};
			});

			self->send(child, state.made++);
		};

		return {[=, &state](go_atom) {
				while (state.made < count && state.made < window)
					make();
			},
			[=, &state](done_atom, u64 value) {
				state.sum += value;
				if (++state.answered == count) {
					finished(state.sum);
					self->quit();
				} else if (state.made < count) {
					make();
				}
			}};
	});
	clock_start();
	anon_send(creator, go_atom::value);
	return wait_finished();
}

// A detached actor: it has a thread of its own, which is the quickest to wake here.
u64 run_wake(actor_system &system, const params &p)
{
	std::atomic<int64_t> woken_at{0};
	std::atomic<u64> handled{0};
	auto sleeper = system.spawn<detached>([&](event_based_actor *) -> behavior {
		return {[&](go_atom) {
			handled++;
			woken_at = clock_ns();
		}};
	});
	auto nap = [] {
		timespec gap = {0, 300000};

		nanosleep(&gap, nullptr);
	};
	std::vector<int64_t> times;

	nap();
	clock_start();
	for (u64 i = 0; i < p[0]; i++) {
		int64_t began = clock_ns(), at;

		anon_send(sleeper, go_atom::value);
		do
			nap();
		while (!(at = woken_at.exchange(0)));
		times.push_back(at - began);
	}
	finished(handled);
	end(sleeper);
	std::sort(times.begin(), times.end());
	wake_latency = {times[times.size() / 2], times[times.size() * 99 / 100]};
	return wait_finished();
}
