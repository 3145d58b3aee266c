#!/bin/sh
# Installs Debian packages where that needs no question: as root, or with a sudo that asks for no password.
# Anywhere else it says in one line what to install, and fails.
#
#   scripts/apt-install.sh PURPOSE PACKAGE...
set -eu

purpose=$1
shift

if [ "$(id -u)" -eq 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo='sudo -n'
else
    sudo=refused
fi

if ! command -v apt-get >/dev/null; then
    echo "error: $purpose needs what Debian calls $*; install it with this system's package manager, then run make again" >&2
    exit 1
fi
if [ "$sudo" = refused ]; then
    echo "error: $purpose needs $*; run 'apt-get install $*' as root or by sudo, then run make again" >&2
    exit 1
fi

echo "Installing for $purpose, with apt-get: $*" >&2
apt() {
    $sudo env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
}
# One broken source among several must not stop what the others can give: the install is what counts.
apt update || true
apt install -y --no-install-recommends "$@"
