#!/usr/bin/env bash
# usage: suite-root.sh [-n] SUITE DIR PACKAGE...
#
# Unpacks packages of another Debian suite below DIR without installing anything: apt works in a private root (own
# package lists, own empty dpkg status), the archives are extracted, and every ELF program is pointed at the loader and
# the libraries of the same suite, so that DIR/usr/lib/postgresql/18/bin/postgres runs on an older system as it is.
# The mirror is the one that this system's apt uses already. Works unprivileged, too.
#
#   -n   only the named packages, without what they depend on (for programs of the system's own interpreter)
#
# Done once: DIR/.suite-root holds the request, and a call with the same request returns at once. A folder without it is
# a broken-off attempt and is built again from nothing.
set -euo pipefail
umask 022

fail() { echo "suite-root.sh: $*" >&2; exit 1; }

closure=yes request=
if [ "${1:-}" = -n ]; then closure=no request="-n "; shift; fi
[ $# -ge 3 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
suite=$1 dir=$2
shift 2

request+="$suite $*"
if [ -f "$dir/.suite-root" ] && [ "$(cat "$dir/.suite-root")" = "$request" ]; then exit 0; fi
for tool in apt-get dpkg-deb patchelf; do
	command -v "$tool" >/dev/null || fail "$tool is missing; install it (apt-get install apt dpkg patchelf)"
done

# What this system's apt reads from: the deb822 form first, then the one-line form.
mirror() {
	local file
	for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
		[ -r "$file" ] || continue
		awk '
			$1 == "URIs:" { print $2; exit }
			$1 == "deb"   { for (i = 2; i <= NF; i++) if ($i ~ /^https?:\/\//) { print $i; exit } }
		' "$file"
	done | head -n 1
}

from=$(mirror)
[ -n "$from" ] || fail "apt's sources name no Debian mirror (debian.sources, sources.list)"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "$keyring is missing; install debian-archive-keyring"

private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
chmod 755 "$private"
mkdir -p "$private/lists/partial" "$private/cache/archives/partial" "$private/debs"
: >"$private/status"
echo "deb [signed-by=$keyring] $from $suite main" >"$private/sources.list"

private_apt() {
	apt-get -qq \
		-o Dir::Etc::SourceList="$private/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State="$private" -o Dir::State::Lists="$private/lists" -o Dir::State::Status="$private/status" \
		-o Dir::Cache="$private/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

private_apt update >&2
if [ "$closure" = yes ]; then
	private_apt -y --no-install-recommends --download-only install "$@" >/dev/null
	mv "$private"/cache/archives/*.deb "$private/debs/"
else
	(cd "$private/debs" && private_apt download "$@" >/dev/null)
fi

rm -rf "$dir"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
for deb in "$private"/debs/*.deb; do dpkg-deb -x "$deb" "$dir"; done

if [ "$closure" = yes ]; then
	loader=$(find "$dir" -type f -name 'ld-linux*.so.*' -print -quit)
	[ -n "$loader" ] || fail "no dynamic loader among the packages of $suite"
	libraries=$(find "$dir" -maxdepth 3 -type d -path '*/lib/*-linux-gnu*' | paste -sd:)
	# DT_RPATH, not DT_RUNPATH: only the former also serves what the libraries themselves ask for. Loader, libc and the
	# libraries stay as they are.
	while IFS= read -r -d '' file; do
		[ "$(LC_ALL=C head -c 4 "$file" | tr -d '\0')" = $'\x7fELF' ] || continue
		if patchelf --print-interpreter "$file" >/dev/null 2>&1; then patchelf --set-interpreter "$loader" "$file"; fi
		patchelf --force-rpath --set-rpath "$libraries" "$file"
	done < <(find "$dir" -type f \( -path "$dir/usr/bin/*" -o -path "$dir/usr/sbin/*" -o -path "$dir/usr/lib/postgresql/*" \) \( -perm -u+x -o -name '*.so' \) -print0 2>/dev/null)
fi

echo "$request" >"$dir/.suite-root"
