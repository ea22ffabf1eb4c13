{{- /*
Where clouds answer about a machine and hand out its rights: link-local addresses, and a few in ranges that are private
or shared. Nobody here has business with them.
*/}}
{{- define "gpudev.netpol.linkLocal" -}}
["169.254.0.0/16"]
{{- end }}
{{- define "gpudev.netpol.linkLocal6" -}}
["fe80::/10"]
{{- end }}
{{- define "gpudev.netpol.metadata" -}}
["100.100.100.200/32"]
{{- end }}
{{- define "gpudev.netpol.metadata6" -}}
["fd00:ec2::23/128", "fd00:ec2::254/128", "fd20:ce::254/128", "64:ff9b::a9fe:0/112"]
{{- end }}

{{- /* Private and shared ranges, in which the rest of those addresses lies: nothing of them is the internet. */}}
{{- define "gpudev.netpol.private" -}}
["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"]
{{- end }}
{{- define "gpudev.netpol.private6" -}}
["fc00::/7", "::1/128", "64:ff9b::/96"]
{{- end }}

{{- /* Peers at these addresses. Who allows all addresses does not mean metadata; a smaller range is taken as it is. */}}
{{- define "gpudev.netpol.blocks" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . }}
    {{- if eq . "0.0.0.0/0" }}
    except:
      {{- toYaml (concat (include "gpudev.netpol.linkLocal" $ | fromJsonArray) (include "gpudev.netpol.metadata" $ | fromJsonArray)) | nindent 6 }}
    {{- else if eq . "::/0" }}
    except:
      {{- toYaml (concat (include "gpudev.netpol.linkLocal6" $ | fromJsonArray) (include "gpudev.netpol.metadata6" $ | fromJsonArray)) | nindent 6 }}
    {{- end }}
{{- end }}
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
{{- $four := concat (include "gpudev.netpol.private" . | fromJsonArray) (include "gpudev.netpol.linkLocal" . | fromJsonArray) }}
{{- $six := concat (include "gpudev.netpol.private6" . | fromJsonArray) (include "gpudev.netpol.linkLocal6" . | fromJsonArray) }}
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
    {{- include "gpudev.netpol.blocks" .Values.networkPolicy.apiServer.cidrs | nindent 4 }}
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
    {{- include "gpudev.netpol.blocks" .Values.networkPolicy.database.cidrs | nindent 4 }}
  ports:
    - port: {{ .Values.networkPolicy.database.port }}
{{- end }}
{{- end }}
