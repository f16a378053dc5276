{{/*
Strategic merge of a map over another, as kit19_ray/operate/manifests/strategic_merge.py does it: maps key by key, null
takes away, named lists by their key. Called with (list BASE PATCH); JSON.
*/}}
{{- define "kit19-run.merge" -}}
{{- $keys := dict "containers" "name" "initContainers" "name" "ephemeralContainers" "name" "volumes" "name" "env" "name" "imagePullSecrets" "name" "resourceClaims" "name" "volumeMounts" "mountPath" "volumeDevices" "devicePath" "ports" "containerPort" "hostAliases" "ip" "topologySpreadConstraints" "topologyKey" -}}
{{- $out := deepCopy (first .) -}}
{{- $patch := last . -}}
{{- if eq (toString (get $patch "$patch")) "replace" -}}
{{- $out = omit $patch "$patch" -}}
{{- else -}}
{{- range $key, $value := $patch -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $out $key -}}
{{- else if kindIs "map" $value -}}
{{- $before := get $out $key -}}
{{- if not (kindIs "map" $before) -}}{{- $before = dict -}}{{- end -}}
{{- $_ := set $out $key (include "kit19-run.merge" (list $before $value) | fromJson) -}}
{{- else if and (kindIs "slice" $value) (hasKey $keys $key) -}}
{{- $by := get $keys $key -}}
{{- $items := get $out $key | default list -}}
{{- range $item := $value -}}
{{- $wanted := toString (get $item $by) -}}
{{- $made := list -}}
{{- $met := false -}}
{{- range $one := $items -}}
{{- if eq (toString (get $one $by)) $wanted -}}
{{- $met = true -}}
{{- if ne (toString (get $item "$patch")) "delete" -}}
{{- $made = append $made (include "kit19-run.merge" (list $one $item) | fromJson) -}}
{{- end -}}
{{- else -}}
{{- $made = append $made $one -}}
{{- end -}}
{{- end -}}
{{- if and (not $met) (ne (toString (get $item "$patch")) "delete") -}}
{{- $made = append $made (include "kit19-run.merge" (list dict $item) | fromJson) -}}
{{- end -}}
{{- $items = $made -}}
{{- end -}}
{{- $_ := set $out $key $items -}}
{{- else -}}
{{- $_ := set $out $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $out -}}
{{- end -}}
