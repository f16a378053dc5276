#!/usr/bin/env bash
# Hands the cluster of k8s/raycluster.yaml a job, follows its log and exits as the job does.
#
#   k8s/submit.sh [ARGUMENTS OF kit19]      default: run --no-serve --config /etc/kit19/config.yaml
set -euo pipefail

namespace=${NAMESPACE:-kit19}
port=${PORT:-8265}
RAY_AUTH_TOKEN=$(kubectl --namespace "$namespace" get secret kit19-token -o jsonpath='{.data.auth_token}' | base64 -d)
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

kubectl --namespace "$namespace" port-forward service/kit19-head-svc "$port:8265" >/dev/null &
trap 'kill %1' EXIT
for _ in $(seq 60); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.5
done

if [ $# -eq 0 ]; then
  set -- run --no-serve --config /etc/kit19/config.yaml
fi
ray job submit --address "http://127.0.0.1:$port" -- python -m kit19_ray "$@"
