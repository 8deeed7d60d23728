#!/bin/sh
# The executor of server apps: it starts one process for each run, as its own user.
#
# A run is Python code that somebody submitted. Its process can read what this user can read and
# write what this user can write: the apps and the outputs, not the SuperLink's keys and database.
set -eu
. "$(dirname "$0")/settings.sh"
export FLWR_HOME="$WAGGLE_STATE/superexec"
mkdir -p "$FLWR_HOME/work" "$WAGGLE_OUTPUTS"
cd "$FLWR_HOME/work"
exec flower-superexec --runtime-api-address "$SUPERLINK_HOST:$SUPERLINK_PORT" \
    --root-certificates "$certificates/ca.crt" --superexec-auth-secret-file "$secret"
