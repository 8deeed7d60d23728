#!/bin/sh
# Make a certificate authority, and the SuperLink's certificate for the names under which it is
# reached.
#
#   certificates.sh FOLDER NAME-OR-ADDRESS ...       such as: /etc/waggle/certificates fl.example.org
#
# Sites get ca.crt. ca.key and server.key never leave this machine. A certificate lasts DAYS (825);
# run it again to renew the server's: the authority stays, and no site has to change anything.
set -eu
[ $# -ge 2 ] || { sed -n '2,8p' "$0"; exit 2; }
folder=$1
shift
umask 077
mkdir -p "$folder"
cd "$folder"

names="DNS:localhost,IP:127.0.0.1"
for name in "$@"; do
    case $name in
        localhost | 127.0.0.1) ;;
        *[!0-9.]*) names="$names,DNS:$name" ;;
        *) names="$names,IP:$name" ;;
    esac
done

if [ ! -e ca.key ]; then
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=federation authority" \
        -addext "basicConstraints=critical,CA:TRUE" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.crt
fi
openssl ecparam -name prime256v1 -genkey -noout -out server.key
openssl req -new -key server.key -subj "/CN=$1" -out server.csr
cat >server.cnf <<EOF
subjectAltName=$names
extendedKeyUsage=serverAuth
basicConstraints=CA:FALSE
keyUsage=critical,digitalSignature
EOF
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
    -days "${DAYS:-825}" -sha256 -extfile server.cnf -out server.crt 2>/dev/null
rm server.csr server.cnf
chmod 644 ca.crt server.crt
echo "$folder: ca.crt for the sites, server.crt and server.key for the SuperLink ($names)"
