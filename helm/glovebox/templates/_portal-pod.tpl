{{- define "glovebox.env" -}}
- name: GLOVEBOX_HOME
  value: /var/lib/glovebox
- name: GLOVEBOX_KEYS
  value: /var/run/glovebox-keys
- name: GLOVEBOX_URL
  value: {{ required "portal.url is needed" .Values.portal.url | quote }}
- name: GLOVEBOX_HOSTS
  value: {{ include "glovebox.hosts" . | quote }}
- name: GLOVEBOX_TIME_ZONE
  value: {{ .Values.portal.timeZone | quote }}
- name: GLOVEBOX_POSTGRES_HOST
  value: {{ required "portal.database.host is needed" .Values.portal.database.host | quote }}
- name: GLOVEBOX_POSTGRES_PORT
  value: {{ .Values.portal.database.port | quote }}
- name: GLOVEBOX_POSTGRES_DB
  value: {{ .Values.portal.database.name | quote }}
- name: GLOVEBOX_POSTGRES_USER
  valueFrom:
    secretKeyRef:
      name: {{ required "portal.database.secret is needed" .Values.portal.database.secret | quote }}
      key: {{ .Values.portal.database.userKey | quote }}
- name: GLOVEBOX_POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.portal.database.secret | quote }}
      key: {{ .Values.portal.database.passwordKey | quote }}
- name: GLOVEBOX_BROKER
  valueFrom:
    secretKeyRef:
      name: {{ required "portal.broker.secret is needed" .Values.portal.broker.secret | quote }}
      key: {{ .Values.portal.broker.key | quote }}
{{- range $name, $value := .Values.portal.env }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- range .Values.portal.secretEnv }}
- name: {{ .name | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- end -}}

{{- define "glovebox.hosts" -}}
{{ .Values.portal.url | trimPrefix "https://" | trimPrefix "http://" | trimSuffix "/" }}
{{- range .Values.portal.hosts }},{{ . }}{{ end }}
{{- end -}}

{{- define "glovebox.mounts" -}}
- name: home
  mountPath: /var/lib/glovebox
- name: tmp
  mountPath: /tmp
- name: session
  mountPath: /var/run/glovebox-keys/web
  readOnly: true
{{- end -}}

{{- define "glovebox.volumes" -}}
- name: home
  persistentVolumeClaim:
    claimName: {{ required "portal.storage.claim is needed: web and workers share GLOVEBOX_HOME" .Values.portal.storage.claim | quote }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
- name: session
  secret:
    secretName: {{ required "portal.session.secret is needed" .Values.portal.session.secret | quote }}
    defaultMode: 0440
{{- end -}}

{{- define "glovebox.health" -}}
httpGet:
  path: {{ .Values.web.healthPath | quote }}
  port: http
  httpHeaders:
    # Django answers only to the names it was given, and a probe comes by address.
    - name: Host
      value: {{ include "glovebox.hosts" . | splitList "," | first | quote }}
    - name: X-Forwarded-Proto
      value: https
{{- end -}}

{{- define "glovebox.keyMount" -}}
- name: keys
  mountPath: /var/run/glovebox-keys/data
  readOnly: true
{{- end -}}

{{- define "glovebox.keyVolume" -}}
- name: keys
  secret:
    secretName: {{ required "portal.keys.secret is needed" .Values.portal.keys.secret | quote }}
    defaultMode: 0440
{{- end -}}
