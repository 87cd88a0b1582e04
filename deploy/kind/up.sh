#!/usr/bin/env bash
# vibeD on a Kind cluster: the cluster, agent-sandbox, the images, an S3 server, the chart. Again: what changed is brought up to date.
# Needs docker, kind, kubectl, helm. The chart, the images and the values are those that tests run on a node of their own
# (make test-cluster); this script itself is not run by them, since Kind needs a Docker engine.
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=${KIND_CLUSTER:-vibed}
context=kind-$cluster

for program in docker kind kubectl helm; do
    command -v "$program" > /dev/null || { echo "$program is missing: see docs/how-to/install-on-kubernetes.md" >&2; exit 1; }
done
# versions stand in one place, the modules that the tests' cluster is built from
version() { sed -nE "s|^[[:space:]]*$1 (v[^ ]+).*|\1|p" "deploy/cluster/$2/go.mod" | head -n 1; }
kube() { kubectl --context "$context" "$@"; }

kind get clusters 2> /dev/null | grep -qx "$cluster" || kind create cluster --name "$cluster" --config deploy/kind/cluster.yaml

python3 deploy/images/build.py vibed vibed-caddy static-nginx workerd python-313 node-24
for image in vibed vibed-caddy vibed-template-static-nginx vibed-template-workerd vibed-template-python-313 vibed-template-node-24; do
    kind load image-archive --name "$cluster" "dist/images/$image.tar"
done

releases=https://github.com/kubernetes-sigs/agent-sandbox/releases/download
kube apply --server-side -f "$releases/$(version sigs.k8s.io/agent-sandbox control-plane)/sandbox-with-extensions.yaml"
kube -n agent-sandbox-system rollout status deployment --timeout=180s

kube apply -f deploy/kind/namespaces.yaml
if ! kube -n vibed get secret vibed-s3 > /dev/null 2>&1; then
    key=$(head -c 32 /dev/urandom | base64 | tr -d '/+=')
    for place in vibed/vibed-s3 vibed-s3/s3; do
        kube -n "${place%/*}" create secret generic "${place#*/}" \
            --from-literal=AWS_ACCESS_KEY_ID=vibed --from-literal="AWS_SECRET_ACCESS_KEY=$key"
    done
fi
sed "s|:VERSION|:$(version github.com/versity/versitygw s3)|" deploy/kind/s3.yaml | kube apply -f -
kube -n vibed-s3 rollout status deployment s3 --timeout=180s

helm --kube-context "$context" upgrade --install vibed deploy/helm/vibed --namespace vibed \
    --values deploy/kind/values.yaml --wait --timeout 10m
