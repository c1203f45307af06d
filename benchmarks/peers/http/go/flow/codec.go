package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unsafe"

	"github.com/bytedance/sonic"
	goccy "github.com/goccy/go-json"
)

// Codec is a JSON library: all of them decode the same types, so that nothing else differs.
type Codec struct {
	Unmarshal func(body []byte, into *[]Flow) error
	Marshal   func(rows []Row) ([]byte, error)
}

// CodecNamed is std (encoding/json), goccy or sonic.
func CodecNamed(name string) (Codec, error) {
	switch name {
	case "std":
		return Codec{
			func(body []byte, into *[]Flow) error { return json.Unmarshal(body, into) },
			func(rows []Row) ([]byte, error) {
				var to bytes.Buffer
				encoder := json.NewEncoder(&to)
				encoder.SetEscapeHTML(false)
				err := encoder.Encode(rows)
				return bytes.TrimSuffix(to.Bytes(), []byte("\n")), err
			},
		}, nil
	case "goccy":
		return Codec{
			func(body []byte, into *[]Flow) error { return goccy.Unmarshal(body, into) },
			func(rows []Row) ([]byte, error) {
				return goccy.MarshalWithOption(rows, goccy.DisableHTMLEscape())
			},
		}, nil
	case "sonic":
		return Codec{
			func(body []byte, into *[]Flow) error {
				// Its fast way: names point into the body instead of being copied. The body outlives the flows here.
				return sonic.ConfigDefault.UnmarshalFromString(unsafe.String(unsafe.SliceData(body), len(body)), into)
			},
			func(rows []Row) ([]byte, error) { return sonic.ConfigDefault.Marshal(rows) },
		}, nil
	}
	return Codec{}, fmt.Errorf("-json %q: one of std, goccy, sonic", name)
}
