{{- define "glovebox.env" -}}
- name: GLOVEBOX_HOME
  value: /var/lib/glovebox
- name: GLOVEBOX_KEYS
  value: /etc/glovebox/keys
- name: GLOVEBOX_CHECKPOINTS
  value: /var/lib/glovebox-checkpoints
- name: GLOVEBOX_PROXIES
  value: {{ .Values.portal.proxies | quote }}
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
  mountPath: /etc/glovebox/keys/web
  readOnly: true
- name: public
  mountPath: /etc/glovebox/keys/public
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
    secretName: {{ required "portal.keys.session is needed" .Values.portal.keys.session | quote }}
    defaultMode: 0440
# Public halves only: release/*.pem, audit/*.pem, intake.x25519.pem. A Secret's keys are no paths.
- name: public
  projected:
    defaultMode: 0444
    sources:
      - configMap:
          name: {{ required "portal.keys.public is needed" .Values.portal.keys.public | quote }}
          items:
            {{- range $file, $path := .Values.portal.keys.publicFiles }}
            - key: {{ $file | quote }}
              path: {{ $path | quote }}
            {{- end }}
{{- end -}}

{{- define "glovebox.viewMount" -}}
- name: view
  mountPath: /etc/glovebox/keys/view
  readOnly: true
{{- end -}}

{{- define "glovebox.viewVolume" -}}
- name: view
  secret:
    secretName: {{ required "portal.keys.view is needed" .Values.portal.keys.view | quote }}
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

{{- define "glovebox.migrate" -}}
image: {{ include "glovebox.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- include "glovebox.env" . | nindent 2 }}
  - name: GLOVEBOX_ROLE
    value: web
  - name: DJANGO_SETTINGS_MODULE
    value: portal.settings
securityContext:
  {{- include "glovebox.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .Values.web.resources | nindent 2 }}
volumeMounts:
  {{- include "glovebox.mounts" . | nindent 2 }}
{{- end -}}
