#!/bin/sh
# Make the key of a site, on the site: the private half never leaves it.
#
#   site-key.sh FILE                                 such as: /etc/waggle/site.key
#
# Send FILE.pub to the operator, who registers it once, before the site starts:
#   flwr supernode register site.key.pub CONNECTION --name NAME
set -eu
[ $# -eq 1 ] || { sed -n '2,7p' "$0"; exit 2; }
umask 077
mkdir -p "$(dirname "$1")"
ssh-keygen -q -t ecdsa -b 384 -N "" -C "" -f "$1"
echo "$1.pub: send it to the operator of the SuperLink"
