{{/* Everything's name. KubeRay allows a RayJob 47 characters, and the stage and a hash follow. */}}
{{- define "kit19-run.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name -}}
{{- if or (gt (len $name) 28) (not (regexMatch "^[a-z][-a-z0-9]*$" $name)) -}}
{{- fail (printf "release name %q: at most 28 letters, digits and dashes, a letter first; set nameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Not app.kubernetes.io/name: on Ray's pods that is KubeRay's, and its Services select by it. */}}
{{- define "kit19-run.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: kit19-ray
{{- end -}}

{{- define "kit19-run.labels" -}}
app.kubernetes.io/name: kit19-run
{{ include "kit19-run.pod-labels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "kit19-run.pod-labels" -}}
{{- with .Values.labels }}
{{- toYaml . }}
{{ end -}}
{{ include "kit19-run.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* What KubeRay's and Kueue's controllers read from an object: YAML, empty without a queue. Called with root, name, kind. */}}
{{- define "kit19-run.queue-labels" -}}
{{- $queue := .root.Values.queue -}}
{{- $scheduler := $queue.scheduler | default "" -}}
{{- $labels := dict "kueue.x-k8s.io/queue-name" $queue.kueue "kueue.x-k8s.io/priority-class" $queue.kueuePriority -}}
{{- if and (eq $scheduler "scheduler-plugins") (ne .kind "RayCluster") -}}
{{- fail (printf "queue.scheduler=scheduler-plugins: KubeRay refuses a %s under it (it gangs RayClusters only, mode=cluster); take queue.kueue, volcano, yunikorn or kai-scheduler" .kind) -}}
{{- end -}}
{{- if $scheduler -}}
{{- $_ := set $labels "ray.io/priority-class-name" $queue.priorityClass -}}
{{- end -}}
{{- if has $scheduler (list "yunikorn" "scheduler-plugins") -}}
{{- $_ := set $labels "ray.io/gang-scheduling-enabled" "true" -}}
{{- end -}}
{{- if eq $scheduler "volcano" -}}
{{- $_ := set $labels "volcano.sh/queue-name" $queue.schedulerQueue -}}
{{- else if eq $scheduler "yunikorn" -}}
{{- $_ := set $labels "yunikorn.apache.org/app-id" .name -}}
{{- $_ := set $labels "yunikorn.apache.org/queue" $queue.schedulerQueue -}}
{{- else if eq $scheduler "kai-scheduler" -}}
{{- $_ := set $labels "kai.scheduler/queue" $queue.schedulerQueue -}}
{{- end -}}
{{- range $key, $value := $labels -}}
{{- if not $value -}}{{- $_ := unset $labels $key -}}{{- end -}}
{{- end -}}
{{- if $labels -}}{{- toYaml $labels -}}{{- end -}}
{{- end -}}

{{/* A KubeRay that drops authOptions would leave the dashboard open; where the cluster can be asked, it is. */}}
{{- define "kit19-run.check-kuberay" -}}
{{- if eq .Values.auth.mode "token" -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "rayclusters.ray.io" -}}
{{- $known := false -}}
{{- range .spec.versions -}}
{{- if and (eq .name "v1") (dig "schema" "openAPIV3Schema" "properties" "spec" "properties" "authOptions" "properties" "secretName" dict .) -}}{{- $known = true -}}{{- end -}}
{{- end -}}
{{- if not $known -}}
{{- fail "this cluster's KubeRay does not know authOptions.secretName and would leave the dashboard open: upgrade KubeRay to 1.6 or newer, or set auth.mode=none" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kit19-run.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "kit19-run.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "kit19-run.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-token" (include "kit19-run.name" .)) -}}
{{- end -}}

{{/* The Secret with the server's API keys; empty where everybody may ask, or the config has a file of its own. */}}
{{- define "kit19-run.keysSecret" -}}
{{- $serve := include "kit19-run.section" (dict "root" . "name" "serve") | fromJson -}}
{{- if and (ne (toString (dig "auth" "" $serve)) "none") (not (dig "api_keys_file" "" $serve)) -}}
{{- .Values.serve.keysSecret | default (printf "%s-keys" (include "kit19-run.name" .)) -}}
{{- else if .Values.serve.keysSecret -}}
{{- fail "serve.keysSecret: config.serve.auth=none, or an api_keys_file of one's own, and a Secret of keys exclude each other" -}}
{{- end -}}
{{- end -}}

{{/* The config as it was given: `kit19 --config` knows the defaults. JSON, because toYaml writes 1000000 as 1e+06. */}}
{{- define "kit19-run.config" -}}
{{- $root := required "config.root is not set: s3://bucket/prefix, or file:/// on a shared volume" .Values.config.root -}}
{{- if not (regexMatch "^(s3://|file:///)." $root) -}}
{{- fail (printf "config.root=%s must be an s3:// or file:/// URI: a pod has no working directory" $root) -}}
{{- end -}}
{{- toPrettyJson .Values.config -}}
{{- end -}}

{{/* One section of the config, {} when it is not given. */}}
{{- define "kit19-run.section" -}}
{{- dig .name dict (.root.Values.config | default dict) | toJson -}}
{{- end -}}

{{- define "kit19-run.container-security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* `ray` and `users` of the rayproject images. */}}
{{- define "kit19-run.ids" -}}
runAsUser: 1000
runAsGroup: 100
fsGroup: 100
{{- end -}}

{{/* The pod's security context, as `security` says; empty with none. */}}
{{- define "kit19-run.pod-security" -}}
{{- if ne .Values.security "none" -}}
runAsNonRoot: true
{{- if eq .Values.security "restricted" }}
{{ include "kit19-run.ids" . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end -}}
