#!/usr/bin/env bash
# usage: consul.sh [FILE]
#
# Builds the Consul server that dcs/dcstest/servers/testdata/consul/go.mod pins, unless it is in the cache already (PGREGENT_CACHE, see env),
# and prints where it is. FILE, when given, becomes a link to it. Several may run at once; a file that exists is whole.
set -euo pipefail
umask 022
file=${1:-}
case $file in "" | /*) ;; *) file=$PWD/$file ;; esac
cd "$(dirname "$0")/../dcs/dcstest/servers/testdata/consul"

if [ -n "${PGREGENT_CACHE:-}" ]; then cache=$PGREGENT_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/pgregent
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgregent; fi

version=$(sed -nE 's|^[[:space:]]*(require )?github\.com/hashicorp/consul v([^ ]+).*|\2|p' go.mod)
[ -n "$version" ] || { echo "consul.sh: $PWD/go.mod does not pin github.com/hashicorp/consul" >&2; exit 1; }
bin=$cache/bin/consul-$version
mkdir -p "$cache/bin"

if ! [ -x "$bin" ]; then
	exec 8>"$cache/bin/.consul.lock"
	flock -w 1800 8 || { echo "consul.sh: another run has held $cache/bin/.consul.lock for half an hour" >&2; exit 1; }
	if ! [ -x "$bin" ]; then # nobody built it while we waited
		trap 'rm -f "$bin.new"' EXIT
		# Not in the workspace: the server is built with the versions that its own module pins.
		GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$bin.new" github.com/hashicorp/consul >&2
		"$bin.new" version >/dev/null
		mv "$bin.new" "$bin"
	fi
fi

if [ -n "$file" ] && [ "$file" != "$bin" ] && [ "$(readlink "$file" || true)" != "$bin" ]; then
	link=$(mktemp -u "$file.XXXXXX")
	ln -s "$bin" "$link"
	mv -T "$link" "$file"
fi
echo "$bin"
