// Command flows is the peer: POST /flows and GET /flows?hour= by net/http, with totals in memory, or POST /flows alone
// with a record in Kafka for each flow.
//
//	flows -listen 127.0.0.1:8080 -store memory [-json std|goccy|sonic] [-keep]
//	flows -listen 127.0.0.1:8080 -store kafka -kafka 127.0.0.1:9092 [-json ...]
//	flows -versions
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"mime"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"flowaggregator.io/benchmarks/peers/http/durable"
	"flowaggregator.io/benchmarks/peers/http/flow"
	"flowaggregator.io/benchmarks/peers/http/memory"
)

const (
	maxBodyBytes    = 8 << 20
	maxKeptBytes    = 1 << 20
	headTimeout     = 10 * time.Second
	idleTimeout     = 75 * time.Second
	shutdownTimeout = 5 * time.Second
)

// keeper is what takes flows: the totals in memory or the log.
type keeper interface {
	Append(flows []flow.Flow, size int) (position string, err error)
}

type service struct {
	codec   flow.Codec
	keeper  keeper
	scratch sync.Pool
}

// scratch is what a POST needs and the next one can use again.
type scratch struct {
	body  bytes.Buffer
	flows []flow.Flow
}

type accepted struct {
	Accepted int    `json:"accepted"`
	Position string `json:"position"`
}

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:8080", "address")
	store := flag.String("store", "memory", "memory or kafka")
	kafka := flag.String("kafka", "", "address of a broker, with -store kafka")
	topic := flag.String("topic", "flows", "topic, with -store kafka")
	library := flag.String("json", "std", "std, goccy or sonic")
	keep := flag.Bool("keep", false, "keep rendered hours until they change, with -store memory")
	versions := flag.Bool("versions", false, "print the versions of Go and the modules as JSON, and end")
	flag.Parse()
	if *versions {
		printVersions()
		return
	}
	codec, err := flow.CodecNamed(*library)
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	end := func() {}
	var keeper keeper
	switch *store {
	case "memory":
		totals := memory.New(codec, *keep)
		routes.HandleFunc("GET /flows", reading(totals))
		keeper = totals
	case "kafka":
		appended, err := durable.Open(*kafka, *topic)
		if err != nil {
			log.Fatalf("kafka %s: %v", *kafka, err)
		}
		keeper, end = appended, appended.Close
	default:
		log.Fatalf("-store %q: memory or kafka", *store)
	}
	flows := &service{codec: codec, keeper: keeper}
	flows.scratch.New = func() any { return &scratch{} }
	routes.HandleFunc("POST /flows", flows.post)
	server := &http.Server{Addr: *listen, Handler: routes, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ended.Done()
		limited, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		_ = server.Shutdown(limited)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-drained
	end()
}

func (s *service) post(w http.ResponseWriter, r *http.Request) {
	if kind := r.Header.Get("Content-Type"); kind != "application/json" {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			problem(w, http.StatusUnsupportedMediaType, "send application/json")
			return
		}
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		problem(w, http.StatusUnsupportedMediaType, "send the body as it is")
		return
	}
	used := s.scratch.Get().(*scratch)
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	if r.ContentLength > 0 && r.ContentLength <= maxBodyBytes {
		used.body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := used.body.ReadFrom(r.Body); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			problem(w, http.StatusRequestEntityTooLarge, "the body is too large")
		} else {
			problem(w, http.StatusBadRequest, "the body is not whole")
		}
		return
	}
	var err error
	used.flows, err = flow.Decode(s.codec, used.body.Bytes(), used.flows)
	if errors.Is(err, flow.ErrTooMany) {
		problem(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	count := len(used.flows)
	position, err := s.keeper.Append(used.flows, used.body.Len())
	s.release(used)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusServiceUnavailable, "kafka has not acknowledged every record")
		return
	}
	answer, err := json.Marshal(accepted{count, position})
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// release puts back what an accepted POST has used, with the flows all zero again: so they are beyond their number, too.
// What a refused or a large one has used is left to the collector.
func (s *service) release(used *scratch) {
	if used.body.Cap() > maxKeptBytes {
		return
	}
	used.body.Reset()
	clear(used.flows)
	used.flows = used.flows[:0]
	s.scratch.Put(used)
}

func reading(totals *memory.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		hours := query["hour"]
		if len(query) != 1 || len(hours) != 1 {
			problem(w, http.StatusBadRequest, "ask with one hour: /flows?hour=1")
			return
		}
		hour, err := strconv.ParseInt(hours[0], 10, 64)
		if err != nil || hour < 0 || hour > flow.MaxInteger {
			problem(w, http.StatusBadRequest, "hour: an integer of 0..2^53-1")
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		if held := r.Header.Get("If-None-Match"); held != "" {
			if tag := totals.Tag(hour); tag == held {
				w.Header().Set("ETag", tag)
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		body, tag, err := totals.Read(hour)
		if err != nil {
			problem(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}

func printVersions() {
	found := map[string]string{"go": runtime.Version()}
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, module := range built.Deps {
			found[module.Path] = module.Version
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
