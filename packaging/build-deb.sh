#!/bin/bash
# packaging/build-deb.sh [OUTPUT_DIRECTORY]: builds the Debian package, source and binary, into dist/ or the given
# directory. Build-Depends of packaging/debian/control must be installed; `make deb` installs them.
#
# In a git tree it builds what is committed, so that every package corresponds to a commit, and lists what is not
# committed. It builds a tree without .git as it is, except dist/.
#
# The same commit gives the same bytes; `make release` checks that. Time stamps are SOURCE_DATE_EPOCH: if it is not
# set, the time of the commit, and without .git that of the top entry of packaging/debian/changelog.
set -euo pipefail
umask 022

top=$(cd "$(dirname "$0")/.." && pwd)
output=${1:-$top/dist}
mkdir -p "$output"
output=$(cd "$output" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/stardust
mkdir "$source"

if [ -e "$top/.git" ]; then
	export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct)}
	git -C "$top" -c tar.umask=0022 archive HEAD | tar -x -C "$source"
	changes=$(git -C "$top" status --short)
	if [ -n "$changes" ]; then
		printf 'Not committed, hence not in the package:\n%s\n' "$changes" >&2
	fi
else
	tar -c --exclude=./dist -C "$top" . | tar -x -C "$source"
fi

# The tools of Debian insist on ./debian, a real directory. -L: its units are links to packaging/systemd.
cp -RL "$source/packaging/debian" "$source/debian"
cd "$source"
# Only Debian's own programs: a Python in /usr/local or in a virtual environment is not the one that is packaged for.
PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -us -uc
mv "$work"/stardust_* "$output"
