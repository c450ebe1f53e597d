//go:build pgregent_unguarded

package fence

const unguarded = true
