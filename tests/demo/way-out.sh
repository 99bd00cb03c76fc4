#!/usr/bin/env bash
# An HTTP proxy for one connection to one place: CONNECT to $WAY_OUT, and nothing else. socat runs it for each client, with the
# client at its standard input and output, in the cluster's network; file descriptors 6 and 7 are the files and the network of the machine,
# where names are resolved and connections made.
set -euo pipefail
read -r method target _
while read -r header && [[ $header != $'\r' ]]; do :; done
if [[ $method != CONNECT || $target != "$WAY_OUT" ]]; then
    printf 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    exit
fi
printf 'HTTP/1.1 200 Connection established\r\n\r\n'
exec nsenter --mount=/proc/self/fd/6 --net=/proc/self/fd/7 socat STDIO "TCP:$target"
