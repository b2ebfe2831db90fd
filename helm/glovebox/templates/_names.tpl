{{- define "glovebox.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "glovebox.labels" -}}
app.kubernetes.io/name: glovebox
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- define "glovebox.selector" -}}
app.kubernetes.io/name: glovebox
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "glovebox.image" -}}
{{ required "image.repository is needed" .Values.image.repository }}@{{ required "image.digest is needed: a tag can be moved" .Values.image.digest }}
{{- end -}}

{{- define "glovebox.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "glovebox.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.portal.uid }}
runAsGroup: {{ .Values.portal.uid }}
fsGroup: {{ .Values.portal.uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "glovebox.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
