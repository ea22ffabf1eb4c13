{{- /* Names are fixed, as those of the jupyterhub chart are: one installation in a namespace. */}}

{{- define "gpudev.labels" -}}
{{ include "gpudev.matchLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gpudev.matchLabels" -}}
app.kubernetes.io/name: gpudev
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Labels of a part of the jupyterhub chart. */}}
{{- define "gpudev.hubMatchLabels" -}}
app.kubernetes.io/name: {{ .root.Values.jupyterhub.nameOverride | default "jupyterhub" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "gpudev.image" -}}
{{ .Values.service.image.name }}:{{ .Values.service.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "gpudev.imagePullSecrets" -}}
{{- include "jupyterhub.imagePullSecrets" (dict "root" . "image" .Values.service.image) }}
{{- end }}

{{- define "gpudev.baseUrl" -}}
{{ .Values.jupyterhub.hub.baseUrl | default "/" | trimSuffix "/" }}/
{{- end }}

{{- define "gpudev.prefix" -}}
{{ include "gpudev.baseUrl" . }}services/gpudev
{{- end }}

{{- define "gpudev.hubServiceAccount" -}}
{{- $account := .Values.jupyterhub.hub.serviceAccount }}
{{- if $account.create }}
{{- $account.name | default (include "jupyterhub.hub.fullname" .) }}
{{- else }}
{{- $account.name | default "default" }}
{{- end }}
{{- end }}

{{- /* The traits of the service, by class, as JSON. What `config` says goes before the rest. */}}
{{- define "gpudev.traits" -}}
{{- $base := include "gpudev.prefix" . }}
{{- $gpudev := dict
    "fleet" "kubernetes"
    "namespace" .Release.Namespace
    "data_dir" "/srv/gpudev"
    "service_url" (print "http://gpudev:10101" $base)
    "gpu_types" .Values.gpuTypes
    "policy" .Values.policy
    "times" .Values.times
    "disk_size_gb" (.Values.disks.sizeGb | int)
    "index_image" (include "gpudev.image" . | trim)
}}
{{- with .Values.publicUrl }}{{ $_ := set $gpudev "public_url" . }}{{ end }}
{{- with .Values.disks.storageClass }}{{ $_ := set $gpudev "storage_class" . }}{{ end }}
{{- with .Values.disks.snapshotClass }}{{ $_ := set $gpudev "snapshot_class" . }}{{ end }}
{{- with .Values.disks.sharedStorageClass }}{{ $_ := set $gpudev "shared_storage_class" . }}{{ end }}
{{- $_ := set $gpudev "network_policies" .Values.networkPolicy.enabled }}
{{- $all := dict "GpuDev" $gpudev "GpuDevWeb" dict }}
{{- mergeOverwrite $all (deepCopy .Values.config) | toPrettyJson }}
{{- end }}

{{- define "gpudev.files" -}}
gpudev_config.py: |
  {{- .Files.Get "files/gpudev_config.py" | nindent 2 }}
values.json: |
  {{- include "gpudev.traits" . | nindent 2 }}
{{- range $name, $text := .Values.extraConfig }}
extra-{{ $name }}.py: |
  {{- $text | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the database's URL is: (name, key) of a Secret, and the same for what runs before the release is there. */}}
{{- define "gpudev.database.secret" -}}
{{- if .Values.database.trial.enabled }}
{{- dict "name" "gpudev-database" "key" "url" | toJson }}
{{- else if .Values.database.existingSecret.name }}
{{- dict "name" .Values.database.existingSecret.name "key" .Values.database.existingSecret.key | toJson }}
{{- else }}
{{- dict "name" "gpudev" "key" "db-url" | toJson }}
{{- end }}
{{- end }}

{{- /* A value of a Secret that is made once: as it is in the cluster, else a new one. */}}
{{- define "gpudev.kept" -}}
{{- $there := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict }}
{{- $data := get $there "data" | default dict }}
{{- if hasKey $data .key }}
{{- get $data .key | b64dec }}
{{- else }}
{{- randAlphaNum 48 }}
{{- end }}
{{- end }}

{{- define "gpudev.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gpudev.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}
