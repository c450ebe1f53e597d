// Package pgregent keeps one PostgreSQL cluster highly available. This package holds no code: it is the map of the
// library.
package pgregent
