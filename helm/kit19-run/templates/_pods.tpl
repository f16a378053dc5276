{{/*
The Ray cluster of a stage. Called with a dict:
  root    the chart's context
  stage   run, data, train, evaluate, cluster or serve
  pods    the values of its pods
  config  whether the config file is mounted in the head, where the driver runs
  job     name of the RayJob, a label of the head
  log     where the driver's log is kept
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

{{/* Worker pods that stay when there is nothing to do; as many as there are without an autoscaler. */}}
{{- define "kit19-run.min-workers" -}}
{{- $most := int (include "kit19-run.workers" .) -}}
{{- $scaling := .root.Values.serve.autoscaling -}}
{{- if not (kindIs "invalid" .pods.minWorkers) -}}
{{- min $most (int .pods.minWorkers) -}}
{{- else if and (eq .stage "serve") $scaling (not .root.Values.queue.kueue) -}}
{{- $gpus := max 1 (int .pods.gpus) -}}
{{- $least := 1 -}}
{{- if hasKey $scaling "minReplicas" -}}{{- $least = int $scaling.minReplicas -}}{{- end -}}
{{- min $most (div (add $least $gpus -1) $gpus) -}}
{{- else -}}
{{- $most -}}
{{- end -}}
{{- end -}}

{{- define "kit19-run.ray-cluster" -}}
{{- $workers := int (include "kit19-run.workers" .) -}}
{{- $least := int (include "kit19-run.min-workers" .) -}}
{{- $alone := eq $workers 0 -}}
{{- $values := .root.Values -}}
{{- $train := include "kit19-run.section" (dict "root" .root "name" "train") | fromJson -}}
{{- $room := mul (max 1 $workers) (int .pods.gpus) -}}
{{- if and (has .stage (list "run" "train")) (gt (int .pods.gpus) 0) (lt (int $room) (int (dig "workers" 1 $train))) -}}
{{- fail (printf "pods: %d x %d GPUs cannot hold config.train.workers=%d" (max 1 $workers) (int .pods.gpus) (int (dig "workers" 1 $train))) -}}
{{- end -}}
{{- $amounts := merge (dict "cpu" .pods.cpu "memory" .pods.memory) .pods.resources -}}
{{- if gt (int .pods.gpus) 0 -}}{{- $_ := set $amounts .pods.gpuResource (toString .pods.gpus) -}}{{- end -}}
{{- $worker := dict "root" .root "stage" .stage "pods" .pods "place" .pods "config" false "token" false "container" "ray-worker" "amounts" $amounts "job" "" "log" "" -}}
{{- /* A head beside workers does not follow them onto GPU nodes. */}}
{{- $follow := eq (int .pods.gpus) 0 -}}
{{- $given := .pods.head -}}
{{- $place := dict "scratch" .pods.scratch "podTemplate" $given.podTemplate
      "nodeSelector" (kindIs "invalid" $given.nodeSelector | ternary ($follow | ternary .pods.nodeSelector dict) $given.nodeSelector)
      "tolerations" (kindIs "invalid" $given.tolerations | ternary ($follow | ternary .pods.tolerations list) $given.tolerations)
      "affinity" ($given.affinity | default ($follow | ternary .pods.affinity nil))
      "runtimeClass" ($follow | ternary .pods.runtimeClass nil) -}}
{{- $head := dict "root" .root "stage" .stage "pods" .pods "place" ($alone | ternary .pods $place) "config" .config "token" (lt $least $workers) "container" "ray-head" "amounts" ($alone | ternary $amounts (dict "cpu" $given.cpu "memory" $given.memory)) "beside" (not $alone) "job" (.job | default "") "log" (.log | default "") "annotations" (.annotations | default dict) -}}
rayVersion: {{ $values.rayVersion | quote }}
{{- if eq $values.auth.mode "token" }}
authOptions:
  mode: token
  secretName: {{ include "kit19-run.authSecret" .root }}
{{- end }}
{{- if eq .stage "serve" }}
{{- with $values.serve.gcsFaultTolerance }}
gcsFaultToleranceOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if lt $least $workers }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  resources:
    requests: {cpu: 500m, memory: 512Mi}
    limits: {cpu: 500m, memory: 512Mi}
  {{- if ne $values.security "none" }}
  securityContext:
    {{- include "kit19-run.container-security" . | nindent 4 }}
  {{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: "0.0.0.0"
    {{- if not $alone }}
    # The driver's own place: no task or actor goes there.
    num-cpus: "0"
    {{- end }}
  template:
    {{- include "kit19-run.pod" $head | nindent 4 }}
{{- if not $alone }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ $least }}
    minReplicas: {{ $least }}
    maxReplicas: {{ $workers }}
    rayStartParams: {}
    template:
      {{- include "kit19-run.pod" $worker | nindent 6 }}
{{- end }}
{{- end -}}

{{/* A pod template: the defaults, with the values' podTemplate over them. */}}
{{- define "kit19-run.pod" -}}
{{- $base := include "kit19-run.pod-default" . | fromYaml -}}
{{- $patch := .place.podTemplate | default dict -}}
{{- $container := .container -}}
{{- /* `merge` would lose the nulls, which take a default away. */}}
{{- if dig "spec" "containers" list $patch -}}
{{- $patch = deepCopy $patch -}}
{{- range $patch.spec.containers -}}{{- if eq .name "ray" -}}{{- $_ := set . "name" $container -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $tree := dict -}}
{{- with $patch.metadata -}}{{- $_ := set $tree "metadata" . -}}{{- end -}}
{{- with $patch.spec -}}{{- $_ := set $tree "spec" . -}}{{- end -}}
{{- include "kit19-run.merge" (list $base $tree) | fromJson | toYaml -}}
{{- end -}}

{{- define "kit19-run.pod-default" -}}
{{- $values := .root.Values -}}
{{- $head := eq .container "ray-head" -}}
{{- $keys := eq .stage "serve" | ternary (include "kit19-run.keysSecret" .root) "" -}}
{{- $notes := dict -}}
{{- if or (ne .stage "serve") $head -}}
{{- $notes = dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" "karpenter.sh/do-not-disrupt" "true" -}}
{{- end -}}
{{- $notes = mergeOverwrite $notes (.annotations | default dict) (.pods.annotations | default dict) -}}
{{- $image := index $values.images (has .stage (list "data" "evaluate" "serve") | ternary .stage "train") | default $values.images.train -}}
{{- if and $head .beside -}}{{- $image = $values.images.head | default $image -}}{{- end -}}
metadata:
  labels:
    {{- with .pods.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "kit19-run.pod-labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .stage }}
    {{- with .job }}
    kit19.dev/job: {{ . }}
    {{- end }}
  {{- with $notes }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: {{ .token }}
  terminationGracePeriodSeconds: 180
  serviceAccountName: {{ .pods.serviceAccount | default (include "kit19-run.serviceAccount" .root) }}
  {{- with include "kit19-run.pod-security" .root }}
  securityContext:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with $values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ $image }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      resources:
        requests:
          {{- toYaml .amounts | nindent 10 }}
        limits:
          {{- toYaml .amounts | nindent 10 }}
      # The other nodes are told that this one goes, and what runs there is saved before it does.
      lifecycle:
        preStop:
          exec:
            command: [python, -m, kit19_ray.utils.drain_node]
      {{- if ne $values.security "none" }}
      securityContext:
        {{- include "kit19-run.container-security" . | nindent 8 }}
      {{- end }}
      ports:
        {{- if $head }}
        - name: gcs
          containerPort: 6379
        - name: dashboard
          containerPort: 8265
        {{- end }}
        - name: metrics
          containerPort: 8080
        {{- /* KubeRay's readiness probe takes the port called serve, of workers too. */}}
        {{- if eq .stage "serve" }}
        - name: serve
          containerPort: {{ include "kit19-run.port" .root }}
        {{- end }}
      env:
        {{- if and .config .log }}
        - name: KIT19_DRIVER_LOG
          value: /var/log/kit19/driver.log
        {{- end }}
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
        {{- if $keys }}
        # A folder: a file mounted alone is never renewed.
        - name: kit19-keys
          mountPath: /etc/kit19-keys
          readOnly: true
        {{- end }}
        {{- if .pods.scratch.tmp }}
        - name: tmp
          mountPath: /tmp
        {{- end }}
        {{- if .config }}
        - name: kit19-config
          mountPath: /etc/kit19
          readOnly: true
        {{- end }}
        {{- if and .config .log }}
        - name: driver-log
          mountPath: /var/log/kit19
        {{- end }}
    {{- if and .config .log }}
    - name: driver-log
      image: {{ $image }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      command:
        - sh
        - -c
        - {{ "touch /var/log/kit19/driver.log; trap 'exit 0' TERM; tail -n +1 -F /var/log/kit19/driver.log & wait" | quote }}
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {cpu: 50m, memory: 64Mi}
      volumeMounts:
        - name: driver-log
          mountPath: /var/log/kit19
      {{- if ne $values.security "none" }}
      securityContext:
        {{- include "kit19-run.container-security" . | nindent 8 }}
      {{- end }}
    {{- end }}
  volumes:
    - name: cache
      {{- toYaml (.pods.scratch.cache | default (dict "emptyDir" dict)) | nindent 6 }}
    {{- with .pods.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $keys }}
    - name: kit19-keys
      secret:
        secretName: {{ $keys }}
        items:
          - key: api-keys
            path: api-keys
    {{- end }}
    {{- with .pods.scratch.tmp }}
    - name: tmp
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if .config }}
    - name: kit19-config
      configMap:
        name: {{ include "kit19-run.name" .root }}-config
    {{- end }}
    {{- if and .config .log }}
    - name: driver-log
      emptyDir: {}
    {{- end }}
  {{- with .place.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .place.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .place.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .place.runtimeClass }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $values.queue.priorityClass }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{- define "kit19-run.env" -}}
{{- $given := .pods.env | default list -}}
{{- $own := list -}}
{{- range $given -}}{{- $own = append $own .name -}}{{- end -}}
{{- $env := list -}}
{{- $storage := .root.Values.storage -}}
{{- range list (list "KIT19_CACHE" "/cache/kit19") (list "HF_HOME" "/cache/huggingface") (list "RAY_USAGE_STATS_ENABLED" "0") (list "AWS_ENDPOINT_URL" $storage.endpoint) (list "AWS_REGION" $storage.region) (list "KIT19_DRIVER_LOG_URI" .log) -}}
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
