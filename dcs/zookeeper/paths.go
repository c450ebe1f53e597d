package zookeeper

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/pgregent/pgregent/dcs"
)

// pathOf is the node of a key. Each part between slashes is the same as in the key, except for what ZooKeeper does not
// take: such bytes become %XX, and so does a '%' that would otherwise read as the beginning of one.
func (s *Store) pathOf(key string) (string, error) {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		if p == "" {
			return "", fmt.Errorf("%w: the key %q has an empty part, which ZooKeeper does not take", dcs.ErrMalformed, key)
		}
		parts[i] = encode(p)
	}
	return s.prefix + "/" + strings.Join(parts, "/"), nil
}

// keyOf is the reverse of pathOf, for a node below the prefix.
func (s *Store) keyOf(node string) string {
	parts := strings.Split(strings.TrimPrefix(node, s.prefix+"/"), "/")
	for i, p := range parts {
		parts[i] = decode(p)
	}
	return strings.Join(parts, "/")
}

func encode(part string) string {
	if part == "." || part == ".." {
		return strings.ReplaceAll(part, ".", "%2E")
	}
	var b strings.Builder
	for i := 0; i < len(part); {
		r, n := utf8.DecodeRuneInString(part[i:])
		_, escape := unhex(part[i:])
		if escape || !taken(r, n) {
			for _, c := range []byte(part[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(part[i : i+n])
		}
		i += n
	}
	return b.String()
}

// taken says whether ZooKeeper takes a character. The server looks at UTF-16: what lies above 0xffff is made of surrogates
// there, which it refuses (org.apache.zookeeper.common.PathUtils).
func taken(r rune, bytes int) bool {
	switch {
	case r == utf8.RuneError && bytes <= 1,
		r <= 0x1f, r >= 0x7f && r <= 0x9f, r >= 0xd800 && r <= 0xf8ff, r >= 0xfff0:
		return false
	}
	return true
}

func decode(part string) string {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if c, ok := unhex(part[i:]); ok {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

// unhex is the byte that a text begins with in the form %XX.
func unhex(text string) (byte, bool) {
	if len(text) < 3 || text[0] != '%' {
		return 0, false
	}
	var c byte
	for _, d := range []byte(text[1:3]) {
		switch {
		case d >= '0' && d <= '9':
			c = c<<4 | (d - '0')
		case d >= 'A' && d <= 'F':
			c = c<<4 | (d - 'A' + 10)
		case d >= 'a' && d <= 'f':
			c = c<<4 | (d - 'a' + 10)
		default:
			return 0, false
		}
	}
	return c, true
}

// foldersOf are the folders that a node lies in, the outermost first, without the root.
func foldersOf(node string) []string {
	var all []string
	for dir := path.Dir(node); dir != "/"; dir = path.Dir(dir) {
		all = append([]string{dir}, all...)
	}
	return all
}

func checkPrefix(prefix string) error {
	switch {
	case prefix == "":
		return errors.New("the prefix is empty; want /namespace/scope")
	case prefix[0] != '/':
		return fmt.Errorf("the prefix %q does not begin with '/'; want /namespace/scope", prefix)
	case strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//"):
		return fmt.Errorf("the prefix %q has an empty part; want /namespace/scope", prefix)
	}
	return nil
}

// encodePrefix is the node of a prefix.
func encodePrefix(prefix string) string {
	parts := strings.Split(prefix[1:], "/")
	for i, p := range parts {
		parts[i] = encode(p)
	}
	return "/" + strings.Join(parts, "/")
}
