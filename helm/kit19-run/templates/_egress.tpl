{{/*
Where the pods may go beside one another, as kit19_ray/operate/manifests/network_policy.py has it; JSON. A policy knows
addresses, namespaces and ports, not names: what the values name by a host is opened as narrowly as that host tells.
*/}}
{{- define "kit19-run.egress" -}}
{{- $values := .Values -}}
{{- $web := list (dict "port" 443 "protocol" "TCP") -}}
{{- /* 5353 is what OpenShift's name servers listen on behind port 53. */ -}}
{{- $dns := list -}}
{{- range $port := list 53 5353 -}}{{- range list "UDP" "TCP" -}}{{- $dns = append $dns (dict "port" $port "protocol" .) -}}{{- end -}}{{- end -}}
{{- /* EKS Pod Identity's agent, and the instance's own metadata. */ -}}
{{- $identity := list (dict "ipBlock" (dict "cidr" "169.254.170.23/32")) (dict "ipBlock" (dict "cidr" "169.254.169.254/32")) -}}
{{- $ways := list (dict "ports" $dns) (dict "to" $identity "ports" (list (dict "port" 80 "protocol" "TCP"))) -}}
{{- if include "kit19-run.elastic" . -}}
{{- $ways = append $ways (dict "ports" (append $web (dict "port" 6443 "protocol" "TCP"))) -}}
{{- end -}}
{{- range $url := include "kit19-run.urls" . | fromJsonArray -}}
{{- range $way := include "kit19-run.way-to" $url | fromJsonArray -}}
{{- if not (has $way $ways) -}}{{- $ways = append $ways $way -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (include "kit19-run.web" .) (not (has (dict "ports" $web) $ways)) -}}
{{- $ways = append $ways (dict "ports" $web) -}}
{{- end -}}
{{- concat $ways $values.networkPolicy.egress | toJson -}}
{{- end -}}

{{/* Whether an autoscaler asks the API server for pods. */}}
{{- define "kit19-run.elastic" -}}
{{- $root := . -}}
{{- $found := false -}}
{{- if eq .Values.mode "job" -}}
{{- range (.Values.job.stages | default (list "run") | uniq) -}}
{{- $pods := mustMergeOverwrite (deepCopy $root.Values.pods) (deepCopy (index $root.Values.stagePods . | default dict)) -}}
{{- $one := dict "root" $root "stage" . "pods" $pods -}}
{{- if lt (int (include "kit19-run.min-workers" $one)) (int (include "kit19-run.workers" $one)) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- else if eq .Values.mode "cluster" -}}
{{- $one := dict "root" $root "stage" "cluster" "pods" .Values.pods -}}
{{- if lt (int (include "kit19-run.min-workers" $one)) (int (include "kit19-run.workers" $one)) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if .Values.serve.enabled -}}
{{- $one := dict "root" $root "stage" "serve" "pods" .Values.serve.pods -}}
{{- if lt (int (include "kit19-run.min-workers" $one)) (int (include "kit19-run.workers" $one)) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if $found -}}yes{{- end -}}
{{- end -}}

{{/* What the values say will be asked: the store, models that answer or judge, and every URL in the pods' variables. */}}
{{- define "kit19-run.urls" -}}
{{- $evaluate := include "kit19-run.section" (dict "root" . "name" "evaluate") | fromJson -}}
{{- $urls := list .Values.storage.endpoint (dig "endpoint" "" $evaluate) (dig "judge" "endpoint" "" $evaluate) -}}
{{- with .Values.serve.gcsFaultTolerance -}}
{{- with .redisAddress -}}{{- $urls = append $urls (contains "://" . | ternary . (printf "redis://%s" .)) -}}{{- end -}}
{{- end -}}
{{- $all := list .Values.pods -}}
{{- range $stage, $pods := .Values.stagePods -}}{{- $all = append $all $pods -}}{{- end -}}
{{- range append $all .Values.serve.pods -}}
{{- range (.env | default list) -}}
{{- if contains "://" (.value | default "") -}}{{- $urls = append $urls .value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $urls | compact | toJson -}}
{{- end -}}

{{/* Rules by which a URL's host can be reached; JSON. */}}
{{- define "kit19-run.way-to" -}}
{{- $parts := urlParse . -}}
{{- $host := regexReplaceAll ":[0-9]+$" $parts.host "" -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) -}}
{{- if not $port -}}
{{- $port = get (dict "http" "80" "https" "443" "redis" "6379" "rediss" "6379") $parts.scheme -}}
{{- end -}}
{{- $ways := list -}}
{{- if and $host $port -}}
{{- $ports := list (dict "port" (int $port) "protocol" "TCP") -}}
{{- $words := splitList "." $host -}}
{{- if regexMatch "^[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+$" $host -}}
{{- $ways = list (dict "to" (list (dict "ipBlock" (dict "cidr" (printf "%s/32" $host)))) "ports" $ports) -}}
{{- else if eq (len $words) 1 -}}
{{- $ways = list (dict "to" (list (dict "podSelector" dict))) -}}
{{- else -}}
{{- $namespace := dict "to" (list (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" (index $words 1))))) -}}
{{- if and (gt (len $words) 2) (eq (index $words 2) "svc") -}}
{{- $ways = list $namespace -}}
{{- else if eq (len $words) 2 -}}
{{- $ways = list $namespace (dict "ports" $ports) -}}
{{- else -}}
{{- $ways = list (dict "ports" $ports) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $ways -}}
{{- end -}}

{{/* Whether a pod asks a host that the values do not name: AWS' own S3 or role service, the hub, a tracker. */}}
{{- define "kit19-run.web" -}}
{{- $config := .Values.config -}}
{{- $aws := and (hasPrefix "s3://" ($config.root | default "")) (or (not .Values.storage.endpoint) (not .Values.storage.credentialsSecret)) -}}
{{- $hub := .Values.networkPolicy.hub -}}
{{- if kindIs "invalid" $hub -}}
{{- $hub = eq (dig "evaluate" "source" "" $config) "hub" -}}
{{- $named := list (dig "data" "tokenizer" "name" "" $config) (dig "train" "model" "name" "" $config) (dig "evaluate" "model" "" $config) (dig "serve" "model" "" $config) -}}
{{- range concat $named (dig "serve" "models" dict $config | values) -}}
{{- if regexMatch "^[A-Za-z0-9][\\w.-]*/[\\w.-]+$" (. | default "") -}}{{- $hub = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if or $aws $hub (has "wandb" (dig "train" "trackers" list $config)) -}}yes{{- end -}}
{{- end -}}
