// Package flow is the record of the contract: the rules that it keeps, and how it is read and written.
package flow

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxCharacters is the most code points of a name.
	MaxCharacters = 256
	// MaxInteger is the largest hour and byte count.
	MaxInteger = 1<<53 - 1
	// MaxFlows is the most flows of a POST.
	MaxFlows = 100_000
)

// ErrTooMany says that a POST has more than MaxFlows flows.
var ErrTooMany = errors.New("a POST may have " + strconv.Itoa(MaxFlows) + " flows at most")

// Flow is one record. Its numbers are pointers, for one that is missing must not be read as 0.
type Flow struct {
	SrcApp  string `json:"src_app"`
	DestApp string `json:"dest_app"`
	VpcID   string `json:"vpc_id"`
	Hour    *int64 `json:"hour"`
	BytesTx *int64 `json:"bytes_tx"`
	BytesRx *int64 `json:"bytes_rx"`
}

// Row is the totals of a flow key, as they are answered.
type Row struct {
	SrcApp  string `json:"src_app"`
	DestApp string `json:"dest_app"`
	VpcID   string `json:"vpc_id"`
	Hour    int64  `json:"hour"`
	BytesTx uint64 `json:"bytes_tx"`
	BytesRx uint64 `json:"bytes_rx"`
}

// Invalid says which rule a body breaks, and where. Index is -1 where the body as a whole is at fault.
type Invalid struct {
	Index int
	Field string
	Rule  string
}

func (e *Invalid) Error() string {
	if e.Index < 0 {
		return e.Rule
	}
	return fmt.Sprintf("record %d: %s: %s", e.Index, e.Field, e.Rule)
}

// Decode reads the flows of a body into a slice that is empty and all zero up to its capacity: all of them, or an
// error and none. The flows may hold on to the body's memory.
func Decode(codec Codec, body []byte, into []Flow) ([]Flow, error) {
	if start := bytes.TrimLeft(body, " \t\r\n"); len(start) == 0 || start[0] != '[' {
		return into, &Invalid{Index: -1, Rule: "the body must be a JSON array of flows"}
	}
	if !utf8.Valid(body) {
		return into, &Invalid{Index: -1, Rule: "not valid UTF-8"}
	}
	if err := codec.Unmarshal(body, &into); err != nil {
		return into, &Invalid{Index: -1, Rule: err.Error()}
	}
	if len(into) > MaxFlows {
		return into, ErrTooMany
	}
	escapes := bytes.Contains(body, []byte(`\u`))
	for index := range into {
		if field, rule := into[index].broken(escapes); rule != "" {
			return into, &Invalid{index, field, rule}
		}
	}
	return into, nil
}

// broken is the field and the rule that it breaks, empty where it keeps all. escapes: names may come from \u escapes.
func (f *Flow) broken(escapes bool) (field, rule string) {
	if rule := nameRule(f.SrcApp, escapes); rule != "" {
		return "src_app", rule
	}
	if rule := nameRule(f.DestApp, escapes); rule != "" {
		return "dest_app", rule
	}
	if rule := nameRule(f.VpcID, escapes); rule != "" {
		return "vpc_id", rule
	}
	if rule := numberRule(f.Hour); rule != "" {
		return "hour", rule
	}
	if rule := numberRule(f.BytesTx); rule != "" {
		return "bytes_tx", rule
	}
	if rule := numberRule(f.BytesRx); rule != "" {
		return "bytes_rx", rule
	}
	return "", ""
}

func nameRule(name string, escapes bool) string {
	if name == "" {
		return "is missing or empty"
	}
	if len(name) > MaxCharacters && utf8.RuneCountInString(name) > MaxCharacters {
		return "must have 256 characters at most"
	}
	for at := 0; at < len(name); at++ {
		c := name[at]
		if c < 0x20 || c == 0x7f || c == 0xc2 && at+1 < len(name) && name[at+1] < 0xa0 {
			return "must not hold control characters"
		}
	}
	// Go's decoders put U+FFFD in the place of a lone surrogate.
	if escapes && strings.ContainsRune(name, utf8.RuneError) {
		return "must not hold lone surrogates"
	}
	return ""
}

func numberRule(number *int64) string {
	switch {
	case number == nil:
		return "is missing"
	case *number < 0 || *number > MaxInteger:
		return "must be an integer of 0..2^53-1"
	}
	return ""
}

// AppendKey appends the canonical key of the flow in the log: ["foo","bar","vpc-0",1].
func (f *Flow) AppendKey(to []byte) []byte {
	to = appendString(append(to, '['), f.SrcApp)
	to = appendString(append(to, ','), f.DestApp)
	to = appendString(append(to, ','), f.VpcID)
	return append(strconv.AppendInt(append(to, ','), *f.Hour, 10), ']')
}

// AppendValue appends the value of the flow in the log: {"bytes_tx":100,"bytes_rx":300}.
func (f *Flow) AppendValue(to []byte) []byte {
	to = strconv.AppendInt(append(to, `{"bytes_tx":`...), *f.BytesTx, 10)
	return append(strconv.AppendInt(append(to, `,"bytes_rx":`...), *f.BytesRx, 10), '}')
}

// appendString appends a name as JSON. A valid one has no control characters, so these two alone need an escape.
func appendString(to []byte, name string) []byte {
	to = append(to, '"')
	if strings.IndexByte(name, '"') < 0 && strings.IndexByte(name, '\\') < 0 {
		to = append(to, name...)
	} else {
		for at := 0; at < len(name); at++ {
			if c := name[at]; c == '"' || c == '\\' {
				to = append(to, '\\')
			}
			to = append(to, name[at])
		}
	}
	return append(to, '"')
}
