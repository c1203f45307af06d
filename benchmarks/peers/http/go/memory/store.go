// Package memory keeps totals in this process: no log, gone with it.
package memory

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flowaggregator.io/benchmarks/peers/http/flow"
)

type key struct {
	srcApp, destApp, vpcID string
}

type totals struct {
	bytesTx, bytesRx uint64
}

// hour is the totals of one hour. version is of its last change; body, where it is kept, is that of bodyVersion.
type hour struct {
	totals      map[key]*totals
	version     uint64
	rendering   sync.Mutex
	body        []byte
	bodyVersion uint64
}

// Store is the totals of all hours behind one mutex: with one core there is nothing to gain from shards.
type Store struct {
	codec flow.Codec
	keep  bool
	since string

	mutex   sync.Mutex
	hours   map[int64]*hour
	version uint64
}

// New is an empty store. keep: a rendered hour is kept until it changes.
func New(codec flow.Codec, keep bool) *Store {
	since := strconv.FormatInt(time.Now().UnixNano(), 36)
	return &Store{codec: codec, keep: keep, since: since, hours: map[int64]*hour{}}
}

// Append adds the flows of a POST up; the answer's position.
func (s *Store) Append(flows []flow.Flow, _ int) (string, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.version++
	for index := range flows {
		f := &flows[index]
		in, known := s.hours[*f.Hour]
		if !known {
			in = &hour{totals: map[key]*totals{}}
			s.hours[*f.Hour] = in
		}
		in.version = s.version
		sum, known := in.totals[key{f.SrcApp, f.DestApp, f.VpcID}]
		if !known {
			// Copies, for the names may point into the body.
			of := key{strings.Clone(f.SrcApp), strings.Clone(f.DestApp), strings.Clone(f.VpcID)}
			sum = &totals{}
			in.totals[of] = sum
		}
		sum.bytesTx += uint64(*f.BytesTx)
		sum.bytesRx += uint64(*f.BytesRx)
	}
	return s.since + "." + strconv.FormatUint(s.version, 10), nil
}

// Tag is the ETag of an hour as it is now.
func (s *Store) Tag(number int64) string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if in, known := s.hours[number]; known {
		return s.tag(in.version)
	}
	return s.tag(0)
}

// Read is the rows of an hour as JSON, sorted, and their ETag.
func (s *Store) Read(number int64) (body []byte, tag string, err error) {
	s.mutex.Lock()
	in, known := s.hours[number]
	if !known {
		s.mutex.Unlock()
		return []byte("[]"), s.tag(0), nil
	}
	s.mutex.Unlock()
	if s.keep {
		in.rendering.Lock() // one renders, the others wait for it
		defer in.rendering.Unlock()
	}
	s.mutex.Lock()
	version := in.version
	if s.keep && in.body != nil && in.bodyVersion == version {
		s.mutex.Unlock()
		return in.body, s.tag(version), nil
	}
	rows := make([]flow.Row, 0, len(in.totals))
	for of, sum := range in.totals {
		rows = append(rows, flow.Row{
			SrcApp: of.srcApp, DestApp: of.destApp, VpcID: of.vpcID,
			Hour: number, BytesTx: sum.bytesTx, BytesRx: sum.bytesRx,
		})
	}
	s.mutex.Unlock()
	slices.SortFunc(rows, compare)
	if body, err = s.codec.Marshal(rows); err != nil {
		return nil, "", err
	}
	if s.keep {
		in.body, in.bodyVersion = body, version
	}
	return body, s.tag(version), nil
}

func (s *Store) tag(version uint64) string {
	return `W/"` + s.since + "." + strconv.FormatUint(version, 10) + `"`
}

func compare(one, other flow.Row) int {
	if order := strings.Compare(one.SrcApp, other.SrcApp); order != 0 {
		return order
	}
	if order := strings.Compare(one.DestApp, other.DestApp); order != 0 {
		return order
	}
	return strings.Compare(one.VpcID, other.VpcID)
}
