package cluster

import (
	"encoding/json"
	"fmt"
)

// EncodeNote is the opaque note of the lease record. Of more than MaxPromotions earlier promotions the oldest are left
// out.
func EncodeNote(n Note) ([]byte, error) {
	n.Promotions = n.Promotions[max(0, len(n.Promotions)-MaxPromotions):]
	b, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("cluster: the lease note cannot be written: %w", err)
	}
	return b, nil
}

// ParseNote reads the note of a lease record; nothing is an empty note, and fields that this version does not know are
// passed over. A note that cannot be read is an error and never half a note: an identity that is taken for missing would
// make two promotions look like one.
func ParseNote(b []byte) (Note, error) {
	var n Note
	if len(b) == 0 {
		return n, nil
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return Note{}, fmt.Errorf("cluster: the lease note cannot be read: %w", err)
	}
	return n, nil
}
