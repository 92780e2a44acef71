// SPDX-License-Identifier: Apache-2.0
//
// squares.c in C++: an owner that waits in its own way, workers on the pool, a thread that sends.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <iostream>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include <tyer/actor.h>

namespace
{

constexpr std::uint64_t job_count = 10000;
constexpr std::size_t worker_count = 100;
enum : std::uint32_t { SQUARE = 1, ADD };

struct Job {
	ty_msg msg{};
	std::uint64_t number = 0;
};

struct Unref {
	void operator()(ty_actor *actor) const { ty_actor_unref(actor); }
};
using Actor = std::unique_ptr<ty_actor, Unref>;

// An object in an actor's state: the runtime gives the bytes, start constructs, stop destroys.
class Owner
{
public:
	explicit Owner(std::promise<std::uint64_t> &result) : result_(result), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
	~Owner() { close(fd_); }

	static Owner &of(void *self) { return *static_cast<Owner *>(self); }
	static ty_code start(void *self, void *arg)
	{
		new (self) Owner(*static_cast<std::promise<std::uint64_t> *>(arg));
		return of(self).fd_ < 0 ? TY_IO : TY_OK;
	}
	static void stop(void *self) { of(self).~Owner(); }
	static void add(void *self, ty_msg *msg)
	{
		Owner &owner = of(self);

		owner.sum_ += ty_container_of(msg, Job, msg)->number;
		if (++owner.count_ == job_count)
			owner.result_.set_value(owner.sum_);
	}
	static void wait(void *self, std::int64_t deadline)
	{
		pollfd fd{of(self).fd_, POLLIN, 0};
		std::int64_t left = deadline == TY_NEVER ? 1000000 : (deadline - ty_now()) / 1000000;
		std::uint64_t wakes;

		left = std::clamp<std::int64_t>(left, 0, 1000000);
		if (poll(&fd, 1, static_cast<int>(left)) > 0 && read(fd.fd, &wakes, sizeof wakes) < 0)
			std::abort();
	}
	static void wake(void *self)
	{
		const std::uint64_t one = 1;

		if (write(of(self).fd_, &one, sizeof one) < 0)
			std::abort();
	}

private:
	std::promise<std::uint64_t> &result_;
	int fd_;
	std::uint64_t sum_ = 0, count_ = 0;
};

struct Worker {
	ty_actor *owner;

	static ty_code start(void *self, void *arg)
	{
		new (self) Worker{static_cast<ty_actor *>(arg)};
		return TY_OK;
	}
	static void square(void *self, ty_msg *msg)
	{
		Job *job = ty_container_of(msg, Job, msg);

		job->number *= job->number;
		if (ty_send(static_cast<Worker *>(self)->owner, msg, ADD) != TY_OK)
			std::abort();
	}
};

const ty_handler owner_handlers[] = {{"add", Owner::add}};
const ty_handler worker_handlers[] = {{"square", Worker::square}};

ty_class class_of_owner()
{
	ty_class cls{};

	cls.name = "owner";
	cls.state_size = sizeof(Owner);
	cls.first_type = ADD;
	cls.type_count = 1;
	cls.handlers = owner_handlers;
	cls.start = Owner::start;
	cls.stop = Owner::stop;
	cls.wait = {Owner::wait, Owner::wake};
	return cls;
}

ty_class class_of_worker()
{
	ty_class cls{};

	cls.name = "worker";
	cls.state_size = sizeof(Worker);
	cls.first_type = SQUARE;
	cls.type_count = 1;
	cls.handlers = worker_handlers;
	cls.start = Worker::start;
	return cls;
}

const ty_class owner_class = class_of_owner(), worker_class = class_of_worker();

Actor spawn(ty_runtime *rt, const ty_class &cls, void *arg, ty_executor executor)
{
	ty_spawn_options options{};
	ty_actor *actor = nullptr;

	options.size = sizeof options;
	options.executor = executor;
	options.cpu = -1;
	if (ty_spawn(rt, &cls, arg, &options, &actor) != TY_OK)
		std::abort();
	return Actor(actor);
}

} // namespace

int main()
{
	std::promise<std::uint64_t> promise;
	std::vector<Job> jobs(job_count);
	std::vector<Actor> workers;
	ty_runtime_options options{};
	ty_runtime *rt = nullptr;
	ty_error err{};

	options.size = sizeof options;
	options.workers = 2;
	if (ty_runtime_create(&options, &rt, &err) != TY_OK) {
		std::cerr << err.text << '\n';
		return 1;
	}
	Actor owner = spawn(rt, owner_class, &promise, TY_DEDICATED);
	for (std::size_t i = 0; i < worker_count; i++)
		workers.push_back(spawn(rt, worker_class, owner.get(), TY_POOL));
	std::thread producer([&] {
		for (std::uint64_t i = 0; i < job_count; i++) {
			jobs[i].number = i;
			if (ty_send(workers[i % worker_count].get(), &jobs[i].msg, SQUARE) != TY_OK)
				std::abort();
		}
	});
	const std::uint64_t sum = promise.get_future().get();

	producer.join();
	ty_runtime_destroy(rt);
	std::cout << "sum of squares: " << sum << '\n';
	return sum != (job_count - 1) * job_count * (2 * job_count - 1) / 6;
}
