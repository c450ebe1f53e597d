package cluster

import "github.com/pgregent/pgregent/postgres/wal"

// Branch is one server's WAL as others can compare it: the way it has come, where it ends, and the identities of the
// promotions on that way as far as they are known.
type Branch struct {
	History    wal.History
	End        wal.Position // LSN 0: not known
	Promotions []Promotion
}

// Relation is how one branch stands to another; see Compare.
type Relation int

// Relations.
const (
	RelationUnknown        Relation = iota // not enough is known
	RelationBehind                         // all of mine is on theirs: I can stream from them
	RelationDiverged                       // mine has WAL after the fork that theirs lacks: rewind
	RelationOtherPromotion                 // the same timeline number, another promotion: pg_rewind cannot tell; clone
)
