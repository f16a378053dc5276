#!/usr/bin/env bash
# A kind cluster with KubeRay, an S3 server, the images built from docker/ and the operator. Run it again after a change.
# Needs docker, kind, kubectl and helm. `kind delete cluster --name kit19` removes everything.
set -euo pipefail
cd "$(dirname "$0")/../.."

cluster=kit19
kuberay=1.7.0
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' kit19_ray/__init__.py)
namespace=${NAMESPACE:-default}

kind get clusters | grep -qx "$cluster" || kind create cluster --config k8s/local/kind.yaml
kubectl config use-context "kind-$cluster"

docker build --file docker/Dockerfile.operate --tag "kit19-ray/operate:$version" .
for stage in train serve; do  # without CUDA: there is no GPU in kind
  docker build --file docker/Dockerfile.stage --build-arg "STAGE=$stage" --build-arg TORCH=cpu \
    --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --tag "kit19-ray/$stage:$version" .
done
for image in train serve operate; do
  kind load docker-image --name "$cluster" "kit19-ray/$image:$version"
done

helm upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm \
  --version "$kuberay" --namespace kuberay --create-namespace --wait

kubectl apply -f k8s/local/store.yaml
if ! kubectl --namespace kit19-store get secret minio >/dev/null 2>&1; then
  password=$(openssl rand -hex 16)
  kubectl --namespace kit19-store create secret generic minio --from-literal=MINIO_ROOT_USER=kit19 \
    --from-literal="MINIO_ROOT_PASSWORD=$password"
fi
password=$(kubectl --namespace kit19-store get secret minio -o jsonpath='{.data.MINIO_ROOT_PASSWORD}' | base64 -d)
kubectl --namespace "$namespace" create secret generic kit19-s3 --from-literal=AWS_ACCESS_KEY_ID=kit19 \
  --from-literal="AWS_SECRET_ACCESS_KEY=$password" --dry-run=client -o yaml | kubectl apply -f -
kubectl --namespace kit19-store rollout status deployment/minio --timeout=5m

helm upgrade --install kit19-operator helm/kit19-operator --namespace kit19-system --create-namespace --wait \
  --set clusterWide=true --set 'networkPolicy.egressPorts={443,6443,9000}'

cat <<EOF

Next:
  kubectl --namespace $namespace apply -f k8s/samples/kitrun.debug.yaml
  kubectl --namespace $namespace get kitruns --watch
EOF
