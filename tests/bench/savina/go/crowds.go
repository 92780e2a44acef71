// SPDX-License-Identifier: Apache-2.0

package main

type message struct {
	kind  uint8
	color uint8
	who   int32
	value uint64
	to    chan message
}

const (
	ping uint8 = iota
	pong
	enter
	meet
	bye
	hungry
	sated
	read
	write
	stored
	freed
)

func big(p []int) uint64 {
	count := p[0]
	all := make([]chan message, count)
	done, sums := make(chan struct{}, count), make(chan uint64, count)
	for i := range all {
		all[i] = make(chan message, count+1) // one ping of each and a pong: nobody ever waits to send
	}
	for i := range all {
		go func(self chan message, random uint32) {
			var received uint64
			left := p[1]
			for m := range self {
				if m.kind == ping {
					received++
					m.to <- message{kind: pong}
				} else if left > 0 {
					left--
					all[int(nextRandom(&random))%count] <- message{kind: ping, to: self}
				} else {
					done <- struct{}{}
				}
			}
			sums <- received
		}(all[i], uint32(i))
	}
	clockStart()
	for i := range all {
		all[i] <- message{kind: pong}
	}
	for range all {
		<-done
	}
	clockStop()
	var sum uint64
	for i := range all {
		close(all[i])
		sum += <-sums
	}
	return sum
}

func chameneos(p []int) uint64 {
	mall, counts := make(chan message, p[0]), make(chan uint64, p[0])
	for i := 0; i < p[0]; i++ {
		go func(color uint8) {
			self := make(chan message, 1)
			var meetings uint64
			for {
				mall <- message{kind: enter, color: color, to: self}
				m := <-self
				if m.kind == bye {
					break
				}
				meetings++
				if color != m.color {
					color = 3 - color - m.color
				}
			}
			counts <- meetings
		}(uint8(i % 3))
	}
	clockStart()
	go func() {
		for left := p[1]; left > 0; left-- {
			first, second := <-mall, <-mall
			first.to <- message{kind: meet, color: second.color}
			second.to <- message{kind: meet, color: first.color}
		}
		for i := 0; i < p[0]; i++ {
			(<-mall).to <- message{kind: bye}
		}
	}()
	var sum uint64
	for i := 0; i < p[0]; i++ {
		sum += <-counts
	}
	clockStop()
	return sum
}

// One goroutine is the buffer and tells each producer and consumer about each item, as the actors do.
func bndbuffer(p []int) uint64 {
	inbox, sums := make(chan message, p[0]+p[1]), make(chan uint64, p[1])
	makes, takes := make([]chan struct{}, p[0]), make([]chan uint64, p[1])
	for i := range makes {
		makes[i] = make(chan struct{}, 1)
		go func(who int32) {
			for n := 0; n < p[3]; n++ {
				<-makes[who]
				inbox <- message{kind: stored, who: who, value: uint64(n)}
			}
		}(int32(i))
	}
	for i := range takes {
		takes[i] = make(chan uint64, 1)
		go func(who int32) {
			var sum uint64
			for n := range takes[who] {
				sum += n
				inbox <- message{kind: freed, who: who}
			}
			sums <- sum
		}(int32(i))
	}
	clockStart()
	go func() {
		left := make([]int, p[0])
		var hungry, idle []int32
		for i := range makes {
			left[i] = p[3]
			hungry = append(hungry, int32(i))
		}
		for i := range takes {
			idle = append(idle, int32(i))
		}
		items, first, count := make([]uint64, p[2]), 0, 0
		for used, consumed := 0, 0; consumed < p[0]*p[3]; {
			for ; count > 0 && len(idle) > 0; count-- {
				takes[idle[len(idle)-1]] <- items[first]
				idle = idle[:len(idle)-1]
				first = (first + 1) % p[2]
				used--
			}
			for used < p[2] && len(hungry) > 0 {
				who := hungry[len(hungry)-1]
				hungry = hungry[:len(hungry)-1]
				used++
				left[who]--
				makes[who] <- struct{}{}
			}
			m := <-inbox
			if m.kind == stored {
				items[(first+count)%p[2]] = m.value
				count++
				if left[m.who] > 0 {
					hungry = append(hungry, m.who)
				}
			} else {
				consumed++
				idle = append(idle, m.who)
			}
		}
		for i := range takes {
			close(takes[i])
		}
	}()
	var sum uint64
	for range takes {
		sum += <-sums
	}
	clockStop()
	return sum
}

// The language has this one: a channel is a bounded buffer, and whoever runs fills or empties it before another does.
func bndcrates(p []int) uint64 {
	buffer, sums := make(chan uint64, p[2]), make(chan uint64, p[1])
	made := make(chan struct{}, p[0])
	for i := 0; i < p[1]; i++ {
		go func() {
			var sum uint64
			for n := range buffer {
				sum += n
			}
			sums <- sum
		}()
	}
	clockStart()
	for i := 0; i < p[0]; i++ {
		go func() {
			for n := 0; n < p[3]; n++ {
				buffer <- uint64(n)
			}
			made <- struct{}{}
		}()
	}
	for i := 0; i < p[0]; i++ {
		<-made
	}
	close(buffer)
	var sum uint64
	for i := 0; i < p[1]; i++ {
		sum += <-sums
	}
	clockStop()
	return sum
}

func philosophers(p []int) uint64 {
	count := p[0]
	table, over := make(chan message, 2*count), make(chan uint64)
	eat := make([]chan struct{}, count)
	for i := range eat {
		eat[i] = make(chan struct{}, 1)
		go func(who int32) {
			for left := p[1]; left > 0; left-- {
				table <- message{kind: hungry, who: who}
				<-eat[who]
				table <- message{kind: sated, who: who}
			}
		}(int32(i))
	}
	clockStart()
	go func() {
		taken, waiting := make([]bool, count), make([]bool, count)
		serve := func(who int) {
			right := who + 1
			if right == count {
				right = 0
			}
			if waiting[who] && !taken[who] && !taken[right] {
				waiting[who], taken[who], taken[right] = false, true, true
				eat[who] <- struct{}{}
			}
		}
		var meals uint64
		for meals < uint64(count*p[1]) {
			m := <-table
			who := int(m.who)
			if m.kind == hungry {
				waiting[who] = true
				serve(who)
				continue
			}
			meals++
			right := (who + 1) % count
			taken[who], taken[right] = false, false
			serve((who + count - 1) % count)
			serve(right)
		}
		over <- meals
	}()
	meals := <-over
	clockStop()
	return meals
}

func concdict(p []int) uint64 {
	const keys = 65536
	queries, reads, over := make(chan message, p[0]), make(chan uint64, p[0]), make(chan uint64)
	go func() {
		values := make(map[uint32]uint64, keys)
		for q := range queries {
			key := uint32(q.who)
			if q.kind == write {
				values[key]++
			}
			q.to <- message{value: values[key]}
		}
		var sum uint64
		for _, value := range values {
			sum += value
		}
		over <- sum
	}()
	clockStart()
	for i := 0; i < p[0]; i++ {
		go func(random uint32) {
			self := make(chan message, 1)
			var count uint64
			for left := p[1]; left > 0; left-- {
				drawn := nextRandom(&random) % 100
				q := message{kind: write, who: int32(nextRandom(&random) % keys), to: self}
				if drawn >= uint32(p[2]) {
					q.kind = read
					count++
				}
				queries <- q
				<-self
			}
			reads <- count
		}(uint32(i))
	}
	var sum uint64
	for i := 0; i < p[0]; i++ {
		sum += <-reads
	}
	clockStop()
	close(queries)
	return sum + <-over
}
