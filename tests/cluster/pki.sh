#!/usr/bin/env bash
# Makes the cluster's certificate authority, every certificate that it signs, and every kubeconfig. Usage: pki.sh
# A real authority, since TLS libraries such as rustls refuse a server certificate that signs itself.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

umask 077
mkdir -p "$state/pki"
cd "$state/pki"

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }

# authority FILE SUBJECT
authority() {
    key "$1"
    openssl req -x509 -new -key "$1.key" -days 365 -subj "$2" -out "$1.crt" \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
}

# certificate FILE SUBJECT USAGE [NAMES [AUTHORITY]]
certificate() {
    local by=${5:-ca}
    key "$1"
    openssl req -new -key "$1.key" -subj "$2" | openssl x509 -req -CA "$by.crt" -CAkey "$by.key" -days 365 -out "$1.crt" 2>/dev/null \
        -extfile <(printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
            "extendedKeyUsage=$3" 'authorityKeyIdentifier=keyid' ${4:+"subjectAltName=$4"})
}

# kubeconfig FILE SUBJECT [CONTEXT]: a client certificate, in a kubeconfig that needs no other file.
kubeconfig() {
    local context=${3:-$name}
    certificate "$1" "$2" clientAuth
    cat >"$1.kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: $context
clusters:
- name: $name
  cluster:
    server: https://$node_ip:6443
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
contexts:
- name: $context
  context: {cluster: $name, user: $1}
END
}

authority ca "/CN=mcpfleet cluster $name"
# Of its own: whoever it signs for may say to an API behind the API server who is asking.
authority front-proxy-ca "/CN=mcpfleet cluster $name front proxy"
key service-accounts
openssl pkey -in service-accounts.key -pubout -out service-accounts.pub

certificate apiserver /CN=kube-apiserver serverAuth \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:10.96.0.1,IP:127.0.0.1,IP:$node_ip"
certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate front-proxy-client /CN=front-proxy-client clientAuth '' front-proxy-ca
certificate metrics-server /CN=metrics-server serverAuth DNS:metrics-server.kube-system.svc
certificate kubelet-server "/CN=$name" serverAuth "DNS:$name,IP:$node_ip,IP:127.0.0.1"

kubeconfig admin /O=system:masters/CN=admin
kubeconfig kubelet "/O=system:nodes/CN=system:node:$name"
kubeconfig kube-controller-manager /CN=system:kube-controller-manager
kubeconfig kube-scheduler /CN=system:kube-scheduler
kubeconfig kube-proxy /CN=system:kube-proxy
kubeconfig kwok /O=system:masters/CN=kwok
kubeconfig operator /O=system:masters/CN=operator
kubeconfig coredns /O=system:masters/CN=coredns
kubeconfig provisioner /O=system:masters/CN=provisioner
kubeconfig policies /O=system:masters/CN=policies
kubeconfig metrics /O=system:masters/CN=metrics-server
mv admin.kubeconfig ../kubeconfig
