package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

func bad(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// raw reads a request's body: bounded, and of a length that the client named (reference section 2.1). Nothing is nil
// when the body may be missing.
func (x *exchange) raw(optional bool) ([]byte, *refusal) {
	switch n := x.req.ContentLength; {
	case n < 0 || n == 0 && x.req.Header.Get("Content-Length") == "" && !optional:
		return nil, &refusal{http.StatusLengthRequired, "Error code: 411\nMessage: Length Required.\nError code explanation: 411 - Client must specify Content-Length."}
	case n == 0 && optional:
		return nil, nil
	case n == 0:
		return nil, bad("the body is missing: a JSON object is needed")
	case n > maxRequest:
		return nil, tooLarge()
	}
	b, err := io.ReadAll(io.LimitReader(x.req.Body, maxRequest+1))
	if err != nil {
		return nil, bad("the body cannot be read: %v", err)
	}
	if len(b) > maxRequest {
		return nil, tooLarge()
	}
	return b, nil
}

func tooLarge() *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, "the body is larger than 64 kB"}
}

// object reads a request's JSON object strictly: bounded, an object, not empty unless it may be missing, nothing behind
// it. Numbers keep their spelling.
func (x *exchange) object(optional bool) (map[string]any, *refusal) {
	b, no := x.raw(optional)
	if no != nil || b == nil {
		return nil, no
	}
	m, err := parseObject(b)
	if err != nil {
		return nil, bad("the body is no JSON object: %v", err)
	}
	if len(m) == 0 && !optional {
		return nil, bad("the body is an empty JSON object")
	}
	return m, nil
}

func parseObject(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, clean(err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it begins with something else than {")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind it")
	}
	return m, nil
}

// clean keeps an error of the JSON parser to what is wrong, and where.
func clean(err error) error {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return fmt.Errorf("%s, at byte %d", s.Error(), s.Offset)
	}
	return errors.New("it ends too early")
}

// only refuses a field that the request does not have.
func only(m map[string]any, known ...string) *refusal {
	for _, k := range sortedKeys(m) {
		if !slices.Contains(known, k) {
			return bad("%s: is no field of this request; it has %s", name(k), strings.Join(known, ", "))
		}
	}
	return nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// name is a client's own word in an answer: bounded, and on one line.
func name(k string) string {
	if len(k) > 100 {
		k = k[:100] + "..."
	}
	if q := fmt.Sprintf("%q", k); q != `"`+k+`"` || k == "" {
		return q
	}
	return k
}

// textField reads the first of the fields that is there and not empty; null is as good as missing.
func textField(m map[string]any, keys ...string) (string, *refusal) {
	found := ""
	for _, k := range keys {
		switch v := m[k].(type) {
		case nil:
		case string:
			if len(v) > maxName {
				return "", bad("%s: is longer than a name", k)
			}
			if found == "" {
				found = v
			}
		default:
			return "", bad("%s: must be a text", k)
		}
	}
	return found, nil
}

// boolField reads a switch; null is as good as missing.
func boolField(m map[string]any, keys ...string) (bool, *refusal) {
	found := false
	for _, k := range keys {
		switch v := m[k].(type) {
		case nil:
		case bool:
			found = found || v
		default:
			return false, bad("%s: must be true or false", k)
		}
	}
	return found, nil
}
