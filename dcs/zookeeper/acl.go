package zookeeper

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
)

// acls is what nodes are created with: Config.SetACLs, or that everybody may do everything.
func (c Config) acls() ([]zk.ACL, error) {
	if len(c.SetACLs) == 0 {
		return zk.WorldACL(zk.PermAll), nil
	}
	perms := map[string]int32{"READ": zk.PermRead, "WRITE": zk.PermWrite, "CREATE": zk.PermCreate, "DELETE": zk.PermDelete, "ADMIN": zk.PermAdmin, "ALL": zk.PermAll}
	var all []zk.ACL
	for _, principal := range slices.Sorted(maps.Keys(c.SetACLs)) {
		acl := zk.ACL{Scheme: "x509", ID: principal}
		if scheme, id, found := strings.Cut(principal, ":"); found {
			acl.Scheme, acl.ID = scheme, id
		}
		for _, name := range c.SetACLs[principal] {
			p, known := perms[strings.ToUpper(name)]
			if !known {
				return nil, fmt.Errorf("set_acls: the permission %q of %s is unknown; want CREATE, READ, WRITE, DELETE, ADMIN or ALL", name, principal)
			}
			acl.Perms |= p
		}
		if acl.Perms == 0 {
			return nil, fmt.Errorf("set_acls: %s has no permission; want some of CREATE, READ, WRITE, DELETE, ADMIN, ALL", principal)
		}
		all = append(all, acl)
	}
	return all, nil
}
