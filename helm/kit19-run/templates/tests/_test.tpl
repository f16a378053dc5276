{{/* A test's Pod. */}}
{{- define "kit19-run.test" }}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "kit19-run.name" .root }}-test-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "kit19-run.pod-labels" .root | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  serviceAccountName: {{ include "kit19-run.serviceAccount" .root }}
  securityContext:
    {{- include "kit19-run.pod-security" .root | nindent 4 }}
  {{- with .root.Values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: test
      image: {{ .image }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      resources:
        requests: {cpu: 100m, memory: 256Mi}
        limits: {cpu: "1", memory: 1Gi}
      securityContext:
        {{- include "kit19-run.container-security" . | nindent 8 }}
      {{- if .config }}
      volumeMounts:
        - name: kit19-config
          mountPath: /etc/kit19
          readOnly: true
      {{- end }}
  {{- if .config }}
  volumes:
    - name: kit19-config
      configMap:
        name: {{ include "kit19-run.name" .root }}-config
  {{- end }}
{{- end }}
