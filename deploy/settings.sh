# Where things are. Each script reads this file; the environment counts before it. systemd and
# compose set the same names.
: "${WAGGLE_ETC:=/etc/waggle}"               # certificates, keys, the secret
: "${WAGGLE_STATE:=/var/lib/waggle}"         # databases, apps, outputs, logs
: "${SUPERLINK_HOST:=127.0.0.1}"             # the proxy in front is on the same machine
: "${SUPERLINK_PORT:=8000}"
: "${FEDERATION:=127.0.0.1:8443}"            # what a site connects to: the proxy
: "${NODE_PORT:=9094}"                       # of a site's own loopback port
: "${NODE_KEY:=$WAGGLE_ETC/site.key}"
: "${NODE_CONFIG:=}"                         # such as: data-path="/data" site-policy="/etc/waggle/site-policy.toml"
: "${WAGGLE_OUTPUTS:=$WAGGLE_STATE/outputs}"
export FLWR_TELEMETRY_ENABLED="${FLWR_TELEMETRY_ENABLED:-0}"
export FLWR_DISABLE_UPDATE_CHECK="${FLWR_DISABLE_UPDATE_CHECK:-1}"
export WAGGLE_OUTPUTS
certificates=$WAGGLE_ETC/certificates
secret=$WAGGLE_ETC/superexec.secret
