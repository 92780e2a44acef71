// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"sort"
	"sync/atomic"
	"syscall"
	"time"
)

func pingpong(p []int) uint64 {
	pings, pongs, over := make(chan struct{}, 1), make(chan struct{}, 1), make(chan uint64)
	go func() {
		var counted uint64
		for range pings {
			counted++
			pongs <- struct{}{}
		}
		over <- counted
	}()
	clockStart()
	go func() {
		var counted uint64
		for left := p[0]; left > 0; left-- {
			pings <- struct{}{}
			<-pongs
			counted++
		}
		close(pings)
		over <- counted
	}()
	sum := <-over + <-over
	clockStop()
	return sum
}

func counting(p []int) uint64 {
	numbers, over := make(chan uint64, 4096), make(chan uint64)
	go func() {
		var sum uint64
		for n := range numbers {
			sum += n
		}
		over <- sum
	}()
	clockStart()
	go func() {
		for i := 0; i < p[0]; i++ {
			numbers <- uint64(i)
		}
		close(numbers)
	}()
	sum := <-over
	clockStop()
	return sum
}

func threadring(p []int) uint64 {
	count := p[0]
	links := make([]chan int, count)
	over := make(chan struct{})
	counts := make(chan uint64, count)
	for i := range links {
		links[i] = make(chan int, 1)
	}
	for i := range links {
		go func(in <-chan int, out chan<- int) {
			var counted uint64
			for left := range in {
				counted++
				if left > 1 {
					out <- left - 1
				} else {
					close(over)
				}
			}
			counts <- counted
		}(links[i], links[(i+1)%count])
	}
	clockStart()
	links[0] <- p[1]
	<-over
	clockStop()
	var sum uint64
	for i := range links {
		close(links[i])
		sum += <-counts
	}
	return sum
}

func fjthroughput(p []int) uint64 {
	sums := make(chan uint64, p[0])
	sinks := make([]chan uint64, p[0])
	for i := range sinks {
		sinks[i] = make(chan uint64, 128)
		go func(in <-chan uint64) {
			var sum uint64
			for n := range in {
				sum += n
			}
			sums <- sum
		}(sinks[i])
	}
	clockStart()
	go func() {
		// 64 to each in turn, so that a switch of goroutines serves many messages
		for i := 0; i < p[1]; i += 64 {
			for _, sink := range sinks {
				for k := i; k < i+64 && k < p[1]; k++ {
					sink <- uint64(k)
				}
			}
		}
		for _, sink := range sinks {
			close(sink)
		}
	}()
	var sum uint64
	for range sinks {
		sum += <-sums
	}
	clockStop()
	return sum
}

func fjcreate(p []int) uint64 {
	over := make(chan uint64)
	clockStart()
	go func() {
		answers := make(chan int, p[1])
		var sum uint64
		made, answered := 0, 0
		for answered < p[0] {
			for made < p[0] && made-answered < p[1] {
				jobs := make(chan int, 1)
				go func() { answers <- <-jobs + 1 }()
				jobs <- made
				made++
			}
			sum += uint64(<-answers)
			answered++
		}
		over <- sum
	}()
	sum := <-over
	clockStop()
	return sum
}

// The sender is an operating system thread of its own that comes from a sleep in the kernel.
func wake(p []int) uint64 {
	const gap = 300000
	var wokenAt, handled int64
	ticks := make(chan struct{}, 1)
	go func() {
		for range ticks {
			handled++
			atomic.StoreInt64(&wokenAt, time.Since(began).Nanoseconds())
		}
	}()
	runtime.LockOSThread()
	nap := func() {
		ts := syscall.NsecToTimespec(gap)
		syscall.Nanosleep(&ts, nil)
	}
	times := make([]int, p[0])
	clockStart()
	nap()
	for i := range times {
		from := time.Since(began).Nanoseconds()
		ticks <- struct{}{}
		var at int64
		for at == 0 {
			nap()
			at = atomic.SwapInt64(&wokenAt, 0)
		}
		times[i] = int(at - from)
	}
	clockStop()
	sort.Ints(times)
	latency = fmt.Sprintf(",\"p50\":%d,\"p99\":%d", times[len(times)/2], times[len(times)*99/100])
	return uint64(handled)
}
