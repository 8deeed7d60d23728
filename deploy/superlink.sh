#!/bin/sh
# The SuperLink: TLS, registered sites only, and apps in another process, of another user.
#
# It listens on loopback: sites come through the proxy (nginx.conf), which lets the fleet API
# through and nothing else. Apps are not run here but by superexec.sh, which holds the secret.
set -eu
. "$(dirname "$0")/settings.sh"
export FLWR_HOME="$WAGGLE_STATE/superlink"
mkdir -p "$FLWR_HOME"
if [ ! -e "$secret" ]; then
    (umask 027 && head -c 32 /dev/urandom | base64 -w0 >"$secret")
fi
cd "$FLWR_HOME"
exec flower-superlink --host "$SUPERLINK_HOST" --port "$SUPERLINK_PORT" \
    --ssl-certfile "$certificates/server.crt" --ssl-keyfile "$certificates/server.key" \
    --ssl-ca-certfile "$certificates/ca.crt" \
    --enable-supernode-auth \
    --isolation process --superexec-auth-secret-file "$secret" \
    --database "$FLWR_HOME/state.db" \
    --log-file "$FLWR_HOME/superlink.log" \
    --log-rotation-interval-hours 24 --log-rotation-backup-count 14 \
    --disable-runtime-dependency-installation
