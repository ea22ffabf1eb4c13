{{- /* What no schema can say. Each refusal names the values and what would be accepted. */}}
{{- define "gpudev.checks" -}}
{{- $ways := list }}
{{- if .Values.database.url }}{{ $ways = append $ways "database.url" }}{{ end }}
{{- if .Values.database.existingSecret.name }}{{ $ways = append $ways "database.existingSecret.name" }}{{ end }}
{{- if .Values.database.trial.enabled }}{{ $ways = append $ways "database.trial.enabled" }}{{ end }}
{{- if ne (len $ways) 1 }}
{{- fail (printf "\n\nSay where the database is, in one way: database.url, database.existingSecret.name or database.trial.enabled (set: %s)." (join ", " $ways | default "none")) }}
{{- end }}
{{- $hub := .Values.jupyterhub }}
{{- if ne ($hub.fullnameOverride | toString) "" }}
{{- fail "\n\njupyterhub.fullnameOverride must stay \"\": the parts find each other by fixed names. Use one namespace for each installation." }}
{{- end }}
{{- if ne ($hub.hub.services.gpudev.url | toString) "http://gpudev:10101" }}
{{- fail "\n\njupyterhub.hub.services.gpudev.url must stay http://gpudev:10101, the Service of this chart." }}
{{- end }}
{{- if not $hub.rbac.create }}
{{- if $hub.scheduling.userScheduler.enabled }}
{{- fail "\n\njupyterhub.scheduling.userScheduler.enabled needs jupyterhub.rbac.create=true. gpudev needs no scheduler of its own: its planner says the node." }}
{{- end }}
{{- if $hub.prePuller.hook.enabled }}
{{- fail "\n\njupyterhub.prePuller.hook.enabled needs jupyterhub.rbac.create=true." }}
{{- end }}
{{- if and $hub.proxy.https.enabled (eq $hub.proxy.https.type "letsencrypt") }}
{{- fail "\n\njupyterhub.proxy.https.type=letsencrypt needs jupyterhub.rbac.create=true." }}
{{- end }}
{{- end }}
{{- if $hub.cull.enabled }}
{{- fail "\n\njupyterhub.cull.enabled must stay false: leases end by gpudev, idle ones by policy.default.idle." }}
{{- end }}
{{- if ne $hub.singleuser.storage.type "none" }}
{{- fail "\n\njupyterhub.singleuser.storage.type must stay none: gpudev's disks are people's homes." }}
{{- end }}
{{- end }}
