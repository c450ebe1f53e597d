package fence

import "testing"

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"start","start":{"path":"/bin/true"}}`))
	f.Add([]byte(`{"id":2,"op":"extend","term":{"epoch":1,"deadline":5}}`))
	f.Add([]byte(`{"id":3,"op":"hello","version":2,"options":{"data_dir":"/x","watchdog":{"mode":"required"}}}`))
	f.Add([]byte(`{"id":4,"op":"stop","mode":"fast"}`))
	f.Add([]byte(`{"id":5,"op":"adopt","pid":7}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err == nil && (r.ID == 0 || r.Op == "" || (r.Op == "start" && r.Start == nil)) {
			t.Fatalf("accepted %q as %+v", b, r)
		}
	})
}
