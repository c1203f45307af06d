// Command load sends requests at a constant rate, whether answers come or not (an open loop), and prints how long they
// took as a line of JSON.
//
//	load -url http://127.0.0.1:8080/flows -bodies FILE -rate 1000 -seconds 5 [-warmup 1] [-connections 256]
//
// Each request has a time at which it is meant to be sent, and its latency counts from then: one that waits for a
// connection, or for the answers before it, waits in the numbers too (no coordinated omission). Percentiles are exact, of
// all latencies. FILE has a body a line; they are sent in turn.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// leastSleep bounds the wakes a second; requests that fall due meanwhile are sent together, each late by less.
	leastSleep    = 50 * time.Microsecond
	answerTimeout = 20 * time.Second
	// grace is how long after the last request's time unanswered ones are waited for.
	grace               = 10 * time.Second
	prSetTimerSlack     = 29
	timerSlackNanos     = 1
	generatorProcessors = 2
)

var errStatus = errors.New("not answered 200")

type result struct {
	Sent    int     `json:"sent"`
	Errors  int     `json:"errors"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p999_ms"`
	Max     float64 `json:"max_ms"`
	Late    float64 `json:"late_p99_ms"`
}

// schedule says when each request is due.
type schedule struct {
	start    time.Time
	interval float64 // nanoseconds
	count    int
	skipped  int // the first ones, for warming up, are sent but not counted
}

func (s schedule) due(number int) time.Duration {
	return time.Duration(float64(number) * s.interval)
}

type worker struct {
	address  string
	conn     net.Conn
	reader   *bufio.Reader
	took     []time.Duration
	errors   int
	lastSeen time.Duration
}

func main() {
	log.SetFlags(0)
	target := flag.String("url", "", "where to POST to")
	file := flag.String("bodies", "", "file with a body a line")
	rate := flag.Float64("rate", 1000, "requests a second")
	seconds := flag.Float64("seconds", 5, "of requests that count")
	warmup := flag.Float64("warmup", 1, "seconds of requests before, which do not count")
	connections := flag.Int("connections", 256, "most requests on their way at a time")
	flag.Parse()
	if *rate <= 0 || *seconds <= 0 || *warmup < 0 || *connections < 1 {
		log.Fatal("-rate, -seconds and -connections must be above 0")
	}
	// One sleeps in the system until the next request is due while another serves the connections, on one core too.
	runtime.GOMAXPROCS(generatorProcessors)
	requests, address, err := read(*target, *file)
	if err != nil {
		log.Fatal(err)
	}
	workers := make([]*worker, *connections)
	for at := range workers {
		workers[at] = &worker{address: address}
		if err := workers[at].open(); err != nil {
			log.Fatal(err)
		}
	}
	plan := schedule{
		interval: 1e9 / *rate,
		count:    int(math.Ceil((*warmup + *seconds) * *rate)),
		skipped:  int(*warmup * *rate),
	}
	if err := json.NewEncoder(os.Stdout).Encode(run(plan, workers, requests)); err != nil {
		log.Fatal(err)
	}
}

// read is the requests as bytes on the wire, and the address that they go to.
func read(target, file string) (requests [][]byte, address string, err error) {
	where, err := url.Parse(target)
	if err != nil || where.Port() == "" {
		return nil, "", fmt.Errorf("-url %q: as http://host:port/path", target)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	for body := range bytes.Lines(content) {
		body = bytes.TrimSuffix(body, []byte("\n"))
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			where.RequestURI(), where.Host, len(body))
		requests = append(requests, append([]byte(head), body...))
	}
	if len(requests) == 0 {
		return nil, "", fmt.Errorf("%s has no bodies", file)
	}
	return requests, where.Host, nil
}

func run(plan schedule, workers []*worker, requests [][]byte) result {
	due := make(chan int, plan.count) // never full: whoever dispatches never waits for answers
	plan.start = time.Now().Add(10 * time.Millisecond)
	late := make([]time.Duration, 0, plan.count)
	var all sync.WaitGroup
	for _, one := range workers {
		all.Go(func() { one.work(plan, due, requests) })
	}
	late = dispatch(plan, due, late)
	close(due)
	all.Wait()
	found := result{Sent: plan.count - plan.skipped}
	var took []time.Duration
	var last time.Duration
	for _, one := range workers {
		took = append(took, one.took...)
		found.Errors += one.errors
		last = max(last, one.lastSeen)
		one.close()
	}
	found.Seconds = (last - plan.due(plan.skipped)).Seconds()
	found.P50, found.P99, found.P999 = percentile(took, 50), percentile(took, 99), percentile(took, 99.9)
	found.Max = percentile(took, 100)
	found.Late = percentile(late[plan.skipped:], 99)
	return found
}

// dispatch hands out each request when it is due; how late each one was.
func dispatch(plan schedule, due chan<- int, late []time.Duration) []time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// By default Linux wakes a thread up to 50 microseconds late.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, timerSlackNanos, 0)
	for number := 0; number < plan.count; {
		now := time.Since(plan.start)
		for number < plan.count && plan.due(number) <= now {
			due <- number
			late = append(late, now-plan.due(number))
			number++
		}
		if number < plan.count {
			sleep(max(plan.due(number)-time.Since(plan.start), leastSleep))
		}
	}
	return late
}

// sleep is the system's own: Go's timers wait in whole milliseconds where nothing else is to do.
func sleep(wait time.Duration) {
	wanted := syscall.NsecToTimespec(wait.Nanoseconds())
	_ = syscall.Nanosleep(&wanted, nil)
}

func (w *worker) work(plan schedule, due <-chan int, requests [][]byte) {
	last := plan.due(plan.count) + grace
	for number := range due {
		counted := number >= plan.skipped
		var err error
		if time.Since(plan.start) > last {
			err = errStatus
		} else if err = w.exchange(requests[number%len(requests)]); err != nil && !errors.Is(err, errStatus) {
			w.close()
		}
		w.lastSeen = time.Since(plan.start)
		if counted {
			w.took = append(w.took, w.lastSeen-plan.due(number))
			if err != nil {
				w.errors++
			}
		}
	}
}

func (w *worker) open() error {
	conn, err := net.DialTimeout("tcp", w.address, answerTimeout)
	if err != nil {
		return err
	}
	w.conn = conn
	if w.reader == nil {
		w.reader = bufio.NewReader(conn)
	} else {
		w.reader.Reset(conn)
	}
	return nil
}

func (w *worker) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// exchange sends a request and reads its answer. An error other than errStatus leaves the connection unusable.
func (w *worker) exchange(request []byte) error {
	if w.conn == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if err := w.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := w.conn.Write(request); err != nil {
		return err
	}
	status, size, last := 0, -1, false
	for first := true; ; first = false {
		line, err := w.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if first {
			if _, rest, found := bytes.Cut(line, []byte(" ")); found && len(rest) >= 3 {
				status, _ = strconv.Atoi(string(rest[:3]))
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("content-length")):
			if size, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("connection")):
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
	if size < 0 {
		return errors.New("an answer without Content-Length")
	}
	if _, err := w.reader.Discard(size); err != nil {
		return err
	}
	if last {
		w.close()
	}
	if status != 200 {
		return errStatus
	}
	return nil
}

// percentile is the value in milliseconds that so many percent of the values do not exceed; it sorts them.
func percentile(values []time.Duration, percent float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	at := int(math.Ceil(float64(len(values))*percent/100)) - 1
	return float64(values[max(at, 0)]) / 1e6
}
