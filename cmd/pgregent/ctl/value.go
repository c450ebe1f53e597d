package ctl

import (
	"encoding/json"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"
)

// null is shown as Python shows it.
type none struct{}

// String is Python's word.
func (none) String() string { return "None" }

// MarshalJSON is JSON's.
func (none) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// boolean is shown as Python shows it.
type boolean bool

// String is Python's word.
func (b boolean) String() string {
	if b {
		return "True"
	}
	return "False"
}

// value is a field in text form, as the types make it: numbers and booleans are no texts in JSON and YAML.
func value(v []byte, oid uint32) any {
	if v == nil {
		return none{}
	}
	switch oid {
	case pgtype.BoolOID:
		return boolean(string(v) == "t")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
	case pgtype.Float4OID, pgtype.Float8OID:
		if _, err := strconv.ParseFloat(string(v), 64); err == nil && json.Valid(v) {
			return json.Number(v)
		}
	}
	return string(v)
}
