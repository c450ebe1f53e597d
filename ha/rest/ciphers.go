package rest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// suite is a cipher suite of TLS 1.2 with OpenSSL's name and the words of its language that include it.
type suite struct {
	id      uint16
	openssl string
	words   []string
}

// suites are those that Go has for TLS 1.2, in the order in which it prefers them.
func suites() []suite {
	w := func(id uint16, openssl string, words ...string) suite { return suite{id, openssl, words} }
	return []suite{
		w(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE", "ECDSA", "AES", "AES128", "AESGCM", "SHA256"),
		w(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE", "ARSA", "AES", "AES128", "AESGCM", "SHA256"),
		w(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE", "ECDSA", "AES", "AES256", "AESGCM", "SHA384"),
		w(tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE", "ARSA", "AES", "AES256", "AESGCM", "SHA384"),
		w(tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE", "ECDSA", "CHACHA20", "SHA256"),
		w(tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE", "ARSA", "CHACHA20", "SHA256"),
		w(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA", "ECDHE", "ECDSA", "AES", "AES128", "SHA", "SHA1"),
		w(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA", "ECDHE", "ARSA", "AES", "AES128", "SHA", "SHA1"),
		w(tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA", "ECDHE", "ECDSA", "AES", "AES256", "SHA", "SHA1"),
		w(tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA", "ECDHE", "ARSA", "AES", "AES256", "SHA", "SHA1"),
		w(tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "AES128-GCM-SHA256", "KRSA", "ARSA", "AES", "AES128", "AESGCM", "SHA256"),
		w(tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "AES256-GCM-SHA384", "KRSA", "ARSA", "AES", "AES256", "AESGCM", "SHA384"),
		w(tls.TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA", "KRSA", "ARSA", "AES", "AES128", "SHA", "SHA1"),
		w(tls.TLS_RSA_WITH_AES_256_CBC_SHA, "AES256-SHA", "KRSA", "ARSA", "AES", "AES256", "SHA", "SHA1"),
	}
}

// cipherSuites reads OpenSSL's list of ciphers as far as Go's suites go. Names are added in their order; a word with !
// or - takes away, also words that name what Go does not have, such as aNULL. Empty: nil, Go's own choice.
func cipherSuites(list string) ([]uint16, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	all := suites()
	var out, banned []uint16
	for _, token := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' || r == ';' }) {
		op := token[0]
		word := strings.TrimLeft(token, "!-+")
		if strings.HasPrefix(word, "@") || strings.HasPrefix(word, "TLS_AES_") || strings.HasPrefix(word, "TLS_CHACHA20_") {
			continue // an order, and suites of TLS 1.3, which are always there
		}
		found := matching(all, word)
		switch {
		case op == '!':
			banned = append(banned, found...)
		case op == '-':
			out = slices.DeleteFunc(out, func(id uint16) bool { return slices.Contains(found, id) })
		case op == '+':
		case len(found) == 0:
			return nil, fmt.Errorf("%q is no suite that is supported; among others %s is", token, all[0].openssl)
		}
		for _, id := range found {
			if op != '!' && op != '-' && op != '+' && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	out = slices.DeleteFunc(out, func(id uint16) bool { return slices.Contains(banned, id) })
	if len(out) == 0 {
		return nil, errors.New("no suite is left")
	}
	return out, nil
}

// matching are the suites that a name or words joined by + stand for.
func matching(all []suite, expression string) []uint16 {
	var out []uint16
	for _, s := range all {
		if expression == s.openssl || expression == tls.CipherSuiteName(s.id) {
			return []uint16{s.id}
		}
		ok := true
		for word := range strings.SplitSeq(expression, "+") {
			ok = ok && s.has(word)
		}
		if ok {
			out = append(out, s.id)
		}
	}
	return out
}

func (s suite) has(word string) bool {
	switch word = strings.ToUpper(word); word {
	case "ALL", "DEFAULT", "HIGH", "TLSV1.2", "COMPLEMENTOFDEFAULT":
		return word != "COMPLEMENTOFDEFAULT" && (word != "TLSV1.2" || !slices.Contains(s.words, "SHA1"))
	case "EECDH", "KECDHE", "KEECDH":
		word = "ECDHE"
	case "AECDSA":
		word = "ECDSA"
	case "RSA":
		word = "KRSA"
	}
	return slices.Contains(s.words, word)
}
