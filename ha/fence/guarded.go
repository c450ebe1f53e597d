//go:build !pgregent_unguarded

package fence

// unguarded is false in every build but the one that the tests make with the tag pgregent_unguarded, to see what happens
// without a guard: no deadline, no kernel timer, no death signal, and nobody ends the orphans of a postmaster.
const unguarded = false
