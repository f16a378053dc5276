{{/* Everything's name. KubeRay allows a RayJob 47 characters, and the stage and a hash follow. */}}
{{- define "kit19-run.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name -}}
{{- if or (gt (len $name) 28) (not (regexMatch "^[a-z][-a-z0-9]*$" $name)) -}}
{{- fail (printf "release name %q: at most 28 letters, digits and dashes, a letter first; set nameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "kit19-run.selector" -}}
app.kubernetes.io/name: kit19-run
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kit19-run.labels" -}}
{{- with .Values.labels }}
{{- toYaml . }}
{{ end -}}
{{ include "kit19-run.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kit19-ray
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What KubeRay's and Kueue's controllers read from a RayJob or RayCluster. */}}
{{- define "kit19-run.queue-labels" -}}
{{- $queue := .Values.queue -}}
{{- with $queue.kueue }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- with $queue.kueuePriority }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- with $queue.scheduler }}
ray.io/scheduler-name: {{ . }}
{{- with $queue.priorityClass }}
ray.io/priority-class-name: {{ . }}
{{- end }}
{{- end }}
{{- if eq ($queue.scheduler | default "") "volcano" }}
{{- with $queue.schedulerQueue }}
volcano.sh/queue-name: {{ . }}
{{- end }}
{{- end }}
{{- if eq ($queue.scheduler | default "") "yunikorn" }}
ray.io/gang-scheduling-enabled: "true"
yunikorn.apache.org/app-id: {{ printf "%s-%s" .Release.Namespace .Release.Name | trunc 63 | trimSuffix "-" }}
{{- with $queue.schedulerQueue }}
yunikorn.apache.org/queue: {{ . }}
{{- end }}
{{- end }}
{{- if eq ($queue.scheduler | default "") "kai-scheduler" }}
{{- with $queue.schedulerQueue }}
kai.scheduler/queue: {{ . }}
{{- end }}
{{- end }}
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

{{/* The config as it was given: `kit19 --config` knows the defaults. */}}
{{- define "kit19-run.config" -}}
{{- $root := required "config.root is not set: s3://bucket/prefix, or file:/// on a shared volume" .Values.config.root -}}
{{- if not (regexMatch "^(s3://|file:///)." $root) -}}
{{- fail (printf "config.root=%s must be an s3:// or file:/// URI: a pod has no working directory" $root) -}}
{{- end -}}
{{- toYaml .Values.config -}}
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

{{- define "kit19-run.pod-security" -}}
# `ray` and `users` of the rayproject images
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 100
fsGroup: 100
seccompProfile:
  type: RuntimeDefault
{{- end -}}
