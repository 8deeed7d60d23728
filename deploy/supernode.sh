#!/bin/sh
# The SuperNode of a site: it takes messages from the federation and runs the client app on them.
#
# Its site policy is read before it starts: a mistake in it stops the node, and not the first round.
set -eu
. "$(dirname "$0")/settings.sh"
export FLWR_HOME="$WAGGLE_STATE/supernode"
mkdir -p "$FLWR_HOME/work"
policy=$(printf '%s\n' "$NODE_CONFIG" | sed -n 's/.*site-policy="\([^"]*\)".*/\1/p')
if [ -n "$policy" ]; then
    "${PYTHON:-python3}" -m fedwaggle.site.policy "$policy"
fi
cd "$FLWR_HOME/work"
exec flower-supernode --superlink "$FEDERATION" --root-certificates "$certificates/ca.crt" \
    --auth-supernode-private-key "$NODE_KEY" \
    --host 127.0.0.1 --port "$NODE_PORT" ${NODE_CONFIG:+--node-config "$NODE_CONFIG"}
