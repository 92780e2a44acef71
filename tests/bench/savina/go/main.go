// SPDX-License-Identifier: Apache-2.0

// The programs in Go: savina-go PROGRAM WORKERS PARAMETER... prints one line of JSON. An actor is a goroutine with a
// buffered channel; state has one owner, and everything else goes through channels.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

var programs = map[string]func(p []int) uint64{
	"pingpong": pingpong, "counting": counting, "threadring": threadring, "fjthroughput": fjthroughput,
	"fjcreate": fjcreate, "big": big, "chameneos": chameneos, "bndbuffer": bndbuffer,
	"bndcrates": bndcrates, "philosophers": philosophers, "concdict": concdict, "wake": wake,
}

var (
	began    time.Time
	beganCPU int64
	took     int64
	tookCPU  int64
	latency  string // wake alone
)

func cpuNs() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func clockStart() {
	beganCPU = cpuNs()
	began = time.Now()
}

// Called by the goroutine of main once the program is over.
func clockStop() {
	took = time.Since(began).Nanoseconds()
	tookCPU = cpuNs() - beganCPU
}

func nextRandom(state *uint32) uint32 {
	*state = *state*1664525 + 1013904223
	return *state >> 8
}

func main() {
	if len(os.Args) < 4 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: savina-go PROGRAM WORKERS PARAMETER...")
		os.Exit(2)
	}
	var p []int
	for _, arg := range os.Args[2:] {
		n, err := strconv.Atoi(arg)
		if err != nil {
			panic(err)
		}
		p = append(p, n)
	}
	runtime.GOMAXPROCS(p[0])
	debug.SetGCPercent(800) // small heaps: collecting them often buys nothing
	check := programs[os.Args[1]](p[1:])
	fmt.Printf("{\"ns\":%d,\"cpu_ns\":%d,\"check\":%d%s}\n", took, tookCPU, check, latency)
}
