{{/*
The Ray cluster of a stage. Called with a dict:
  root    the chart's context
  stage   run, data, train, evaluate, cluster or serve
  pods    the values of its pods
  config  whether the config file is mounted in the head, where the driver runs
*/}}

{{/* Worker pods: as given, else as many as the config's sections have workers. */}}
{{- define "kit19-run.workers" -}}
{{- if not (kindIs "invalid" .pods.workers) -}}
{{- int .pods.workers -}}
{{- else -}}
{{- $wanted := 1 -}}
{{- if eq .stage "serve" -}}
{{- $serve := include "kit19-run.section" (dict "root" .root "name" "serve") | fromJson -}}
{{- $wanted = int (dig "replicas" 1 $serve) -}}
{{- with .root.Values.serve.autoscaling -}}{{- $wanted = int (.maxReplicas | default 2) -}}{{- end -}}
{{- else -}}
{{- range (eq .stage "data" | ternary (list) (has .stage (list "run" "cluster") | ternary (list "train" "evaluate") (list .stage))) -}}
{{- $section := include "kit19-run.section" (dict "root" $.root "name" .) | fromJson -}}
{{- $wanted = max $wanted (int (dig "workers" 1 $section)) -}}
{{- end -}}
{{- end -}}
{{- $gpus := int .pods.gpus -}}
{{- if and (eq (int $wanted) 1) (eq $gpus 0) -}}0{{- else -}}{{- div (add (int $wanted) (max 1 $gpus) -1) (max 1 $gpus) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kit19-run.ray-cluster" -}}
{{- $workers := int (include "kit19-run.workers" .) -}}
{{- $alone := eq $workers 0 -}}
{{- $values := .root.Values -}}
{{- $size := dict "cpu" .pods.cpu "memory" .pods.memory "gpus" .pods.gpus "gpuResource" .pods.gpuResource -}}
{{- $train := include "kit19-run.section" (dict "root" .root "name" "train") | fromJson -}}
{{- $room := mul (max 1 $workers) (int .pods.gpus) -}}
{{- if and (has .stage (list "run" "train")) (gt (int .pods.gpus) 0) (lt (int $room) (int (dig "workers" 1 $train))) -}}
{{- fail (printf "pods: %d x %d GPUs cannot hold config.train.workers=%d" (max 1 $workers) (int .pods.gpus) (int (dig "workers" 1 $train))) -}}
{{- end -}}
rayVersion: {{ $values.rayVersion | quote }}
{{- if eq $values.auth.mode "token" }}
authOptions:
  mode: token
  secretName: {{ include "kit19-run.authSecret" .root }}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: "0.0.0.0"
    {{- if not $alone }}
    # The driver's own place: no task or actor goes there.
    num-cpus: "0"
    {{- end }}
  template:
    {{- $head := $alone | ternary $size (merge (dict "gpus" 0) .pods.head) }}
    {{- include "kit19-run.pod" (dict "root" .root "stage" .stage "pods" .pods "config" .config "container" "ray-head" "size" $head "scheduled" true) | nindent 4 }}
{{- if not $alone }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ $workers }}
    minReplicas: {{ $workers }}
    maxReplicas: {{ $workers }}
    rayStartParams: {}
    template:
      {{- include "kit19-run.pod" (dict "root" .root "stage" .stage "pods" .pods "config" false "container" "ray-worker" "size" $size "scheduled" true) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Pod template of KubeRay's submitter, which hands the entrypoint to the cluster and follows its log. */}}
{{- define "kit19-run.submitter" -}}
{{- $size := dict "cpu" "500m" "memory" "512Mi" "gpus" 0 -}}
{{- include "kit19-run.pod" (dict "root" .root "stage" .stage "pods" .pods "config" false "container" "ray-job-submitter" "size" $size "scheduled" false) -}}
{{- end -}}

{{- define "kit19-run.pod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- with .pods.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "kit19-run.pod-labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .stage }}
  {{- with .pods.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  serviceAccountName: {{ .pods.serviceAccount | default (include "kit19-run.serviceAccount" .root) }}
  {{- if eq .container "ray-job-submitter" }}
  restartPolicy: Never
  {{- end }}
  securityContext:
    {{- include "kit19-run.pod-security" . | nindent 4 }}
  {{- with $values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ eq .stage "serve" | ternary $values.images.serve $values.images.train }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      resources:
        {{- range list "requests" "limits" }}
        {{ . }}:
          cpu: {{ $.size.cpu | quote }}
          memory: {{ $.size.memory }}
          {{- if gt (int $.size.gpus) 0 }}
          {{ $.size.gpuResource }}: {{ $.size.gpus | quote }}
          {{- end }}
        {{- end }}
      securityContext:
        {{- include "kit19-run.container-security" . | nindent 8 }}
      {{- if eq .container "ray-head" }}
      ports:
        - name: gcs
          containerPort: 6379
        - name: dashboard
          containerPort: 8265
        {{- if eq .stage "serve" }}
        - name: serve
          containerPort: {{ include "kit19-run.port" .root }}
        {{- end }}
      {{- end }}
      env:
        {{- include "kit19-run.env" . | nindent 8 }}
      {{- if or $values.storage.credentialsSecret .pods.envFrom }}
      envFrom:
        {{- with $values.storage.credentialsSecret }}
        - secretRef:
            name: {{ . }}
        {{- end }}
        {{- with .pods.envFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      volumeMounts:
        - name: cache
          mountPath: /cache
        {{- with .pods.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if .config }}
        - name: kit19-config
          mountPath: /etc/kit19
          readOnly: true
        {{- end }}
  volumes:
    - name: cache
      emptyDir: {}
    {{- with .pods.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if .config }}
    - name: kit19-config
      configMap:
        name: {{ include "kit19-run.name" .root }}-config
    {{- end }}
  {{- if .scheduled }}
  {{- with .pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.queue.priorityClass }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "kit19-run.env" -}}
{{- $given := .pods.env | default list -}}
{{- $own := list -}}
{{- range $given -}}{{- $own = append $own .name -}}{{- end -}}
{{- $env := list -}}
{{- $storage := .root.Values.storage -}}
{{- range list (list "KIT19_CACHE" "/cache/kit19") (list "HF_HOME" "/cache/huggingface") (list "RAY_USAGE_STATS_ENABLED" "0") (list "AWS_ENDPOINT_URL" $storage.endpoint) (list "AWS_REGION" $storage.region) -}}
{{- if and (last .) (not (has (first .) $own)) -}}
{{- $env = append $env (dict "name" (first .) "value" (last .)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (concat $env $given) -}}
{{- end -}}

{{/* The port the model answers on. */}}
{{- define "kit19-run.port" -}}
{{- $serve := include "kit19-run.section" (dict "root" . "name" "serve") | fromJson -}}
{{- dig "port" 8000 $serve | int -}}
{{- end -}}
