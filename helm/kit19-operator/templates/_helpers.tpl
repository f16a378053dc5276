{{/* Everything's name. */}}
{{- define "kit19-operator.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name -}}
{{- if gt (len $name) 52 -}}{{ fail (printf "release name %q is longer than 52 characters: set nameOverride" $name) }}{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "kit19-operator.selector" -}}
app.kubernetes.io/name: kit19-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kit19-operator.labels" -}}
{{ include "kit19-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: kit19-ray
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "kit19-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "kit19-operator.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The namespaces it works in, as JSON; empty with clusterWide. */}}
{{- define "kit19-operator.namespaces" -}}
{{- if .Values.clusterWide -}}
{{- if .Values.watchNamespaces -}}{{ fail "clusterWide and watchNamespaces exclude one another" }}{{- end -}}
{{- list | toJson -}}
{{- else -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- define "kit19-operator.container-security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Empty with security=none. */}}
{{- define "kit19-operator.pod-security" -}}
{{- if ne .Values.security "none" -}}
runAsNonRoot: true
{{- if eq .Values.security "restricted" }}
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end -}}
