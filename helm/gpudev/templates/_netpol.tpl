{{- /* Private, link-local (cloud metadata lies there) and shared ranges: nothing of them is the internet. */}}
{{- define "gpudev.netpol.private" -}}
["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"]
{{- end }}
{{- define "gpudev.netpol.private6" -}}
["fc00::/7", "fe80::/10", "::1/128", "64:ff9b::/96"]
{{- end }}

{{- define "gpudev.netpol.dns" -}}
# DNS.
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dns.namespace }}
      {{- with .Values.networkPolicy.dns.podLabels }}
      podSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
      {{- end }}
    {{- range .Values.networkPolicy.dns.cidrs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
{{- end }}

{{- define "gpudev.netpol.internet" -}}
{{- $four := include "gpudev.netpol.private" . | fromJsonArray }}
{{- $six := include "gpudev.netpol.private6" . | fromJsonArray }}
{{- range .Values.networkPolicy.users.blockedCidrs }}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end }}
{{- end }}
# The internet, without private ranges, cloud metadata and what the operator blocks.
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          {{- toYaml $four | nindent 10 }}
    - ipBlock:
        cidr: ::/0
        except:
          {{- toYaml $six | nindent 10 }}
{{- end }}

{{- define "gpudev.netpol.apiServer" -}}
# The API server. It is no pod, so it cannot be selected by labels.
- to:
    {{- range .Values.networkPolicy.apiServer.cidrs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - port: {{ . }}
    {{- end }}
{{- end }}

{{- define "gpudev.netpol.database" -}}
{{- if .Values.database.trial.enabled }}
# The trial database.
- to:
    - podSelector:
        matchLabels:
          {{- include "gpudev.matchLabels" (dict "root" . "component" "database") | nindent 10 }}
  ports:
    - port: postgresql
{{- else }}
# The database.
- to:
    {{- range .Values.networkPolicy.database.cidrs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  ports:
    - port: {{ .Values.networkPolicy.database.port }}
{{- end }}
{{- end }}
