// Package durable appends flows to a Kafka topic, one record each, with the settings of the project's own writer.
package durable

import (
	"context"
	"encoding/base64"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"flowaggregator.io/benchmarks/peers/http/flow"
)

const (
	linger           = 2 * time.Millisecond
	deliveryTimeout  = 10 * time.Second
	maxBufferedBytes = 256 << 20
	maxBuffered      = 4 << 20 // records: bounded by their bytes instead
)

// Log is the topic. Its partitions are those that the Java clients choose: the client's default for records with a key.
type Log struct {
	client *kgo.Client
	topic  string
}

// Open connects to Kafka, or fails where it does not answer.
func Open(address, topic string) (*Log, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(address),
		kgo.ClientID("flowagg-go-peer"),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotent by default
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.MaxBufferedBytes(maxBufferedBytes),
		kgo.MaxBufferedRecords(maxBuffered),
	)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	return &Log{client, topic}, client.Ping(limited)
}

// Append returns once Kafka has acknowledged every record; the position that holds them all. size: of the body in
// bytes, which the keys and values never exceed.
func (l *Log) Append(flows []flow.Flow, size int) (string, error) {
	if len(flows) == 0 {
		return l.position(nil), nil
	}
	waited := acknowledgements{left: len(flows), done: make(chan struct{})}
	delivered := waited.delivered
	records := make([]kgo.Record, len(flows))
	text := make([]byte, 0, size)
	background := context.Background() // a client that has gone takes none of its records back
	for index := range flows {
		start := len(text)
		text = flows[index].AppendKey(text)
		middle := len(text)
		text = flows[index].AppendValue(text)
		record := &records[index]
		record.Key, record.Value = text[start:middle:middle], text[middle:len(text):len(text)]
		l.client.Produce(background, record, delivered)
	}
	<-waited.done // bounded by the records' delivery timeout
	if waited.failed != nil {
		return "", waited.failed
	}
	return l.position(waited.next), nil
}

// Close waits, bounded, for what is on its way.
func (l *Log) Close() {
	limited, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	_ = l.client.Flush(limited)
	l.client.Close()
}

// position is an opaque token, as the project's own: the topic and the next offset of each partition.
func (l *Log) position(next []int64) string {
	text := make([]byte, 0, 128)
	text = append(append(text, `{"t":"`...), l.topic...)
	text = append(text, `","p":{`...)
	first := true
	for partition, offset := range next {
		if offset == 0 {
			continue
		}
		if !first {
			text = append(text, ',')
		}
		first = false
		text = strconv.AppendInt(append(text, '"'), int64(partition), 10)
		text = strconv.AppendInt(append(text, `":`...), offset, 10)
	}
	return base64.RawURLEncoding.EncodeToString(append(text, "}}"...))
}

// acknowledgements are the reports of one POST's records. next: by partition the offset after the last one.
type acknowledgements struct {
	mutex  sync.Mutex
	left   int
	failed error
	next   []int64
	done   chan struct{}
}

func (a *acknowledgements) delivered(record *kgo.Record, err error) {
	a.mutex.Lock()
	if err != nil {
		a.failed = err
	} else {
		for int(record.Partition) >= len(a.next) {
			a.next = append(a.next, 0)
		}
		a.next[record.Partition] = max(a.next[record.Partition], record.Offset+1)
	}
	a.left--
	complete := a.left == 0
	a.mutex.Unlock()
	if complete {
		close(a.done)
	}
}
