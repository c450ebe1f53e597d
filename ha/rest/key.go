package rest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // the cipher that OpenSSL 3.0 protects keys with unless told otherwise
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // the PRF that a key file names
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// openKey decrypts the private keys in a PEM file: in PEM's old way, and in PKCS #8 with PBES2, PBKDF2, and AES or
// triple DES, as OpenSSL writes them. What is not encrypted stays as it is.
func openKey(file []byte, password string) ([]byte, error) {
	var out bytes.Buffer
	for rest := file; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		var der []byte
		var err error
		switch {
		case b.Type == "ENCRYPTED PRIVATE KEY":
			der, err = decryptPKCS8(b.Bytes, password)
			b = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
		case strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
			//lint:ignore SA1019 files of this kind exist, and Patroni reads them
			der, err = x509.DecryptPEMBlock(b, []byte(password))
			b = &pem.Block{Type: b.Type, Bytes: der}
		}
		if err != nil {
			return nil, err
		}
		if err := pem.Encode(&out, b); err != nil {
			return nil, err
		}
	}
	if out.Len() == 0 {
		return file, nil
	}
	return out.Bytes(), nil
}

type encryptedKey struct {
	Algorithm struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			KDF    pkix.AlgorithmIdentifier
			Cipher pkix.AlgorithmIdentifier
		}
	}
	Data []byte
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// decryptPKCS8 reads RFC 5208's EncryptedPrivateKeyInfo with RFC 8018's PBES2.
func decryptPKCS8(der []byte, password string) ([]byte, error) {
	var k encryptedKey
	if _, err := asn1.Unmarshal(der, &k); err != nil || k.Algorithm.ID.String() != "1.2.840.113549.1.5.13" {
		return nil, errors.New("its encryption is not known: PBES2 is; write it again with openssl pkcs8 -topk8 -v2 aes256")
	}
	var p pbkdf2Params
	if _, err := asn1.Unmarshal(k.Algorithm.Params.KDF.Parameters.FullBytes, &p); err != nil || k.Algorithm.Params.KDF.Algorithm.String() != "1.2.840.113549.1.5.12" {
		return nil, errors.New("its key derivation is not known: PBKDF2 is")
	}
	var prf func() hash.Hash
	switch oid := p.PRF.Algorithm.String(); oid {
	case "", "1.2.840.113549.2.7":
		prf = sha1.New
	case "1.2.840.113549.2.9":
		prf = sha256.New
	case "1.2.840.113549.2.11":
		prf = sha512.New
	default:
		return nil, fmt.Errorf("its PBKDF2 function %s is not known", oid)
	}
	size, cipherOf := keyCipher(k.Algorithm.Params.Cipher.Algorithm.String())
	var iv []byte
	if _, err := asn1.Unmarshal(k.Algorithm.Params.Cipher.Parameters.FullBytes, &iv); err != nil || size == 0 {
		return nil, errors.New("its cipher is not known: AES and triple DES in CBC mode are")
	}
	if p.Iterations <= 0 || p.Iterations > 10_000_000 {
		return nil, errors.New("it is damaged")
	}
	key, err := pbkdf2.Key(prf, password, p.Salt, p.Iterations, size)
	if err != nil {
		return nil, err
	}
	block, err := cipherOf(key)
	if err != nil {
		return nil, err
	}
	if n := len(k.Data); n == 0 || n%block.BlockSize() != 0 || len(iv) != block.BlockSize() {
		return nil, errors.New("it is damaged")
	}
	out := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, k.Data)
	pad := int(out[len(out)-1])
	if pad == 0 || pad > block.BlockSize() || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errors.New("the password is wrong")
	}
	return out[:len(out)-pad], nil
}

// keyCipher is the cipher of an object identifier, and the length of its key; 0: not known.
func keyCipher(oid string) (size int, newCipher func([]byte) (cipher.Block, error)) {
	switch oid {
	case "2.16.840.1.101.3.4.1.2":
		return 16, aes.NewCipher
	case "2.16.840.1.101.3.4.1.22":
		return 24, aes.NewCipher
	case "2.16.840.1.101.3.4.1.42":
		return 32, aes.NewCipher
	case "1.2.840.113549.3.7":
		return 24, des.NewTripleDESCipher
	}
	return 0, nil
}
